"""How a process leaves that is one of several: the first cause is said last, and nobody waits for the dead.

torchrun gives every rank a file for its error and prints that of the rank that failed first at the very end, after it has ended the
others. So a rank that fails puts its sentence there and is gone at once: taking the process group apart would wait for ranks that are
stuck in a collective. A rank that only lost its connection to another one lets that one be seen first.
"""

import json
import os
import sys
import time
from typing import NoReturn

EXIT_HUNG = 124
"""Exit status of a process that its watchdog ended, as of the command `timeout`."""

ECHO_DELAY = 5.0
"""Seconds that a rank which only lost another one waits before it leaves: torchrun looks ten times a second, and its clock counts
whole seconds."""

_COLLECTIVES = ("gloo", "nccl", "store", "process group")
_GONE = ("connection closed", "connection reset", "broken pipe", "socket closed", "remote process exited")
"""Words of torch's errors when the other end of a connection is gone."""


def among_others() -> bool:
    """Whether this process is one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_echo(err: BaseException | None) -> bool:
    """Whether an error, or what it comes from, only says that another rank is gone."""
    while err is not None:
        text = str(err).lower()
        if isinstance(err, RuntimeError) and any(w in text for w in _COLLECTIVES) and any(w in text for w in _GONE):
            return True
        err = err.__cause__ or err.__context__
    return False


def note_cause(sentence: str) -> None:
    """Put `sentence` where torchrun looks for why this rank failed; a sentence that stands there already is older and stays."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path or os.path.exists(path):
        return
    try:
        with open(path, "w") as file:
            json.dump({"message": {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}}, file)
    except OSError as err:
        print(f"torchrun will not know why this rank failed: {err}", file=sys.stderr)


def leave(status: int) -> NoReturn:
    """End this process now, with what it has printed, without taking anything apart."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
