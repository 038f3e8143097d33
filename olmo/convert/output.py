"""Output that is whole or not there, whatever happens, and a bar that shows how far it is.

Everything is written beside its place under `<name>-tmp` and renamed at the end. A full disk, an interrupt or any other
failure removes it again.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from olmo.exceptions import OLMoEnvironmentError, OLMoError, os_error


@contextmanager
def atomic_output(out: Path, num_bytes: int = 0) -> Iterator[Path]:
    """A place to write to (a file, or a folder that the caller makes) that becomes `out` when the block ends well.

    `num_bytes`: what is going to be written, refused at once where the disk has less room.
    """
    out = Path(out)
    if out.exists():
        raise OLMoEnvironmentError(f"{out} exists already; remove it or name another place")
    tmp = out.with_name(f"{out.name}-tmp")
    try:
        tmp.parent.mkdir(parents=True, exist_ok=True)
        _remove(tmp)
        free = shutil.disk_usage(tmp.parent).free
        if num_bytes > free:
            raise OLMoEnvironmentError(f"{out} needs {format_bytes(num_bytes)}, but its disk has only {format_bytes(free)} left")
        yield tmp
        tmp.rename(out)
    except BaseException as err:
        _remove(tmp)
        if isinstance(err, OLMoError):
            raise
        cause = os_error(err)
        if cause is None:
            raise
        raise OLMoEnvironmentError(f"cannot write {out}: {cause.strerror or cause}; nothing is left of it") from err


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file is on the disk: some file systems report only then that it is full."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """On a terminal a bar (on stderr) over `total` bytes; the block calls what it is given with the bytes that are done since."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(file=sys.stderr, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


def format_bytes(count: int) -> str:
    """1 234 567 -> 1.2 MB."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, _ = value / 1000, units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"
