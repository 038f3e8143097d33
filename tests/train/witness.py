"""What every step of a run trained on and found, exactly: `metrics.jsonl` rounds, and does not name examples."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from olmo.batch import Batch
from olmo.train.step import TrainStep

Row = tuple[str, ...]


@dataclass
class Seen:
    """One optimiser step, of this rank."""

    step: int
    metrics: dict[str, float]
    """Over all ranks."""
    rows: list[Row]
    """Ids of the examples of every row, in their order."""
    kept: list[list[bool]]
    """Which of the visual cells of every row stayed."""


def rows_of(batch: Batch) -> list[Row]:
    return [tuple(m["example_id"] for m in row.get("examples", [row])) for row in batch.metadata]


def _kept(batch: Batch, keep: torch.Tensor | None) -> list[list[bool]]:
    """Per row, without padding; where nothing was dropped there is no mask."""
    counts = [row.num_pooled for row in batch.layout]
    return [[True] * n if keep is None else keep[i, :n].tolist() for i, n in enumerate(counts)]


@contextmanager
def witness() -> Iterator[list[Seen]]:
    """Steps of all runs of this process, while the block lasts."""
    seen: list[Seen] = []
    forward, call = TrainStep.forward, TrainStep.__call__
    kept: list[list[bool]] = []

    def watched_forward(self, batch):
        masks = []
        hook = self.model.vision_backbone.register_forward_hook(lambda module, args, out: masks.append(out.keep_rows))
        out = forward(self, batch)
        hook.remove()
        kept.extend(_kept(batch, masks[0]))
        return out

    def watched_call(self, batch, step, *more):
        kept.clear()
        result = call(self, batch, step, *more)
        seen.append(Seen(step, dict(result.metrics), rows_of(batch), list(kept)))
        return result

    TrainStep.forward, TrainStep.__call__ = watched_forward, watched_call
    try:
        yield seen
    finally:
        TrainStep.forward, TrainStep.__call__ = forward, call
