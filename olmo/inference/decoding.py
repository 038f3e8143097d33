"""Running one decoding step again and again: as it is, or captured once as a CUDA graph and replayed.

A step computes little and launches many kernels, so on a GPU launching takes longer than computing; a graph launches all of
them at once. It reads and writes fixed addresses, which `decode_step` allows: the cache is allocated whole, and
positions and slots move in place.
"""

from collections.abc import Callable

import torch

from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import DecodeState, ModelBase

CAPTURE_FROM = 8
"""Capturing costs about as much as three steps; fewer remaining steps than this are not worth it."""

Step = Callable[[torch.Tensor], torch.Tensor]
"""ids [B] of the newest tokens -> logits [B, V] of the next, valid until the next call."""


def decoder(model: ModelBase, state: DecodeState, steps: int, capture: bool | None = None) -> Step:
    """The step to call up to `steps` times. `capture`: None = on CUDA, where there are enough steps."""
    if capture is None:
        capture = state.positions.is_cuda and steps >= CAPTURE_FROM
    if capture and not state.positions.is_cuda:
        raise OLMoConfigurationError(f"decoding can be captured on CUDA devices only, and the model is on {state.positions.device}")
    return CapturedStep(model, state) if capture else lambda ids: model.decode_step(ids, state)


class CapturedStep:
    """`decode_step` as a CUDA graph. Under autocast it must be used inside the context in which it was made."""

    WARM_UP = 2

    def __init__(self, model: ModelBase, state: DecodeState):
        self.ids = torch.zeros_like(state.positions)
        moving = (state.positions, state.cache.slots)
        before = [t.clone() for t in moving]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP):
                model.decode_step(self.ids, state)
                # the slot that was written is the next token's: it will be overwritten before anybody reads it
                for t, value in zip(moving, before, strict=True):
                    t.copy_(value)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # records, does not run
            self.logits = model.decode_step(self.ids, state)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.ids.copy_(ids)
        self.graph.replay()
        return self.logits
