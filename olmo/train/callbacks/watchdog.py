"""A thread that notices when nothing happens any more: it writes down where every thread stands, and ends the process if that lasts.

The collectives' own timeouts do not see a rank that hangs in its data loading, and say nothing about where.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from olmo.leaving import EXIT_HUNG, note_cause
from olmo.train.callbacks.base import Callback

FOLDER = "stacks"
FIRST_STEP = 6.0
"""How many times longer the first step of a start may be silent: it compiles, and starts the data processes."""
STDERR = 2


@dataclass(frozen=True)
class Sign:
    """The newest sign of life."""

    at: float
    """Monotonic seconds."""
    what: str
    """What began then."""
    patience: float
    """How many times the usual time it may take."""


class Watchdog(Callback):
    """Stands first among the callbacks, so that it watches the others start.

    The watching thread takes no lock that a stuck thread may hold (no logging), and whatever may block (a file system that is gone, a
    pipe that nobody empties) is done by a further thread that is not waited for. Should a thread never give the interpreter back, so
    that no other can run, faulthandler's own timer, which needs no interpreter, ends the process.
    """

    def __init__(self, timeout: float, save_folder: str | Path) -> None:
        self.timeout = timeout
        self.folder = Path(save_folder) / FOLDER
        self.rank, self.step, self.first = 0, 0, True
        self.sign = Sign(time.monotonic(), "the start", FIRST_STEP)
        self._over = threading.Event()

    def on_start(self, trainer) -> None:
        self.rank, self.step = trainer.world.rank, trainer.state.step
        trainer.progress = trainer.train_step.progress = self.alive
        self.alive("the start")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def on_step(self, trainer, result, metrics) -> None:
        self.step, self.first = trainer.state.step, False

    def on_end(self, trainer, status) -> None:
        self._over.set()
        faulthandler.cancel_dump_traceback_later()

    def alive(self, what: str, patience: float = 1.0) -> None:
        """`what` begins; it may take `patience` times the usual time."""
        self.sign = Sign(time.monotonic(), what, patience * (FIRST_STEP if self.first else 1.0))

    # ------------------------------------------------------------------------------------------ the thread

    def _watch(self) -> None:
        reported: Sign | None = None
        told = 0.0
        while True:
            sign, now = self.sign, time.monotonic()
            limit = self.timeout * sign.patience
            if sign is reported:
                if now - told >= limit:
                    self._end(sign)
                due = told + limit - now
            elif now - sign.at >= limit:
                self._in_time(lambda sign=sign: self._write_stacks(sign))
                reported, told, due = sign, time.monotonic(), limit
            else:
                due = sign.at + limit - now
            # Whatever the thread waits for, a newer sign may have less patience.
            wait = min(due, self.timeout)
            faulthandler.dump_traceback_later(wait + 2 * limit, exit=True, file=STDERR)
            if self._over.wait(wait):
                return

    def _in_time(self, action: Callable[[], None]) -> None:
        """Give `action` a few seconds; what blocks is left behind."""
        thread = threading.Thread(target=action, name="watchdog's writer", daemon=True)
        thread.start()
        thread.join(min(10.0, self.timeout))

    def _silence(self, sign: Sign) -> str:
        return f"no progress for {time.monotonic() - sign.at:.0f} s, at: {sign.what} (after step {self.step})"

    def _write_stacks(self, sign: Sign) -> None:
        path = self.folder / f"rank{self.rank}.txt"
        where = str(path)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(path, "a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self._silence(sign)}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
        except OSError:
            where = "these lines"
            faulthandler.dump_traceback(STDERR, all_threads=True)
        _say(f"warning (rank {self.rank}): {self._silence(sign)}; what every thread is doing is in {where}")

    def _end(self, sign: Sign) -> None:
        stacks = self.folder / f"rank{self.rank}.txt"
        cause = f"{self._silence(sign)}, hang_timeout={self.timeout:g}; what every thread was doing is in {stacks}"
        self._in_time(lambda: note_cause(cause))
        self._in_time(lambda: _say(f"error (rank {self.rank}): {cause}"))
        os._exit(EXIT_HUNG)


def _say(line: str) -> None:
    """Past logging and `sys.stderr`, whose locks a stuck thread may hold."""
    os.write(STDERR, f"{line}\n".encode())
