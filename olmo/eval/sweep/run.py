"""Running the points of a sweep one after another, each by the ordinary evaluation command in a process of its own.

What a point needs lies in its folder: the answers (which a killed evaluation continues), the log, and a mark with the command when it
has ended. So a sweep that is started again does only what is left.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo.eval.results import weights_fingerprint
from olmo.eval.sweep.plan import Point
from olmo.eval.sweep.results import read_point
from olmo.eval.task import Task
from olmo.exceptions import OLMoEnvironmentError, OLMoError
from olmo.processes import check, cores, end, start

TABLE, FINISHED, LOG = "sweep.json", "finished.json", "eval.log"


@dataclass
class Sweep:
    """The points, and what they have in common."""

    points: Sequence[Point]
    tasks: Sequence[Task]
    output: Path
    launcher: Path
    """The evaluation program."""
    words: Sequence[str] = ()
    """More words of its command."""
    nproc: int = 1
    """Processes of one evaluation (with more than one, under torchrun)."""
    overwrite: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    """Points that cannot be run -> why."""
    failed: dict[str, str] = field(default_factory=dict)
    """Points whose evaluation ended with an error -> which."""
    records: list[dict[str, Any]] = field(default_factory=list)

    def run(self, say: Callable[[str], None]) -> None:
        """Run what is left. A point that fails is noted, and the others go on."""
        for number, point in enumerate(self.points, 1):
            done = not self.overwrite and self.finished(point)
            try:
                if not done:
                    self.evaluate(point)
                record = read_point(point, self.folder(point), self.tasks)
            except OLMoError as err:
                self.failed[point.name] = str(err)
                say(f"[{number}/{len(self.points)}] {point.describe()}: {err}")
            else:
                self.records.append(record)
                say(f"[{number}/{len(self.points)}] {point.describe()}: {line(record)}{' (done already)' if done else ''}")
            self.write_table()

    def folder(self, point: Point) -> Path:
        return self.output / "points" / point.name

    def command(self, point: Point) -> list[str]:
        """The evaluation of one point."""
        tasks = ",".join(t.dataset or t.label for t in self.tasks)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.nproc}"] if self.nproc > 1 else []
        words = [point.checkpoint, f"--tasks={tasks}", *point.words, f"--save_dir={self.folder(point)}", *self.words]
        return [sys.executable, *torchrun, str(self.launcher), *words]

    def recipe(self, point: Point) -> str:
        """Everything that the result depends on, as a short text."""
        from olmo.checkpoints import select_checkpoint

        weights = weights_fingerprint(select_checkpoint(point.checkpoint))
        return hashlib.sha256(json.dumps([self.command(point)[1:], weights]).encode()).hexdigest()

    def finished(self, point: Point) -> bool:
        """Whether this very evaluation has come to its end."""
        marker = self.folder(point) / FINISHED
        return marker.is_file() and json.loads(marker.read_text(encoding="utf-8"))["recipe"] == self.recipe(point)

    def evaluate(self, point: Point) -> None:
        folder, command = self.folder(point), self.command(point)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OLMoEnvironmentError(f"cannot write to {folder}: {err.strerror or err}") from None
        process = start([*command, "--overwrite"] if self.overwrite else command, folder / LOG, cores())
        try:
            process.wait()
        finally:
            end(process)
        check(process, folder / LOG, "the evaluation")
        (folder / FINISHED).write_text(json.dumps({"recipe": self.recipe(point), "command": command}, indent=2) + "\n", encoding="utf-8")

    def write_table(self) -> None:
        """Everything known so far; the file is either the old one or the whole new one."""
        content = {
            "tasks": [t.label for t in self.tasks],
            "words": list(self.words),
            "processes": self.nproc,
            "points": self.records,
            "failed": self.failed,
            "left_out": self.left_out,
        }
        temporary = self.output / f"{TABLE}.tmp"
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.output / TABLE)


def line(record: dict[str, Any]) -> str:
    """Accuracy, tokens and seconds of a point."""
    seconds = "" if record["seconds"] is None else f", {record['seconds']:.3g} s"
    interval = f"[{100 * record['low']:.1f}, {100 * record['high']:.1f}]"
    return f"{100 * record['value']:.1f} % {interval}, {record['tokens']:.0f} tokens{seconds} per question"
