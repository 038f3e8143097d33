"""What leaves the preprocessor: one example as arrays, with the host integers that describe its visual part.

The same class holds one example and a pack of several (the packer concatenates), so the collator needs to know only this.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from olmo.batch import ExampleLayout, MultimodalType, VisualSegment
from olmo.budget import video_budgets


def dropped_cells(segments: Sequence[VisualSegment], topk: float, prune_from_frame: int = 0) -> int:
    """Visual tokens that pruning with these settings removes from `segments` (only videos are ever pruned)."""
    return sum(sum(video_budgets(s, topk, prune_from_frame)) for s in segments if s.kind == MultimodalType.VIDEO)


@dataclass
class VisionTokens:
    """The visual part of an example before it is joined with text: its tokens, its patches, and which patches feed which token."""

    blocks: list[np.ndarray]
    """Token ids of each visual block ([n] int64); one per video or image, inserted at the placeholders of the text."""
    images: np.ndarray
    """[T, N, patch * patch * 3] uint8 or float32."""
    token_pooling: np.ndarray
    """[P, G] int64 ids into the T * N patches, -1 = empty; row i feeds the i-th `<im_patch>` token."""
    segments: tuple[VisualSegment, ...]
    """Host description of the frames or crops."""
    fast_pooling: np.ndarray | None = None
    """[Q, G'] int64, the cells of fast frames; None where there are none."""
    fast_rows: np.ndarray | None = None
    """[Q] int64 row of `token_pooling` that stands for each of them."""

    @property
    def num_tokens(self) -> int:
        return sum(len(b) for b in self.blocks)


@dataclass
class ProcessedExample:
    """One example (or one pack of examples) ready for the collator."""

    input_tokens: np.ndarray
    """[S] int64."""
    target_tokens: np.ndarray
    """[S] int64, already shifted by one."""
    loss_masks: np.ndarray
    """[S] float32 loss weight of each target; 0 = no loss."""
    position_ids: np.ndarray
    """[S] int64."""
    subsegment_ids: np.ndarray | None = None
    """[S] int64 branch of each token (SHARED_PREFIX: all see it); None for a single conversation."""
    images: np.ndarray | None = None
    """[T, N, patch * patch * 3] uint8 or float32 patches of the frames or crops."""
    token_pooling: np.ndarray | None = None
    """[P, G] int64 ids into the T * N patches, -1 = empty."""
    fast_pooling: np.ndarray | None = None
    """[Q, G'] int64, the cells of fast frames; None where there are none."""
    fast_rows: np.ndarray | None = None
    """[Q] int64 row of `token_pooling` that stands for each of them."""
    segments: tuple[VisualSegment, ...] = ()
    """Visual segments in frame order."""
    dropped_cells: int = 0
    """`<im_patch>` tokens that the model will remove by pruning; known before the model runs (sum it when packing)."""
    name: str = ""
    """How error messages call this example."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What evaluation needs to know."""
    packed: tuple[ExampleLayout, ...] = ()
    """Of a pack: what it holds."""

    @property
    def num_tokens(self) -> int:
        """Tokens before pruning."""
        return len(self.input_tokens)

    @property
    def num_tokens_after_pruning(self) -> int:
        """Tokens that the language model sees; sequence budgets count these."""
        return self.num_tokens - self.dropped_cells

    @property
    def num_frames(self) -> int:
        """Frames or crops that the ViT sees."""
        return 0 if self.images is None else len(self.images)

    @property
    def num_pooled(self) -> int:
        """Rows of `token_pooling` that hold at least one patch (= `<im_patch>` tokens before pruning)."""
        return 0 if self.token_pooling is None else int((self.token_pooling >= 0).any(axis=1).sum())

    @property
    def num_spared(self) -> int:
        """Visual tokens that were spared before the model, by showing it less."""
        return sum(s.spared for s in self.segments)

    @property
    def examples(self) -> tuple[ExampleLayout, ...]:
        """The examples of a pack, or the example itself."""
        if self.packed:
            return self.packed
        # a token sees branches whose id is not smaller than its own, so nothing is hidden while ids do not rise
        branched = self.subsegment_ids is not None and bool((np.diff(self.subsegment_ids) > 0).any())
        return (ExampleLayout(self.num_tokens, len(self.segments), branched),)

    @property
    def num_loss_tokens(self) -> int:
        return int((self.loss_masks > 0).sum())

    def lost_by_cut(self, end: int, vision_ids: Collection[int]) -> Literal["vision", "answer"] | None:
        """What an example cannot do without and would lose if only its first `end` tokens (before pruning) were kept.

        Some of its visual tokens (`vision_ids` are the special ones), or all that is learned from. The loader refuses such
        examples, and the collator will not cut them: both ask here.
        """
        if np.isin(self.input_tokens[end:], list(vision_ids)).any():
            return "vision"
        return None if (self.loss_masks[:end] > 0).any() else "answer"
