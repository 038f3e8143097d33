"""With what a number was made: versions, the commit of the checkout, the machine. Nothing here fails where something is unknown."""

import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from olmo.version import __version__

ROOT = Path(__file__).resolve().parents[1]
"""The checkout, if this is one."""


@cache
def versions() -> dict[str, str]:
    """Versions of this package, Python, torch and transformers, and the commit of a checkout (`+` = with changes)."""
    found = {"olmo": __version__, "python": platform.python_version()}
    found |= {"torch": "not installed", "transformers": "not installed"} | package_versions(("torch", "transformers"))
    commit, changed = checkout()
    return found if commit is None else found | {"commit": commit + ("+" if changed else "")}


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def checkout(folder: Path = ROOT) -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the checkout in `folder`; None = not known.

    In a copy without history, the commit is what the environment variable SOURCE_COMMIT says.
    """
    if told := os.environ.get("SOURCE_COMMIT"):
        return told, None
    if not (folder / ".git").exists():  # installed; a repository further up is another project's
        return None, None
    commit, changes = (_git(folder, *words) for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "-uno")))
    return (None, None) if commit is None else (commit, None if changes is None else bool(changes))


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor_name() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
