"""What a number depends on besides its settings: the software that computed it."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from olmo.version import __version__


@cache
def versions() -> dict[str, str]:
    """Versions of this package, Python, torch and transformers, and the commit of a checkout (`+` = with changes)."""
    found = {"olmo": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    commit = _commit(Path(__file__).resolve().parents[2])
    return found if commit is None else found | {"commit": commit}


def _commit(folder: Path) -> str | None:
    if not (folder / ".git").exists():  # installed; a repository further up is another project's
        return None
    head, changes = (_git(folder, *words) for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "-uno")))
    return None if head is None else head + ("+" if changes else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
