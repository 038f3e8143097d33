"""Processes that this project starts: what they inherit, how their failure becomes one sentence, and how they end."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from olmo.exceptions import OLMoError

ROOT = Path(__file__).resolve().parents[1]
"""Folder that holds the package: started commands find it, installed or not."""


def cores() -> int:
    """Cores that this process may use (not every system can tell them from those of the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def child_environment() -> dict[str, str]:
    """This process's environment, with which a child finds the package too."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)}


def start(command: Sequence[str], log: Path, threads: int) -> subprocess.Popen:
    """Start a command of this project, its output in `log`."""
    environment = child_environment() | {"OMP_NUM_THREADS": str(threads)}
    with open(log, "w", encoding="utf-8") as output:
        return subprocess.Popen(list(command), stdout=output, stderr=subprocess.STDOUT, env=environment)


def check(process: subprocess.Popen, log: Path, name: str) -> None:
    """Fail with what the process said last."""
    if process.returncode:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = next((line for line in reversed(lines) if line.startswith("error")), lines[-1] if lines else "it said nothing")
        raise OLMoError(f"{name} ended with status {process.returncode}: {last.removeprefix('error: ')} (all of it in {log})")


def end(process: subprocess.Popen) -> None:
    """Stop a process that is still running, and wait until it has."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
