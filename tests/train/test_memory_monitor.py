"""Peaks of memory in the record of a step."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from olmo.distributed import World
from olmo.train.callbacks import memory
from olmo.train.callbacks.memory import MemoryMonitor, peak_host_memory
from tests.conftest import REPO
from tests.train.ranks import ALONE

CPU, GPU, RESERVED = (f"System/Peak {what} (MB)" for what in ("CPU Memory", "GPU Memory", "GPU Memory Reserved"))

CHILD = "from olmo.train.callbacks.memory import peak_host_memory; print(peak_host_memory())"


def record(steps_done: int, step: int, world: World = ALONE) -> dict[str, float]:
    trainer = SimpleNamespace(steps_done=steps_done, state=SimpleNamespace(step=step), world=world)
    metrics = {}
    MemoryMonitor().on_step(trainer, None, metrics)
    return metrics


def test_at_the_first_two_steps_and_every_tenth():
    due = [i + 1 for i in range(24) if record(i + 1, 17 + i)]
    assert due == [1, 2, 4, 14, 24], "steps 17, 18, 20, 30 and 40"


def test_the_peak_of_this_process():
    """At least what is held now, at most what the machine has; it stays, and a process does not inherit it. Seen to fail with the unit
    of another system, and with what getrusage says."""
    before, more = peak_host_memory(), np.ones(400_000_000, dtype=np.uint8)
    peak = peak_host_memory()
    assert max(before, more.nbytes) < peak + 1 < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    small = subprocess.run([sys.executable, "-c", CHILD], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert 0 < float(small) < 0.8 * peak
    del more
    assert peak_host_memory() > 0.99 * peak  # the kernel counts in batches
    assert record(1, 1) == pytest.approx({CPU: peak_host_memory() / 1e6}, rel=0.01)


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
