"""What a checkpoint will hold, taken at one moment, so that training may go on while it is written."""

import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.tensor import DTensor

from olmo.checkpoints import model_tensors
from olmo.train.config import TrainConfig
from olmo.train.saving.checkpoint import optimizer_settings, optimizer_tensors


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a checkpoint."""

    step: int
    tensors: dict[str, Any]
    """Checkpoint key -> tensor, sharded tensor or plain value."""
    state: bytes
    """The trainer's state as a file."""
    config: bytes
    """`config.yaml`."""
    seconds: float
    """How long training stood still for it."""

    @property
    def bytes(self) -> int:
        """Size of this rank's tensors and trainer state."""
        shards = (t.to_local() if isinstance(t, DTensor) else t for t in self.tensors.values() if isinstance(t, Tensor))
        return len(self.state) + sum(math.prod(t.shape) * t.element_size() for t in shards)


class Snapshots:
    """Takes snapshots; on GPUs into page-locked host memory that the next one uses again, which makes the pause short.

    So a snapshot is good until the next is taken: whoever writes it must be done by then.
    """

    def __init__(self) -> None:
        self._stager: BlockingAsyncStager | None = None
        self._keys: frozenset[str] = frozenset()
        self._config: bytes | None = None

    def take(
        self,
        cfg: TrainConfig,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        state: dict[str, Any],
        more: Mapping[str, Tensor] = MappingProxyType({}),
        *,
        copy: bool,
    ) -> Snapshot:
        """The state now, and the tensors in `more`.

        Without `copy` the tensors are the live ones: then nothing may train until they are written.
        """
        began = time.perf_counter()
        tensors = live_tensors(model, optimizer) | more
        if copy:
            tensors = self._copied(tensors)
        file = io.BytesIO()
        torch.save(state, file)
        if self._config is None:  # it takes longer than copying a small model, and does not change during a run
            self._config = cfg.to_yaml().encode()
        return Snapshot(step, tensors, file.getvalue(), self._config, time.perf_counter() - began)

    def _copied(self, tensors: dict[str, Any]) -> dict[str, Any]:
        # The stager returns its buffers as they are: they must hold what is asked for and nothing more.
        if self._stager is None or frozenset(tensors) != self._keys:
            on_gpu = any(isinstance(t, Tensor) and t.is_cuda for t in tensors.values())
            self._stager, self._keys = BlockingAsyncStager(cache_staged_state_dict=on_gpu), frozenset(tensors)
        return self._stager.stage(tensors)


def live_tensors(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Everything that goes into `model_and_optim/`, not copied."""
    tensors: dict[str, Any] = {f"model.{n}": p.detach() for n, p in model_tensors(model).items()}
    if optimizer is not None:
        tensors |= optimizer_tensors(optimizer) | optimizer_settings(optimizer)
    return tensors
