"""Peaks of memory in the record of a step."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from olmo.distributed import World
from olmo.train.callbacks import memory
from olmo.train.callbacks.memory import MemoryMonitor, peak_host_memory
from tests.train.ranks import ALONE

CPU, GPU, RESERVED = (f"System/Peak {what} (MB)" for what in ("CPU Memory", "GPU Memory", "GPU Memory Reserved"))


def record(steps_done: int, step: int, world: World = ALONE) -> dict[str, float]:
    trainer = SimpleNamespace(steps_done=steps_done, state=SimpleNamespace(step=step), world=world)
    metrics = {}
    MemoryMonitor().on_step(trainer, None, metrics)
    return metrics


def test_at_the_first_two_steps_and_every_tenth():
    due = [i + 1 for i in range(24) if record(i + 1, 17 + i)]
    assert due == [1, 2, 4, 14, 24], "steps 17, 18, 20, 30 and 40"


def test_the_peak_of_this_process():
    """At least what is held now, at most what the machine has, and it stays. Seen to fail with the unit of another system."""
    before, more = peak_host_memory(), np.ones(80_000_000, dtype=np.uint8)
    status = Path("/proc/self/statm")
    held = int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else before
    peak = peak_host_memory()
    assert max(before, 0.95 * held, more.nbytes) <= peak < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    del more
    assert peak_host_memory() >= peak
    assert record(1, 1) == {CPU: peak_host_memory() / 1e6}


def test_peaks_of_a_gpu(monkeypatch):
    """Each is of the time since the last report. Seen to fail when the peaks are not reset."""
    resets = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3e9)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 4e9)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    device = torch.device("cuda", 5)
    found = record(1, 1, World(5, 5, 8, device))
    assert (found[GPU], found[RESERVED]) == (3000.0, 4000.0) and found[CPU] > 0
    assert resets == [device]


def test_of_the_rank_with_most_of_it(monkeypatch):
    """Seen to fail with this rank's own peak."""
    monkeypatch.setattr(memory, "gather_objects", lambda own: [own, {CPU: own[CPU] + 100}, {CPU: 1.0}])
    assert record(1, 1)[CPU] >= peak_host_memory() / 1e6 + 99
