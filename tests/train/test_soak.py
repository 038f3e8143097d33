"""Many short steps, checkpoints and restarts in one process: nothing may pile up."""

import gc
import math
import os
import threading
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from olmo.host_memory import status_bytes
from olmo.train.step import TrainStep
from tests.own_process import in_own_process
from tests.train.command import launch, records

ROUNDS, WARMUP, STEPS = 10, 4, 18
RISE = 0.5
"""MiB by which private memory may rise from one start to the next, in the middle of the rises after the warm-up. What piles up rises
every time; the allocator takes a few MiB more at once, mostly in the first starts."""

WORDS = (
    "--global_batch_size=2", "--device_batch_size=1", "--seq_len=300", "--packing", "--data.packing.buffer_size=4", "--data.num_workers=1",
    "--model.mm_preprocessor.max_frames=4", f"--max_duration={ROUNDS * STEPS}", "--save_interval=6", "--save_num_checkpoints_to_keep=2",
    "--save_final_optim=true", "--save_overwrite=false", "--allow_resume=true",
    *(f"--data.moving_shapes.{key}" for key in ("num_train=8", "num_test=2", "seconds=2.0", "size=96")),
)  # fmt: skip


def private_mib() -> float:
    """Anonymous memory of this process: what files and shared pages take does not count."""
    return status_bytes("RssAnon") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> tuple[int, int]:
    """Of Python, and of the system."""
    return threading.active_count(), len(os.listdir("/proc/self/task"))


def looks_at_starts(folder: Path) -> tuple[list[float], list[tuple]]:
    """Private MiB in the middle of each start, and (private MiB, open files, threads, threads of the system) after it."""
    call, inside, after = TrainStep.__call__, [], []

    def watched(self, batch, step, wish=lambda: False):
        result = call(self, batch, step, wish)
        if step % STEPS == STEPS - 1:
            gc.collect()
            inside.append(private_mib())
        return result

    TrainStep.__call__ = watched
    for _ in range(ROUNDS):
        assert launch("tiny", "moving_shapes", f"--save_folder={folder}", f"--stop_after={STEPS}", *WORDS) == 0
        gc.collect()
        after.append((private_mib(), open_files(), *threads()))
    return inside, after


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_memory_files_and_threads_do_not_grow(shapes, tmp_path):
    """Ten starts of the tiny config, each resuming the one before, 18 steps with three checkpoints in each.

    Memory is looked at in the middle of each start too, where the loop itself would hold on to something. Seen to fail with
    every batch kept, with every optimiser kept, with a file left open at each checkpoint, and with a thread left waiting at
    each start.
    """
    inside, after = in_own_process(looks_at_starts, tmp_path)
    assert [r["step"] for r in records(tmp_path)] == list(range(1, ROUNDS * STEPS + 1))
    assert all(math.isfinite(r["train/CrossEntropyLoss"]) for r in records(tmp_path))
    memory, *counts = zip(*after, strict=True)
    print("MiB after each start", memory, "and in its middle", inside)
    for values in (memory, inside):
        assert median(b - a for a, b in pairwise(values[WARMUP:])) < RISE, values
    for values in counts:
        assert max(values[WARMUP:]) <= max(values[1:WARMUP]), values
