"""The training command, killed (SIGKILL) in one rank: while it writes one file of one checkpoint, or in the middle of a step.

python -m tests.train.killed FILE_END|forward STEP RANK WORDS...
"""

import os
import signal
import sys
from contextlib import contextmanager

from olmo.checkpoints.stores import Store
from olmo.launch import run_command
from olmo.train.sft import main
from olmo.train.step import TrainStep


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(end: str, step: str) -> None:
    writing = Store.writing

    @contextmanager
    def dies(self, name):
        with writing(self, name) as stream:
            if name.endswith(end) and name.startswith(f"step{step}"):
                stream.write(b"half")
                stream.flush()
                die()
            yield stream

    Store.writing = dies


def die_in_step(step: str) -> None:
    """After the forward pass, where the other ranks wait for this one's part of the gradients."""
    call, forward = TrainStep.__call__, TrainStep.forward
    current = [0]

    def counting(self, batch, number, *more):
        current[0] = number
        return call(self, batch, number, *more)

    def dies(self, batch):
        out = forward(self, batch)
        if current[0] == int(step):
            die()
        return out

    TrainStep.__call__, TrainStep.forward = counting, dies


if __name__ == "__main__":
    what, step, rank = sys.argv[1:4]
    if os.environ.get("RANK", "0") == rank:
        die_in_step(step) if what == "forward" else die_while_writing(what, step)
    sys.exit(run_command(lambda argv: main(argv, "train_image_video_sft.py"), sys.argv[4:]))
