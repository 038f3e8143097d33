"""The training command with one fault, in one optimiser step of one rank.

python -m tests.train.faulty FAULT STEP RANK WORDS...
"""

import os
import signal
import sys
import time
from collections.abc import Callable

import torch

from olmo.data.loader import TrainLoader
from olmo.exceptions import OLMoDataError
from olmo.launch import run_command
from olmo.train.sft import main
from olmo.train.step import TrainStep


def raise_ours() -> None:
    raise OLMoDataError("the example of this test is broken")


def raise_any() -> None:
    raise ZeroDivisionError("a fault\nof this test")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_for_ever() -> None:
    while True:
        time.sleep(1)


IN_STEP: dict[str, Callable[[], None]] = {"raise_ours": raise_ours, "raise_any": raise_any, "kill": kill}
IN_DATA = {"sleep_for_ever": sleep_for_ever}


def this_rank(rank: int) -> bool:
    return int(os.environ.get("RANK", "0")) == rank


def in_step(step: int, rank: int, action: Callable[[], None]) -> None:
    """Call `action` between the forward and the backward pass of `step`: other ranks then wait in the middle of it."""
    call, forward, now = TrainStep.__call__, TrainStep.forward, [0]

    def counting(self, batch, number, *args):
        now[0] = number
        return call(self, batch, number, *args)

    def faulty(self, batch):
        out = forward(self, batch)
        if now[0] == step and this_rank(rank):
            action()
        return out

    TrainStep.__call__, TrainStep.forward = counting, faulty


def with_batch(step: int, rank: int, change: Callable) -> None:
    """Hand out `change(batch)` as the batch of `step` (of a run that starts at step 1)."""
    original = TrainLoader.__iter__

    def batches(self):
        for number, batch in enumerate(original(self), 1):
            yield change(batch) if number == step and this_rank(rank) else batch

    TrainLoader.__iter__ = batches


def in_data(step: int, rank: int, action: Callable[[], None]) -> None:
    def act(batch):
        action()
        return batch

    with_batch(step, rank, act)


def nan_pixel(batch):
    """The last row's first patch; pixels must be floats (`normalize_on_gpu: false`)."""
    batch.images[-1, 0, 0, 0] = float("nan")
    return batch


def huge_pixel(batch):
    """Finite, but its square is not."""
    batch.images[-1, 0, 0] = torch.finfo(torch.float32).max / 2
    return batch


BATCHES = {"nan_pixel": nan_pixel, "huge_pixel": huge_pixel}


def install(fault: str, step: int, rank: int) -> None:
    if fault in IN_STEP:
        in_step(step, rank, IN_STEP[fault])
    elif fault in IN_DATA:
        in_data(step, rank, IN_DATA[fault])
    else:
        with_batch(step, rank, BATCHES[fault])


if __name__ == "__main__":
    install(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(run_command(lambda argv: main(argv, "train_image_video_sft.py"), sys.argv[4:]))
