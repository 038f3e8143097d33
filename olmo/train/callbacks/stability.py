"""What a long run should be looked at for: steps that were skipped, and spikes of the loss and of the gradient norms."""

import logging
import math
from collections import deque
from statistics import median
from typing import Any

from olmo.distributed import gather_objects
from olmo.train.bad_batches.dump import example_ids, short_list
from olmo.train.callbacks.base import Callback
from olmo.train.config_blocks import NonFiniteConfig, StabilityConfig
from olmo.train.step import TrainingDiverged

log = logging.getLogger(__name__)

LOSS = "train/CrossEntropyLoss"


class SpikeDetector:
    """Compares every value with the ones before it (`StabilityConfig` has the rule). Spikes enter the window too: where the loss stays
    up, it is ordinary as soon as half of the window says so."""

    def __init__(self, cfg: StabilityConfig) -> None:
        self.cfg = cfg
        self.window: deque[float] = deque(maxlen=cfg.window_size)

    def bound(self) -> float:
        """What the next value may be at most."""
        if len(self.window) < self.cfg.window_size // 4:
            return math.inf
        middle = median(self.window)
        deviation = 1.4826 * median(abs(v - middle) for v in self.window)
        return middle + self.cfg.sigmas * max(deviation, 0.01 * abs(middle))

    def take(self, value: float) -> float | None:
        """Take the next value in; returns the bound that it broke, None for an ordinary one."""
        bound = self.bound()
        self.window.append(value)
        return bound if value > bound else None


class StabilityMonitor(Callback):
    """Adds `health/*` to every record: how many steps of the run were skipped, were loss spikes, had a spike of some group's
    gradient norm. Ends a run that skips too many. Every rank sees the same numbers, so all decide alike."""

    def __init__(self, cfg: StabilityConfig, nonfinite: NonFiniteConfig) -> None:
        self.cfg, self.nonfinite = cfg, nonfinite
        self.counts = {"skipped_steps": 0, "loss_spikes": 0, "grad_norm_spikes": 0}
        self.skips_in_a_row = 0
        self.detectors: dict[str, SpikeDetector] = {}

    def on_step(self, trainer, result, metrics) -> None:
        if result.trouble is not None:
            self._skipped(trainer, result.trouble)
        else:
            self.skips_in_a_row = 0
            self._look_for_spikes(trainer, result, metrics)
        metrics |= {f"health/{key}": value for key, value in self.counts.items()}

    def _skipped(self, trainer, trouble: str) -> None:
        self.counts["skipped_steps"] += 1
        self.skips_in_a_row += 1
        limits = (("in a row", self.skips_in_a_row, "skips_in_a_row"), ("of this run", self.counts["skipped_steps"], "skips_allowed"))
        for what, count, key in limits:
            if count > (allowed := getattr(self.nonfinite, key)):
                raise TrainingDiverged(f"{trouble}; {count} steps {what} are not finite, and nonfinite.{key}={allowed} may be skipped")
        if trainer.world.is_main:
            log.warning("skipped %s", trouble)

    def _look_for_spikes(self, trainer, result, metrics: dict[str, float]) -> None:
        step = trainer.state.step
        bound = self._take(LOSS, metrics[LOSS])
        if bound is not None:
            self.counts["loss_spikes"] += 1
            # Rare, and seen by all ranks alike: they can talk about it.
            ids = dict.fromkeys(i for rank in gather_objects(example_ids(result.metadata)) for row in rank for i in row)
            if trainer.world.is_main:
                log.warning("step %d: loss spike, %.4f is above %.4f; examples %s", step, metrics[LOSS], bound, short_list(list(ids), 32))
        norms = {key: value for key, value in metrics.items() if key.endswith("_grad_norm")}
        broken = {key: bound for key, value in norms.items() if (bound := self._take(key, value)) is not None}
        if broken:
            self.counts["grad_norm_spikes"] += 1
            if trainer.world.is_main:
                log.warning("step %d: spike of %s", step, ", ".join(f"{k} ({norms[k]:.3g}, above {b:.3g})" for k, b in broken.items()))

    def _take(self, key: str, value: float) -> float | None:
        return self.detectors.setdefault(key, SpikeDetector(self.cfg)).take(value)

    def state_dict(self) -> dict[str, Any]:
        windows = {key: list(detector.window) for key, detector in self.detectors.items()}
        return {"counts": dict(self.counts), "skips_in_a_row": self.skips_in_a_row, "windows": windows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts |= state["counts"]
        self.skips_in_a_row = state["skips_in_a_row"]
        for key, values in state["windows"].items():
            self.detectors[key] = SpikeDetector(self.cfg)
            self.detectors[key].window.extend(values)
