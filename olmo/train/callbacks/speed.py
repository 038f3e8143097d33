"""Throughput over a sliding window: tokens, frames and batches per second, time spent waiting for data, time left."""

from collections import deque

import torch

from olmo.train.callbacks.base import Callback


class SpeedMonitor(Callback):
    """Adds `throughput/*` to every record. The first step of a start (compilation, warm-up) is left out of the
    window, and so is what happens between steps (saving)."""

    def __init__(self, window_size: int):
        self.window: deque[tuple[float, float, int, int, int]] = deque(maxlen=window_size)

    def on_step(self, trainer, result, metrics) -> None:
        seconds = trainer.step_seconds
        metrics["throughput/total_tokens"] = trainer.state.tokens
        metrics["throughput/seconds_per_step"] = seconds
        metrics["throughput/data_wait_seconds"] = trainer.data_wait
        if trainer.steps_done > 1:
            self.window.append((seconds, trainer.data_wait, result.tokens, result.loss_tokens, result.frames))
        entries = self.window or [(seconds, trainer.data_wait, result.tokens, result.loss_tokens, result.frames)]
        total, wait, tokens, loss_tokens, frames = (sum(column) for column in zip(*entries, strict=True))
        devices = trainer.world.size
        metrics["throughput/device/tokens_per_second"] = tokens / total / devices
        metrics["throughput/device/loss_tokens_per_second"] = loss_tokens / total / devices
        metrics["throughput/device/frames_per_second"] = frames / total / devices
        metrics["throughput/device/batches_per_second"] = len(entries) / total
        metrics["throughput/data_wait_fraction"] = wait / total
        metrics["throughput/eta_seconds"] = total / len(entries) * (trainer.last_step - trainer.state.step)
        if trainer.world.device.type == "cuda" and (trainer.steps_done < 3 or trainer.state.step % 10 == 0):
            metrics["System/Peak GPU Memory (MB)"] = torch.cuda.max_memory_allocated() / 1e6
            torch.cuda.reset_peak_memory_stats()
