"""How far an evaluation is: a bar for people, lines for logs and for the program that started it."""

import logging
import time
from typing import Any

log = logging.getLogger(__name__)

PROGRESS_WORDS = " questions, about "
"""Stands in every progress line and nowhere else, so that whoever reads the log of an evaluation finds them."""


class ProgressLine:
    """A progress bar with the remaining time on a terminal, a line per tenth elsewhere."""

    def __init__(self, console, title: str, enabled: bool = True) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.title, self.enabled, self.terminal = title, enabled, console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not (enabled and self.terminal))
        self.task = self.bar.add_task(title)
        self.told = 0
        self.began: tuple[int, float] | None = None

    def __enter__(self) -> "ProgressLine":
        self.bar.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)
        first, start = self.began = self.began or (done, time.perf_counter())
        tenth = 10 * done // max(total, 1)
        if self.enabled and not self.terminal and tenth > self.told:
            self.told = tenth
            left = (time.perf_counter() - start) * (total - done) / max(done - first, 1)
            log.info("%s: %d of %d%s%.0f s left", self.title, done, total, PROGRESS_WORDS, left)
