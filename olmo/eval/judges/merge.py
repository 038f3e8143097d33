"""Judgements on disk (`judgements.jsonl` of a result folder), and records with the judgement of each."""

import fcntl
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from olmo.eval.judges.conversation import Judgement
from olmo.eval.metrics.metric import Record
from olmo.eval.results import PREDICTIONS
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, first_line
from olmo.json_lines import read_records

JUDGEMENTS = "judgements.jsonl"


@dataclass(frozen=True)
class Line:
    """One line of `judgements.jsonl`."""

    example_id: str
    judge: str
    """Name in `olmo.eval.judges.JUDGES`."""
    model: str
    judgement: Judgement
    prompt_sha: str
    """Of everything the judgement depends on: prompts with the answer and the truth in them, parameters of the requests."""
    unparsed: int
    """Replies that could not be read; what they should have told is None in the judgement."""


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The saved answers of a finished evaluation."""
    path = folder / PREDICTIONS
    try:
        records = read_records(path)
    except FileNotFoundError:
        raise OLMoDataError(f"{folder} is no result folder: there is no {PREDICTIONS}") from None
    except OSError as err:
        raise OLMoEnvironmentError(f"cannot read {path}: {err.strerror or err}") from None
    except ValueError as err:
        raise OLMoDataError(f"{path} is not a file of JSON lines: {first_line(err)}") from None
    missing = ("example_id", "prediction")
    for number, record in enumerate(records, 1):
        if any(not isinstance(record.get(key), str) for key in missing):
            raise OLMoDataError(f"{path}: line {number} should have texts as 'example_id' and 'prediction'")
    return records


def read_judgements(folder: Path) -> list[Line]:
    """Every whole line, in the order of writing."""
    path = folder / JUDGEMENTS
    if not path.is_file():
        return []
    try:
        return [Line(**line) for line in read_records(path)]
    except (ValueError, TypeError) as err:
        raise OLMoDataError(f"{path} is not a file of judgements: {first_line(err)}") from None


class JudgementFile:
    """Appends judgements; each is in the file when `append` returns. While one process has it open, others wait."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JUDGEMENTS
        try:
            self._file = open(self.path, "ab+")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._cut_partial_line()
        except OSError as err:
            raise self._error(err) from None

    def _cut_partial_line(self) -> None:
        """What a crash left behind the last newline would spoil the next line."""
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def append(self, line: Line) -> None:
        try:
            self._file.write(json.dumps(asdict(line), ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as err:
            raise self._error(err) from None

    def close(self) -> None:
        self._file.close()

    def _error(self, err: OSError) -> OLMoEnvironmentError:
        return OLMoEnvironmentError(f"cannot write judgements to {self.path}: {err.strerror or err}")


def with_judgements(records: Sequence[Record], folder: Path, judge: str | None = None, model: str | None = None) -> list[dict[str, Any]]:
    """Copies of the records with a key `judgement`, where there is one (the latest of each question).

    Judgements of two judges or two models are never mixed: where the file holds several, `judge` or `model` must say which.
    """
    lines = [x for x in read_judgements(Path(folder)) if judge in (None, x.judge) and model in (None, x.model)]
    sources = sorted({(x.judge, x.model) for x in lines})
    if len(sources) > 1:
        named = "; ".join(f"{name} by {who}" for name, who in sources)
        raise OLMoDataError(f"{Path(folder) / JUDGEMENTS} holds judgements of several sources ({named}): name the judge and the model")
    latest = {x.example_id: x.judgement for x in lines}
    return [{**r, "judgement": latest[r["example_id"]]} if r["example_id"] in latest else dict(r) for r in records]
