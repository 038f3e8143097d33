"""Throughput over a sliding window: tokens, frames and batches per second, time spent waiting for data, time left, and on
devices whose peak is known the share of it that is used."""

import logging
from collections import deque
from dataclasses import astuple, dataclass

import torch

from olmo.train.callbacks.base import Callback
from olmo.train.device_peaks import peak_flops

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """One step of the window."""

    seconds: float
    wait: float
    tokens: int
    loss_tokens: int
    frames: int
    model_flops: float
    hardware_flops: float


class SpeedMonitor(Callback):
    """Adds `throughput/*` to every record. The first step of a start (compilation, warm-up) is left out of the
    window, and so is what happens between steps (saving).

    `throughput/device/mfu`: FLOPs that the model needs, per second, over the device's peak. `throughput/device/hfu`: the same with
    what is computed twice to save memory.
    """

    def __init__(self, window_size: int, peak: float | None = None):
        self.window: deque[_Entry] = deque(maxlen=window_size)
        self.peak = peak
        """FLOP/s of one device; None = looked up when the run starts."""

    def on_start(self, trainer) -> None:
        device = trainer.world.device
        if self.peak is None and trainer.cfg.uses_bf16(device):
            self.peak = peak_flops(torch.cuda.get_device_name(device))
        if self.peak is None and trainer.world.is_main:
            log.info("no MFU: the peak of this device in this precision is not known (speed_monitor.gpu_flops_available sets it)")
        trainer.train_step.count_flops = self.peak is not None

    def on_step(self, trainer, result, metrics) -> None:
        seconds = trainer.step_seconds
        metrics["throughput/total_tokens"] = trainer.state.tokens
        metrics["throughput/seconds_per_step"] = seconds
        metrics["throughput/data_wait_seconds"] = trainer.data_wait
        flops = (0.0, 0.0) if result.flops is None else astuple(result.flops)
        entry = _Entry(seconds, trainer.data_wait, result.tokens, result.loss_tokens, result.frames, *flops)
        if trainer.steps_done > 1:
            self.window.append(entry)
        entries = self.window or [entry]
        total = _Entry(*(sum(column) for column in zip(*map(astuple, entries), strict=True)))
        device_seconds = total.seconds * trainer.world.size
        metrics["throughput/device/tokens_per_second"] = total.tokens / device_seconds
        metrics["throughput/device/loss_tokens_per_second"] = total.loss_tokens / device_seconds
        metrics["throughput/device/frames_per_second"] = total.frames / device_seconds
        metrics["throughput/device/batches_per_second"] = len(entries) / total.seconds
        metrics["throughput/data_wait_fraction"] = total.wait / total.seconds
        metrics["throughput/eta_seconds"] = total.seconds / len(entries) * (trainer.last_step - trainer.state.step)
        if self.peak is not None:
            metrics["throughput/device/mfu"] = total.model_flops / device_seconds / self.peak
            metrics["throughput/device/hfu"] = total.hardware_flops / device_seconds / self.peak
