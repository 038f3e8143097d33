"""Test-time scaling: how many frames are looked at and how many of their cells are kept, chosen when asking instead of when training.

The four settings become overrides of a checkpoint's model. What they mean depends on the checkpoint: one that prunes has a method
and a share of its own, one that does not needs both, and only a trained scorer can score.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo.exceptions import OLMoCliError

NO_METHOD = "none"
"""The name under which no method, and so no pruning, is asked for."""
POSITIONS = ("kept", "compacted")
TEMPORAL = "temporal_video_olmo"
"""`model_name` of models that can prune."""
_VIT = "vision_backbone.vit."
_MAX_FRAMES, _TOPK, _PROCESSOR_TOPK = "mm_preprocessor.video.max_frames", f"{_VIT}topk", "mm_preprocessor.video.topk"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of an evaluation that `scaling_of` reads."""
    group = parser.add_argument_group("test-time scaling (default: as the checkpoint was trained)")
    group.add_argument("--max_frames", type=int, metavar="N", help="most frames of a video")
    group.add_argument("--topk", type=float, metavar="X", help="share of a video's cells that is removed, 0 <= X < 1; 0 = unpruned")
    group.add_argument("--prune_method", metavar="NAME", help="scorer, random, evs, tome, ... (vit.prune_method); none = unpruned")
    group.add_argument("--positions", choices=POSITIONS, help="position ids after pruning: kept with their gaps, or compacted")


def scaling_of(args: argparse.Namespace) -> "Scaling":
    """The flags of `add_flags`, checked as far as that is possible without a checkpoint."""
    return Scaling(args.max_frames, args.topk, args.prune_method, args.positions)


@dataclass(frozen=True)
class Scaling:
    """What is asked for; None = as the checkpoint has it."""

    max_frames: int | None = None
    """Most frames of a video."""
    topk: float | None = None
    """Fraction of a video's cells that is removed; 0 = unpruned."""
    prune_method: str | None = None
    """How they are chosen; `none` = unpruned."""
    positions: str | None = None
    """`kept` (with gaps) or `compacted`."""

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise OLMoCliError(f"--max_frames={self.max_frames}: must be at least 1")
        if self.topk is not None and not (math.isfinite(self.topk) and 0 <= self.topk < 1):
            raise OLMoCliError(f"--topk={self.topk}: must lie in [0, 1): it is the share of the cells that is removed (0 = none)")
        if self.prune_method == NO_METHOD and self.topk:
            raise OLMoCliError(f"--topk={self.topk} removes cells and --prune_method={NO_METHOD} removes none: give one of them")
        if self.positions not in (None, *POSITIONS):
            raise OLMoCliError(f"--positions={self.positions}: must be {' or '.join(POSITIONS)}")

    @property
    def unpruned(self) -> bool:
        """Whether it is asked for that nothing is removed."""
        return self.topk == 0 or self.prune_method == NO_METHOD

    def with_overrides(self, checkpoint: Path, more: Sequence[str] = ()) -> list[str]:
        """All overrides of the checkpoint's model: these settings, then `more` (`key=value`), which may not say the same again."""
        mine = self.overrides(checkpoint)
        said = {word.partition("=")[0] for word in more}
        if twice := [key for key in (word.partition("=")[0] for word in mine) if key in said]:
            raise OLMoCliError(f"--model.{twice[0]} is set, and so is a flag that decides it; leave one of them out")
        return [*mine, *more]

    def overrides(self, checkpoint: Path) -> list[str]:
        """These settings as overrides of the model in a checkpoint folder."""
        if self == Scaling():
            return []
        from olmo.checkpoints import load_config

        config = load_config(checkpoint)
        if config.vision_backbone is None:
            raise OLMoCliError(f"{checkpoint} is a model without vision, so it takes no videos that could be scaled")
        words = [] if self.max_frames is None else [f"{_MAX_FRAMES}={self.max_frames}"]
        temporal = config.model_name == TEMPORAL
        pruning = self._pruning(checkpoint, config, temporal)
        words += pruning
        if self.positions is not None and (temporal or pruning):
            words.append(f"compact_positions={str(self.positions == 'compacted').lower()}")
        elif self.positions == "compacted":
            raise OLMoCliError(f"--positions=compacted: {checkpoint} removes no tokens, so its positions have no gaps")
        return words

    def _pruning(self, checkpoint: Path, config, temporal: bool) -> list[str]:
        if self.topk is None and self.prune_method is None:
            return []
        if self.unpruned:
            return [f"{_VIT}prune=false", f"{_TOPK}=0.0", f"{_PROCESSOR_TOPK}=null"] if temporal else []
        vit = config.vision_backbone.vit
        prunes = temporal and vit.prune
        method = self.prune_method or (str(vit.prune_method) if prunes else None)
        topk = self.topk or (vit.topk if prunes else None)
        if method is None:
            raise OLMoCliError(f"--topk={self.topk}: {checkpoint} was trained without pruning; say how to prune it with --prune_method")
        if not topk:
            raise OLMoCliError(f"--prune_method={method}: {checkpoint} removes nothing by itself; say how much to remove with --topk")
        _check_method(checkpoint, method)
        words = [f"{_VIT}prune=true", f"{_VIT}prune_method={method}", f"{_TOPK}={topk}", f"{_PROCESSOR_TOPK}=null"]
        if temporal:
            return words
        video = config.mm_preprocessor.video  # a model that never pruned does not say what a cell is
        return [f"model_name={TEMPORAL}", *words, f"{_VIT}pooling_h={video.pooling_h}", f"{_VIT}pooling_w={video.pooling_w}"]


def _check_method(checkpoint: Path, method: str) -> None:
    """A method that exists, and that these weights can do."""
    from olmo.checkpoints.loading import has_scorer
    from olmo.nn.temporal_image_vit import PruneMethod

    known = [str(m) for m in PruneMethod]
    if method not in known:
        raise OLMoCliError(f"--prune_method={method}: unknown; known: {', '.join([*known, NO_METHOD])}")
    if method == PruneMethod.scorer and not has_scorer(checkpoint):
        others = ", ".join(m for m in known if m != method)
        raise OLMoCliError(f"--prune_method=scorer: {checkpoint} has no trained scorer; methods that need none: {others}")
