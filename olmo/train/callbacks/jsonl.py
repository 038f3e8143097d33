"""`metrics.jsonl` in the save folder: one JSON object per optimiser step, always written."""

import json
import math
import time
from pathlib import Path
from typing import Any

from olmo.json_lines import as_lines, write_whole
from olmo.train.callbacks.base import Callback
from olmo.train.saving.checkpoint import cannot_write

FILE_NAME = "metrics.jsonl"


CLOCK = "throughput/unix_time"
"""When a record was written: what a step took besides what is measured, and how long nothing ran between two starts."""


def plain(value: Any) -> Any:
    """A number as JSON has it: rounded, and null where it is not finite."""
    if not isinstance(value, float):
        return value
    return round(value, 9) if math.isfinite(value) else None


class JsonlLogger(Callback):
    """Appends every record. A resumed run drops the lines after its checkpoint first, so that each step occurs once."""

    def __init__(self, save_folder: str | Path):
        self.path = Path(save_folder) / FILE_NAME
        self.file = None

    def on_start(self, trainer) -> None:
        if not trainer.world.is_main:
            return
        try:
            kept = [line for line in self._lines() if line["step"] <= trainer.state.step] if trainer.resumed else []
            write_whole(self.path, as_lines(kept))
            self.file = open(self.path, "a")  # noqa: SIM115  (closed in on_end)
        except OSError as err:
            raise cannot_write(self.path.parent)(err) from None

    def _lines(self) -> list[dict]:
        """What is there, without a last line that a killed process left unfinished."""
        if not self.path.is_file():
            return []
        lines = []
        for text in self.path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def on_step(self, trainer, result, metrics) -> None:
        if self.file is not None:
            record = {"step": trainer.state.step, **{k: plain(v) for k, v in metrics.items()}, CLOCK: round(time.time(), 3)}
            try:
                self.file.write(json.dumps(record, allow_nan=False) + "\n")
                self.file.flush()
            except OSError as err:
                raise cannot_write(self.path.parent)(err) from None

    def on_end(self, trainer, status) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
