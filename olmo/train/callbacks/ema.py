"""A running average of the trained weights, beside the weights themselves: often better than the last step's.

It is saved with every checkpoint (`ema.<parameter>`) and goes on from there. Training itself never looks at it.
"""

import logging
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from olmo.checkpoints import load_sharded, model_tensors, read_metadata
from olmo.checkpoints.sharded import EMA
from olmo.train.callbacks.base import Callback
from olmo.train.config_blocks import EmaConfig

log = logging.getLogger(__name__)


class ExponentialAverage(Callback):
    """Holds one more copy of every trained parameter, sharded like it and in its dtype."""

    def __init__(self, cfg: EmaConfig, model: nn.Module):
        cfg.validate()
        self.cfg = cfg
        self.weights = {name: p.detach() for name, p in model_tensors(model).items() if p.requires_grad}
        self.averages = {name: p.clone() for name, p in self.weights.items()}

    def decay(self, step: int) -> float:
        """How much of the average stays after optimiser step `step`: little at first, so that the start is soon forgotten."""
        return min(self.cfg.decay, (1 + step) / (10 + step)) if self.cfg.warmup else self.cfg.decay

    def on_step(self, trainer, result, metrics) -> None:
        if result.trouble is None:
            self.update(trainer.state.step)

    def update(self, step: int) -> None:
        """Take in the weights as optimiser step `step` left them."""
        averages, weights = ([_local(t) for t in tensors.values()] for tensors in (self.averages, self.weights))
        torch._foreach_lerp_(averages, weights, 1 - self.decay(step))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Checkpoint key -> average."""
        return {f"{EMA}{name}": average for name, average in self.averages.items()}

    def load_tensors(self, folder: Path) -> None:
        """Go on from a checkpoint; one that was saved without averages leaves them at the weights of now."""
        stored, wanted = read_metadata(folder).state_dict_metadata, self.tensors()
        if all(key in stored for key in wanted):
            load_sharded(folder, wanted)
        else:
            log.info("%s holds no running average of the weights that are trained now: it starts from the weights", folder)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
