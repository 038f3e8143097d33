"""Timing two ways of doing the same thing side by side.

A machine's speed drifts by more than what is to be measured, so the arms take turns (A B A B ...), every round gives one ratio, and
what is reported is the median ratio. The first rounds warm caches, compilers and allocators and are dropped.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from olmo.host_memory import release_freed_memory, status_bytes

Arm = Callable[[], object]


@dataclass
class Timing:
    """One arm."""

    seconds: list[float] = field(default_factory=list)
    """Of every round, in order."""
    peak_bytes: int | None = None
    """Memory above what was there before the arm ran, at most; None where the system cannot tell."""

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def iqr(self) -> float:
        """Distance of the quartiles."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low)


def interleave(arms: Mapping[str, Arm], rounds: int, warmup: int, device: torch.device) -> dict[str, Timing]:
    """Run all arms in turn: `warmup` rounds for the memory they take, then `rounds` for the clock."""
    timings = {name: Timing() for name in arms}
    for _ in range(warmup):
        for name, arm in arms.items():
            timings[name].peak_bytes = peak_bytes(arm, device)
    for _ in range(rounds):
        for name, arm in arms.items():
            timings[name].seconds.append(seconds(arm, device))
    return timings


def seconds(arm: Arm, device: torch.device) -> float:
    """Wall-clock of one run, with the device's queue empty before and after."""
    gc.collect()
    synchronize(device)
    start = time.perf_counter()
    arm()
    synchronize(device)
    return time.perf_counter() - start


def busy_seconds(arm: Arm, device: torch.device, rounds: int = 3) -> float:
    """Seconds that an arm keeps the device busy as a part of something longer: on GPUs those of its kernels, because the host, which
    starts them one by one, is ahead by then; on CPUs those of the clock."""
    if device.type != "cuda":
        return interleave({"arm": arm}, rounds, 1, device)["arm"].median
    arm()
    synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(rounds):
            arm()
        synchronize(device)
    return sum(event.self_device_time_total for event in seen.key_averages()) / 1e6 / rounds


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def paired_ratio(base: Timing, other: Timing) -> float:
    """How many times faster `other` is: the median over rounds of the ratio within a round."""
    return float(np.median(np.array(base.seconds) / np.array(other.seconds)))


def peak_bytes(arm: Arm, device: torch.device) -> int | None:
    """Run once; the allocator's count on GPUs, the process' resident memory on Linux."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        arm()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    before = _restart_high_water()
    arm()
    return None if before is None else max(0, status_bytes("VmHWM") - before)


def _restart_high_water() -> int | None:
    """Let the kernel count the process' largest size anew; returns the size now."""
    release_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return status_bytes("VmRSS")
    except OSError:
        return None
