"""A run in which nothing happens any more says where it stands, and ends."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from olmo.leaving import EXIT_HUNG
from olmo.train.callbacks import watchdog as module
from olmo.train.callbacks.watchdog import FIRST_STEP, Watchdog
from tests.train.ranks import ALONE

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # how `exits` stops the thread


def a_trainer() -> SimpleNamespace:
    return SimpleNamespace(world=ALONE, state=SimpleNamespace(step=7), train_step=SimpleNamespace())


@pytest.fixture
def exits(monkeypatch):
    """What the process would have left with; the watching thread ends there."""
    found = []

    def leave(status):
        found.append(status)
        raise SystemExit

    monkeypatch.setattr(module.os, "_exit", leave)
    monkeypatch.setattr(module.faulthandler, "dump_traceback_later", lambda *args, **kwargs: None)
    return found


def hang_here(event: threading.Event) -> None:
    event.wait(20)


def watched(folder: Path, timeout: float = 0.2) -> tuple[Watchdog, SimpleNamespace]:
    dog, trainer = Watchdog(timeout, folder), a_trainer()
    dog.on_start(trainer)
    dog.on_step(trainer, None, {})
    return dog, trainer


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_it_names_where_every_thread_is_and_ends(tmp_path, exits, capfd):
    """Seen to fail when the thread does not watch, and (the name) when only its own stack is written."""
    event = threading.Event()
    stuck = threading.Thread(target=hang_here, args=(event,), daemon=True)
    stuck.start()
    dog, trainer = watched(tmp_path)
    trainer.progress("waiting for data")
    until(lambda: exits)
    event.set()
    dog.on_end(trainer, "failed")
    assert exits == [EXIT_HUNG]
    stacks = (tmp_path / "stacks/rank0.txt").read_text()
    assert "at: waiting for data (after step 7)" in stacks and "in hang_here" in stacks and stacks.count("no progress") == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("warning (rank 0): no progress for") and str(tmp_path / "stacks/rank0.txt") in lines[0]
    assert lines[-1].startswith("error (rank 0): no progress for") and "hang_timeout=0.2" in lines[-1]


def test_progress_keeps_it_quiet(tmp_path, exits):
    """Also of things that may take longer, and in the first step."""
    dog, trainer = watched(tmp_path, timeout=1.0)
    for n in range(15):
        trainer.train_step.progress(f"micro-batch {n}")
        time.sleep(0.1)
    trainer.progress("Checkpointer.on_step", 24.0)
    time.sleep(1.5)
    dog.on_end(trainer, "finished")
    first, trainer = Watchdog(1.0, tmp_path), a_trainer()
    first.on_start(trainer)
    assert first.sign.patience == FIRST_STEP
    time.sleep(1.5)
    first.on_end(trainer, "finished")
    assert not exits and not (tmp_path / "stacks").exists()


def test_fault_a_disk_that_takes_no_stacks(tmp_path, exits, capfd):
    """They go to the log then, and the end is the same."""
    (tmp_path / "stacks").write_text("in the way")
    dog, trainer = watched(tmp_path)
    until(lambda: exits)
    dog.on_end(trainer, "failed")
    err = capfd.readouterr().err
    assert exits == [EXIT_HUNG] and "in test_fault_a_disk_that_takes_no_stacks" in err and "is in these lines" in err


def test_fault_a_disk_that_hangs(tmp_path, exits, monkeypatch):
    """Writing the stacks never returns; the process is ended all the same. Seen to fail when the watching thread writes itself."""
    monkeypatch.setattr(Watchdog, "_write_stacks", lambda self, sign: threading.Event().wait(20))
    began = time.monotonic()
    dog, trainer = watched(tmp_path)
    until(lambda: exits)
    dog.on_end(trainer, "failed")
    assert exits == [EXIT_HUNG] and time.monotonic() - began < 10


STUCK = """
import ctypes, sys
from tests.train.test_watchdog import watched
watched(sys.argv[1], timeout=1.0)
ctypes.PyDLL(None).sleep(60)  # keeps the interpreter to itself
"""


@pytest.mark.slow
def test_fault_a_call_that_keeps_the_interpreter(tmp_path, repo):
    """No thread of Python can run, not even the watching one. Seen to fail (60 s) without faulthandler's timer."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path)], cwd=repo, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'File "<string>", line 5 in <module>' in done.stderr
    assert time.monotonic() - began < 50
