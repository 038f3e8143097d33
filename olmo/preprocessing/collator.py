"""Ragged examples -> one padded `Batch` with its host-side layout."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from olmo.batch import PAD_ID, Batch, ExampleLayout, RowLayout
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.example import ProcessedExample


class Collator:
    """Pads to the batch maximum, or to fixed shapes with `pad_to="to_max"`.

    `seq_len` counts tokens *after* pruning: a row may be longer than that by the cells that the model will drop. With
    `to_max` over-long text is cut at the end, which must never cut visual tokens nor all of the answer.
    """

    def __init__(
        self,
        vision_ids: Collection[int],
        *,
        pad_to: str | None = None,
        seq_len: int | None = None,
        max_frames: int | None = None,
        max_pooled: int | None = None,
    ):
        """`vision_ids`: special tokens that may not be cut. `max_frames`, `max_pooled`: fixed sizes of the visual tensors
        (`to_max` only; None = the batch maximum)."""
        if pad_to not in (None, "to_max"):
            raise OLMoConfigurationError(f"unknown padding '{pad_to}'; known: null, to_max")
        if pad_to == "to_max" and seq_len is None:
            raise OLMoConfigurationError("padding 'to_max' needs a sequence length")
        self.vision_ids = tuple(sorted(vision_ids))
        self.pad_to, self.seq_len, self.max_frames, self.max_pooled = pad_to, seq_len, max_frames, max_pooled

    def __call__(self, examples: Sequence[ProcessedExample]) -> Batch:
        lengths = [self._length(e) for e in examples]
        width = max(lengths)
        if self.pad_to == "to_max":
            width = max(width, self.seq_len + max(e.dropped_cells for e in examples))

        def text(name: str, dtype: torch.dtype = torch.int64, fill: int = PAD_ID) -> torch.Tensor:
            out = torch.full((len(examples), width), fill, dtype=dtype)
            for row, example, n in zip(out, examples, lengths, strict=True):
                values = getattr(example, name)
                row[:n] = 1 if values is None else torch.from_numpy(np.asarray(values[:n]))
            return out

        has_branches = any(e.subsegment_ids is not None for e in examples)
        return Batch(
            input_ids=text("input_tokens"),
            labels=text("target_tokens"),
            loss_masks=text("loss_masks", torch.float32),
            position_ids=text("position_ids"),
            subsegment_ids=text("subsegment_ids") if has_branches else None,
            images=self._images(examples),
            token_pooling=self._indices(examples, "token_pooling", self.max_pooled),
            fast_pooling=self._indices(examples, "fast_pooling"),
            fast_rows=self._indices(examples, "fast_rows"),
            layout=tuple(self._layout(e, n) for e, n in zip(examples, lengths, strict=True)),
            metadata=[e.metadata for e in examples],
        )

    def _length(self, example: ProcessedExample) -> int:
        """Tokens of the row after cutting what is too long."""
        n = example.num_tokens
        if self.pad_to is None:
            return n
        limit = self.seq_len + example.dropped_cells
        if n <= limit:
            return n
        what = f"{example.name or 'an example'} has {example.num_tokens_after_pruning} tokens after pruning"
        remedy = f"seq_len {self.seq_len}; raise seq_len or lower max_frames"
        lost = example.lost_by_cut(limit, self.vision_ids)
        if lost == "vision":
            raise OLMoDataError(f"{what}, and its visual part would be cut at {remedy}")
        if lost == "answer" and example.num_loss_tokens:  # a question to be answered has none to lose
            raise OLMoDataError(f"{what}, so its whole answer would be cut at {remedy}")
        return limit

    def _size(self, counts: Sequence[int], fixed: int | None, what: str, key: str) -> int:
        size = max(counts)
        if self.pad_to is None or fixed is None:
            return size
        if size > fixed:
            raise OLMoDataError(f"a batch row has {size} {what}, more than {key} {fixed}")
        return fixed

    def _images(self, examples: Sequence[ProcessedExample]) -> torch.Tensor | None:
        present = [e.images for e in examples if e.images is not None]
        if not present:
            return None
        size = self._size([len(i) for i in present], self.max_frames, "frames or crops", "max_frames")
        dtype = torch.uint8 if present[0].dtype == np.uint8 else torch.float32
        fill = 0 if dtype == torch.uint8 else -1
        out = torch.full((len(examples), size, *present[0].shape[1:]), fill, dtype=dtype)  # [B, T, N, px]
        for row, example in zip(out, examples, strict=True):
            if example.images is not None:
                row[: len(example.images)] = torch.from_numpy(example.images)
        return out

    def _indices(self, examples: Sequence[ProcessedExample], name: str, fixed: int | None = None) -> torch.Tensor | None:
        """Arrays of indices of one or two axes as one tensor, filled with -1."""
        present = [array for e in examples if (array := getattr(e, name)) is not None]
        if not present:
            return None
        size = self._size([len(p) for p in present], fixed, f"rows of {name}", "max_pooled")
        width = (max(p.shape[1] for p in present),) if present[0].ndim == 2 else ()
        out = torch.full((len(examples), size, *width), -1, dtype=torch.int64)
        for row, example in zip(out, examples, strict=True):
            if (p := getattr(example, name)) is not None:
                row[tuple(slice(n) for n in p.shape)] = torch.from_numpy(p)
        return out

    @staticmethod
    def _layout(example: ProcessedExample, length: int) -> RowLayout:
        return RowLayout(
            segments=tuple(example.segments),
            num_tokens=length,
            num_pooled=example.num_pooled,
            num_loss_tokens=int((example.loss_masks[:length] > 0).sum()),
            examples=cut_examples(example.examples, length),
        )


def cut_examples(examples: Sequence[ExampleLayout], length: int) -> tuple[ExampleLayout, ...]:
    """The examples of a row of which only the first `length` tokens stay (no visual token is ever cut)."""
    kept, start = [], 0
    for example in examples:
        if start < length:
            kept.append(replace(example, num_tokens=min(example.num_tokens, length - start)))
        start += example.num_tokens
    return tuple(kept)
