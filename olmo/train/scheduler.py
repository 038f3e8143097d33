"""Learning rates: linear warm-up, then cosine to a fraction of the peak, separately for every parameter group."""

import math
from dataclasses import dataclass

from olmo.config import BaseConfig, StrEnum
from olmo.exceptions import OLMoConfigurationError


class SchedulerType(StrEnum):
    """Names accepted in `scheduler.name`; both mean the one schedule below."""

    cosine_with_warmup = "cosine_with_warmup"
    multimodal = "multimodal"


@dataclass
class SchedulerConfig(BaseConfig):
    """Warm-up per group and the shared cosine."""

    name: SchedulerType = SchedulerType.multimodal
    """Which schedule; there is one, under both of its published names."""
    t_max: int | None = None
    """Step at which the cosine reaches its floor; null = the length of the run (`max_duration`)."""
    alpha_f: float = 0.1
    """Final learning rate as a fraction of the peak."""
    warmup_min_lr: float | None = None
    """Learning rate at step 0 of the warm-up; null = a tenth of the peak."""
    connector_t_warmup: int = 200
    """Warm-up steps of the connector."""
    vit_t_warmup: int = 200
    """Warm-up steps of the ViT."""
    llm_t_warmup: int = 200
    """Warm-up steps of the language model."""
    frame_selector_t_warmup: int = 200
    """Warm-up steps of a frame selector (no model of this package has one; published configs carry the key)."""
    temporal_token_scorer_t_warmup: int = 200
    """Warm-up steps of the token scorer."""
    grad_clip_warmup_steps: int | None = None
    """Steps during which gradients are clipped to `grad_clip_warmup_factor * max_grad_norm`."""
    grad_clip_warmup_factor: float | None = None
    """Factor on `max_grad_norm` during `grad_clip_warmup_steps`."""


def warmup_cosine(step: int, peak: float, warmup: int, total: float, alpha_f: float, min_lr: float | None) -> float:
    """Learning rate at `step` (the first optimiser step is step 1); an infinite `total` is a cosine that has not begun to fall."""
    if step < warmup:
        start = 0.1 * peak if min_lr is None else min_lr
        return start + (peak - start) * step / warmup
    floor = alpha_f * peak
    if step >= total:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


class Scheduler:
    """Turns a step into the learning rate of a group and the clipping norm."""

    def __init__(self, cfg: SchedulerConfig, max_steps: int | None):
        """`max_steps`: length of the run; None = not known yet."""
        self.cfg = cfg
        self.set_length(max_steps)
        if (cfg.grad_clip_warmup_steps is None) != (cfg.grad_clip_warmup_factor is None):
            raise OLMoConfigurationError(
                "scheduler.grad_clip_warmup_steps and scheduler.grad_clip_warmup_factor go together; give both or none"
            )

    def set_length(self, steps: int | None) -> None:
        """The run has so many steps; `t_max` goes before it."""
        total = steps if self.cfg.t_max is None else self.cfg.t_max
        self.total: float = math.inf if total is None else total

    def learning_rate(self, group: str, peak: float, step: int) -> float:
        warmup = getattr(self.cfg, f"{group}_t_warmup")
        return warmup_cosine(step, peak, warmup, self.total, self.cfg.alpha_f, self.cfg.warmup_min_lr)

    def max_grad_norm(self, base: float | None, step: int) -> float | None:
        warmup = self.cfg.grad_clip_warmup_steps
        if base is None or warmup is None or step > warmup:
            return base
        return base * self.cfg.grad_clip_warmup_factor
