"""The `model` block of Molmo2 with unified spatio-temporal token scoring."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import ModelBase
from olmo.models.molmo2.config import Molmo2Config
from olmo.models.temporal_video_olmo.preprocessor import TemporalMolmo2PreprocessorConfig
from olmo.nn.temporal_image_vit import PruneMethod
from olmo.nn.temporal_vision_backbone import TemporalVisionBackboneConfig


@dataclass
class TemporalVideoOlmoConfig(Molmo2Config):
    """Molmo2 whose vision backbone drops cells of videos."""

    _model_name: ClassVar[str] = "temporal_video_olmo"
    _vision_class: ClassVar[type] = TemporalVisionBackboneConfig
    _preprocessor_class: ClassVar[type] = TemporalMolmo2PreprocessorConfig

    model_name: str = "temporal_video_olmo"
    """Selects this class."""
    vision_backbone: TemporalVisionBackboneConfig | None = field(default_factory=TemporalVisionBackboneConfig)
    """ViT with pruning, and connector."""
    mm_preprocessor: TemporalMolmo2PreprocessorConfig = field(default_factory=TemporalMolmo2PreprocessorConfig)
    """How images and videos become tokens, and how many of them pruning will remove."""
    compact_positions: bool = False
    """Renumber position ids after pruning instead of keeping the gaps (keeps very long videos inside the trained range)."""

    @classmethod
    def from_molmo2(cls, config: Molmo2Config) -> "TemporalVideoOlmoConfig":
        """The config of a plain Molmo2 model with the pruning settings at their defaults."""
        if isinstance(config, cls):
            return config
        raw: dict[str, Any] = config.asdict() | {"model_name": cls._model_name}
        return cls.from_dict(raw)

    def validate(self) -> None:
        super().validate()
        if self.vision_backbone is None:
            raise OLMoConfigurationError("temporal_video_olmo needs a vision_backbone; use model_name video_olmo for text only")
        vit, video = self.vision_backbone.vit, self.mm_preprocessor.video
        self.mm_preprocessor.pruning(vit)
        if video.slow_fast.mode is not None and vit.prune and (vit.sees_less or vit.prune_method == PruneMethod.tome):
            raise OLMoConfigurationError(
                f"mm_preprocessor.video.slow_fast.mode {video.slow_fast.mode} cannot go with vision_backbone.vit.prune_method "
                f"{vit.prune_method}, which needs frames of equal cells; set one of them to null or another method"
            )
        for name in ("pooling_h", "pooling_w"):
            if vit.prune and getattr(vit, name) != getattr(video, name):
                raise OLMoConfigurationError(
                    f"vision_backbone.vit.{name} is {getattr(vit, name)} but mm_preprocessor.video.{name} is {getattr(video, name)}; "
                    "both describe the cells of a video and must be equal"
                )

    def _model_class(self) -> type[ModelBase]:
        from olmo.models.temporal_video_olmo.model import TemporalVideoOlmoModel

        return TemporalVideoOlmoModel
