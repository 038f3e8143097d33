"""The commands of the demo in processes of their own: trainings side by side with a bar each, and evaluations with their progress."""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo.eval.progress import PROGRESS_WORDS
from olmo.processes import check, cores, end, start


@dataclass
class TrainingRun:
    """A training in a process of its own."""

    folder: Path
    command: list[str]
    name: str
    steps: int
    config: str = ""
    """Text of the config that the command names."""
    after: "TrainingRun | None" = None
    """The training whose weights it starts from."""

    @property
    def marker(self) -> Path:
        return self.folder / "demo_finished.json"

    def finished(self) -> bool:
        """Whether this very training has been run to its end in this folder."""
        if not self.marker.is_file():
            return False
        return json.loads(self.marker.read_text())["recipe"] == self.recipe()

    def recipe(self) -> str:
        """Everything the result depends on, as a short text."""
        text = "\n".join([*self.command[1:], self.config, self.after.recipe() if self.after else ""])
        return hashlib.sha256(text.encode()).hexdigest()

    def finish(self, seconds: float) -> None:
        self.marker.write_text(json.dumps({"recipe": self.recipe(), "seconds": round(seconds, 1)}) + "\n")

    def seconds(self) -> float:
        return float(json.loads(self.marker.read_text())["seconds"])

    def step(self) -> int:
        """Last step in the log."""
        try:
            lines = (self.folder / "metrics.jsonl").read_bytes().splitlines()
            return int(json.loads(lines[-1])["step"])
        except (OSError, IndexError, ValueError, KeyError):
            return 0


def train_together(runs: Sequence[TrainingRun], console, threads: int) -> None:
    """Run the trainings at the same time, each with its share of the cores; a bar each, with the remaining time."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    if not runs:
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    processes: dict[str, subprocess.Popen] = {}
    began, told = time.perf_counter(), 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = {r.name: progress.add_task(r.name, total=r.steps) for r in runs}
        try:
            for run in runs:
                shutil.rmtree(run.folder, ignore_errors=True)
                run.folder.mkdir(parents=True)
                processes[run.name] = start(run.command, run.folder / "train.log", threads)
            left = list(runs)
            while left:
                time.sleep(0.5)
                for run in list(left):
                    progress.update(bars[run.name], completed=run.step())
                    if processes[run.name].poll() is None:
                        continue
                    left.remove(run)
                    check(processes[run.name], run.folder / "train.log", run.name)
                    run.finish(time.perf_counter() - began)
                elapsed = time.perf_counter() - began
                if not console.is_terminal and elapsed - told >= 30:
                    told = elapsed
                    console.print("  " + "; ".join(f"{r.name}: step {r.step()} of {r.steps}{_eta(r, elapsed)}" for r in runs))
        finally:
            for process in processes.values():
                end(process)


def threads_for(processes: int) -> int:
    """Threads of each of so many processes; a model this small gains nothing from more than four."""
    return min(4, max(1, cores() // max(1, processes)))


def _eta(run: TrainingRun, elapsed: float) -> str:
    done = run.step()
    return f", about {elapsed * (run.steps - done) / done:.0f} s left" if 0 < done < run.steps else ""


def call(command: Sequence[str], log: Path, *, threads: int, console, title: str) -> None:
    """Run a command to its end and show its progress lines as they come."""
    process = start(command, log, threads)
    shown = 0
    try:
        while process.poll() is None:
            time.sleep(0.5)
            shown = _show_progress(log, shown, console, title)
    finally:
        end(process)
    _show_progress(log, shown, console, title)
    check(process, log, title)


def _show_progress(log: Path, shown: int, console, title: str) -> int:
    """Print the progress lines of `log` that are new; returns how many have been printed."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if PROGRESS_WORDS in line]
    for line in lines[shown:]:
        console.print(f"  {title}: {line.rpartition(': ')[2]}")
    return len(lines)
