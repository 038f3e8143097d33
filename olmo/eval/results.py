"""Files of one evaluation: where they lie, how they grow, and when they may be continued.

A result folder holds `settings.json` (what was asked of which weights), `predictions.jsonl` (one line per question,
appended as answers come), `starts.jsonl` (with what software and in how many processes, a line per start) and `metrics.json`
(written last). While several ranks answer, rank r > 0 appends to `predictions.rank<r>.jsonl`; rank 0 merges these at the end.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from olmo.eval.task import Task
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.json_lines import append_records, as_lines, cut_partial_line, read_records, write_through, write_whole

PREDICTIONS = "predictions.jsonl"
METRICS = "metrics.json"
SETTINGS = "settings.json"
STARTS = "starts.jsonl"

WEIGHTS = ("checkpoint", "weights")
"""Keys of the settings that say which weights were asked."""


def result_folder(
    checkpoint: Path,
    step: int | None,
    task: Task,
    settings: dict[str, Any],
    eval_name: str | None = None,
    save_dir: str | Path | None = None,
) -> Path:
    """`predictions[-ck<step>]-<task>-<split>-f<frames>-k<topk>-<hash>[-<eval_name>]`, beside a `step<N>` folder, inside any other
    checkpoint, or below `save_dir` in a folder named after the model.

    Beside a folder without a step two checkpoints of one parent would share their results, therefore inside. `frames` is the
    most frames of a video, `topk` the share of its cells that is removed, and the hash stands for all settings but the weights.
    """
    checkpoint = checkpoint.absolute()
    beside = step is not None and checkpoint.name == f"step{step}"
    if save_dir is None:
        base = checkpoint.parent if beside else checkpoint
    else:
        model = (checkpoint.parent,) if beside else (checkpoint.parent, checkpoint) if step is not None else (checkpoint,)
        base = Path(save_dir).joinpath(*(folder.name for folder in model))
    asked = {key: value for key, value in settings.items() if key not in WEIGHTS}
    short = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]
    parts = ["predictions", *([f"ck{step}"] if step is not None else []), task.name, task.split]
    parts += [f"f{settings['frames']}", f"k{settings['topk']:g}", short, *([eval_name] if eval_name else [])]
    return base / "-".join(parts)


def newest_results(base: str | Path, pattern: str) -> Path | None:
    """The result folder below `base` whose name matches and that was finished last; None if there is none."""
    finished = [file for file in Path(base).glob(f"{pattern}/{METRICS}") if file.is_file()]
    return max(finished, key=lambda file: file.stat().st_mtime_ns).parent if finished else None


def weights_fingerprint(checkpoint: Path) -> dict[str, Any]:
    """Size and time of the file that a checkpoint cannot do without: retrained weights in the same folder differ in it."""
    for name in ("model.pt", "model_and_optim/.metadata", "model.safetensors", "model.safetensors.index.json"):
        file = checkpoint / name
        if file.is_file():
            stat = file.stat()
            return {"file": name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    raise OLMoConfigurationError(f"{checkpoint} holds no file of weights")


class ResultFolder:
    """The files of one evaluation, seen from one rank."""

    def __init__(self, path: Path, settings: dict[str, Any], *, rank: int = 0, world_size: int = 1) -> None:
        self.path, self.rank, self.world_size = Path(path), rank, world_size
        self.settings = json.loads(json.dumps(settings, default=str))  # as the file gives them back, so that they compare
        self._own = None

    # ------------------------------------------------------------------ before

    def prepare(self, overwrite: bool) -> None:
        """Rank 0, before the others open the folder: create it, clear it if asked, refuse results of other settings."""
        if overwrite and self.path.exists():
            self._writing(lambda: shutil.rmtree(self.path))
        self._writing(lambda: self.path.mkdir(parents=True, exist_ok=True))
        saved = self._saved_settings()
        if saved is not None and saved != self.settings:
            raise OLMoConfigurationError(
                f"{self.path} holds predictions made with other settings ({_first_difference(saved, self.settings)}); "
                "use --overwrite to redo them or --eval_name to keep both"
            )
        if saved is None:
            if (self.path / PREDICTIONS).exists():
                raise OLMoConfigurationError(f"{self.path} holds predictions but no {SETTINGS}; use --overwrite to redo them")
            self._write_json(SETTINGS, self.settings)

    def finished_metrics(self, **same: Any) -> dict[str, Any] | None:
        """`metrics.json` of an earlier run with the same settings, if there is one and these of its values are the `same` too."""
        saved = self._saved_settings()
        file = self.path / METRICS
        if saved != self.settings or not file.is_file():
            return None
        metrics = json.loads(file.read_text(encoding="utf-8"))
        return metrics if all(metrics.get(key) == value for key, value in same.items()) else None

    def read_predictions(self) -> list[dict[str, Any]]:
        """Every line written so far by any rank (whole lines only), each question once: an answer stands for an earlier failure."""
        found: dict[str, dict[str, Any]] = {}
        for file in sorted(self.path.glob("predictions*.jsonl")):
            for record in read_records(file):
                earlier = found.get(record["example_id"])
                if earlier is None or "failed" in earlier:
                    found[record["example_id"]] = record
        return list(found.values())

    # ------------------------------------------------------------------ while

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Add lines to this rank's file; they are on disk when this returns."""
        if self._own is None:
            file = self.path / (PREDICTIONS if self.rank == 0 else f"predictions.rank{self.rank}.jsonl")
            cut_partial_line(file)
            self._own = self._writing(lambda: open(file, "a", encoding="utf-8"))
        self._writing(lambda: write_through(self._own, as_lines(records)))

    def note_start(self, facts: dict[str, Any]) -> None:
        """Rank 0: with what these questions are about to be answered."""
        self._writing(lambda: append_records(self.path / STARTS, [facts]))

    def read_starts(self) -> list[dict[str, Any]]:
        file = self.path / STARTS
        return read_records(file) if file.is_file() else []

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    # ------------------------------------------------------------------ after

    def merge(self) -> list[dict[str, Any]]:
        """Rank 0, after every rank has closed: one `predictions.jsonl` in the order of the data set."""
        records = sorted(self.read_predictions(), key=lambda r: r["order"])
        self._replace(PREDICTIONS, as_lines(records))
        for part in self.path.glob("predictions.rank*.jsonl"):
            part.unlink()
        return records

    def write_metrics(self, content: dict[str, Any]) -> None:
        self._write_json(METRICS, content)

    # ------------------------------------------------------------------ helpers

    def _saved_settings(self) -> dict[str, Any] | None:
        file = self.path / SETTINGS
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        self._replace(name, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")

    def _replace(self, name: str, text: str) -> None:
        self._writing(lambda: write_whole(self.path / name, text))

    def _writing(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as err:
            raise OLMoEnvironmentError(f"cannot write results to {self.path}: {err.strerror or err}") from None


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """The first key in which two mappings differ, with both values."""
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if a != b:
            if isinstance(a, dict) and isinstance(b, dict):
                return _first_difference(a, b, f"{prefix}{key}.")
            return f"{prefix}{key} was {a}, now {b}"
    return "no visible key"
