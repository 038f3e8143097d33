"""How far downloads are: a bar for each on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from olmo.data.download.http import Tell

log = logging.getLogger(__name__)

SECONDS_PER_LINE = 30.0


class Transfers:
    """Where the downloads of a command show themselves; `console` is rich's."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self.terminal = console.is_terminal
        self.bars = Progress(*columns, console=console, transient=True, disable=not self.terminal)

    @contextmanager
    def of(self, title: str) -> Iterator[Tell]:
        """What one download is to tell (bytes that are there, bytes in all, where known)."""
        if not self.terminal:
            yield _Lines(title)
            return
        task = self.bars.add_task(title, total=None)
        with self.bars:
            try:
                yield lambda done, total: self.bars.update(task, completed=done, total=total)
            finally:
                self.bars.remove_task(task)


class _Lines:
    """A line at the start, at the end, and twice a minute."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.told, self.last = float("-inf"), -1

    def __call__(self, done: int, total: int | None) -> None:
        if done == self.last or (time.monotonic() - self.told < SECONDS_PER_LINE and done != total):
            return
        self.told, self.last = time.monotonic(), done
        of = f" of {size_text(total)}" if total is not None else ""
        log.info("%s: %s%s", self.title, size_text(done), of)


def size_text(size: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.1f} TB"
