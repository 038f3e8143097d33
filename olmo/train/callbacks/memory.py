"""Peaks of memory: the host's of this process and, on GPUs, the device's."""

import resource
import sys

import torch

from olmo.distributed import gather_objects
from olmo.host_memory import status_bytes
from olmo.train.callbacks.base import Callback

MB = 1e6
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of one unit of `ru_maxrss`."""


def peak_host_memory() -> float:
    """Most bytes that this process has had in memory at once (its data workers are processes of their own)."""
    try:
        return float(status_bytes("VmHWM"))
    except OSError:  # no Linux
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT)


class MemoryMonitor(Callback):
    """Adds `System/*`, of the rank with most of it, at the first two steps of a start and at every tenth.

    `Peak CPU Memory`: of the process since it began. `Peak GPU Memory`: what tensors took since the last report;
    `Peak GPU Memory Reserved`: what torch's allocator had taken from the device for them, which is what has to fit.
    """

    def on_step(self, trainer, result, metrics) -> None:
        if not (trainer.steps_done < 3 or trainer.state.step % 10 == 0):
            return
        peaks = {"System/Peak CPU Memory (MB)": peak_host_memory() / MB}
        device = trainer.world.device
        if device.type == "cuda":
            peaks["System/Peak GPU Memory (MB)"] = torch.cuda.max_memory_allocated(device) / MB
            peaks["System/Peak GPU Memory Reserved (MB)"] = torch.cuda.max_memory_reserved(device) / MB
            torch.cuda.reset_peak_memory_stats(device)
        everywhere = gather_objects(peaks)
        metrics |= {key: max(peaks[key] for peaks in everywhere) for key in peaks}
