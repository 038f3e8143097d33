"""Preprocessor settings of the pruned model: those of Molmo2 plus the fraction of cells that is removed."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from olmo.exceptions import OLMoConfigurationError
from olmo.models.molmo2.preprocessor import Molmo2PreprocessorConfig
from olmo.preprocessing.frame_sampling import FewerFrames
from olmo.preprocessing.video import VideoPreprocessorConfig


@dataclass
class TemporalVideoPreprocessorConfig(VideoPreprocessorConfig):
    """Video settings of the pruned model."""

    topk: float | None = None
    """Fraction of a video's cells that is *removed*; null = the value of vision_backbone.vit.topk, which it must equal."""


@dataclass
class TemporalMolmo2PreprocessorConfig(Molmo2PreprocessorConfig):
    """How examples become sequences whose length is counted after pruning."""

    video: TemporalVideoPreprocessorConfig = field(default_factory=TemporalVideoPreprocessorConfig)
    """Sampling and layout of videos, and how much of them is removed."""

    _key_aliases: ClassVar[dict[str, str]] = {f.name: f"video.{f.name}" for f in fields(TemporalVideoPreprocessorConfig)}

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """`topk` may stand flat even where the other video keys have their block."""
        raw = dict(raw)
        if raw.get("video") is not None and "topk" in raw:
            raw["video"] = {**raw["video"], "topk": raw.pop("topk")}
        return super().update_legacy_settings(raw)

    def pruning(self, vit: Any) -> tuple[float, int]:
        """The fraction that the model drops (0 with `prune: false`, and where it sees less instead) and the frames left out of its
        budget."""
        if self.video.topk is not None and self.video.topk != vit.topk:
            raise OLMoConfigurationError(
                f"mm_preprocessor.video.topk is {self.video.topk} but vision_backbone.vit.topk is {vit.topk}; "
                "give the same value to both, or only to the second"
            )
        return (float(vit.topk) if vit.drops_cells else 0.0), int(vit.prune_from_frame)

    def fewer_frames(self, vit: Any) -> FewerFrames | None:
        return FewerFrames(vit.cells.num_cells, float(vit.topk), int(vit.prune_from_frame)) if vit.thins_frames else None
