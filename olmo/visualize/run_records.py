"""What the save folder of a training run says about it, read on as it grows."""

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from olmo.checkpoints import step_of
from olmo.exceptions import OLMoDataError
from olmo.json_lines import read_records
from olmo.train.callbacks.jsonl import CLOCK
from olmo.train.callbacks.jsonl import FILE_NAME as METRICS
from olmo.train.start_record import FILE_NAME as STARTS

TIME = "time/"
"""Keys of `parts_of_time`."""


@dataclass
class Curve:
    """One logged quantity."""

    steps: array = field(default_factory=lambda: array("q"))
    values: array = field(default_factory=lambda: array("d"))
    """NaN where the value was not finite."""

    def add(self, step: int, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.steps), np.array(self.values)


class RunLog:
    """Curves, starts and checkpoints of one run. `read` looks for what is new; only that is parsed."""

    def __init__(self, folder: str | Path, name: str):
        self.folder, self.name = Path(folder), name
        self.forget()

    def forget(self) -> None:
        self.curves: dict[str, Curve] = {}
        self.last: dict[str, Any] = {}
        """The newest record."""
        self.starts: list[dict[str, Any]] = []
        self.saved: set[int] = set()
        """Steps that were saved, whether or not their checkpoint is still there."""
        self.config = ""
        self._offset = self._file = self._lines = 0

    def read(self) -> bool:
        """Whether there is anything new. Errors: no log, or a line of it that is no JSON object with a step."""
        path = self.folder / METRICS
        try:
            with open(path, "rb") as file:
                file.seek(0, 2)
                identity, size = path.stat().st_ino, file.tell()
                if identity != self._file or size < self._offset:  # a resumed run writes a new file, without what it does again
                    self.forget()
                    self._file = identity
                file.seek(self._offset)
                text = file.read()
        except OSError as err:
            raise OLMoDataError(f"{path}: {err.strerror}; give the save folder of a training run") from None
        text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        self._read_beside()
        begins = {start["step"] for start in self.starts}
        for line in text.splitlines():
            self._lines += 1
            self._take(_parse(line, path, self._lines), begins)
        return bool(text)

    def _read_beside(self) -> None:
        starts, config = self.folder / STARTS, self.folder / "config.yaml"
        self.starts = read_records(starts) if starts.is_file() else []
        self.config = config.read_text(encoding="utf-8") if config.is_file() else ""
        self.saved |= {step for path in self.folder.glob("step*") if (step := step_of(path.name)) is not None}

    def _take(self, record: dict[str, Any], begins: set[int]) -> None:
        step = record["step"]
        before = None if self.last.get("step") in begins else self.last
        for key, value in (record | parts_of_time(record, before or {})).items():
            if key != "step" and (value is None or isinstance(value, int | float)):
                self.curves.setdefault(key, Curve()).add(step, math.nan if value is None else value)
        if "throughput/save_pause_seconds" in record:
            self.saved.add(step - 1)
        self.last = record

    @property
    def step(self) -> int:
        """The newest step; 0 before the first."""
        return self.last.get("step", 0)

    @property
    def ended(self) -> bool:
        """Whether the run has come to its last step."""
        return self.last.get("throughput/eta_seconds") == 0


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise OLMoDataError(f'{path}, line {number}: not a record of a training step, such as {{"step": 1, ...}}')
    return record


def parts_of_time(record: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """Seconds from the record before to this one: waiting, computing, the save after the step before, evaluating, the rest.

    `before`: empty at a start, where nothing tells how long the rest took.
    """
    seconds = record.get("throughput/seconds_per_step")
    if seconds is None:
        return {}
    wait = record.get("throughput/data_wait_seconds") or 0.0
    parts = {
        "waiting for data": wait,
        "the step": seconds - wait,
        "saving": record.get("throughput/save_pause_seconds") or 0.0,
        "evaluating": record.get("eval/seconds") or 0.0,
    }
    if CLOCK in record and CLOCK in before and before["step"] == record["step"] - 1:
        parts["the rest"] = max(0.0, record[CLOCK] - before[CLOCK] - sum(parts.values()))
    return {TIME + name: value for name, value in parts.items()}
