"""The `model` block of Molmo2."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch

from olmo.config import refuse_set
from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import ModelBase, ModelConfig
from olmo.models.molmo2.legacy_config import split_flat_config
from olmo.models.molmo2.preprocessor import GONE_FLAT_KEYS, Molmo2PreprocessorConfig
from olmo.nn.attention_mask import BiDirectionalAttn
from olmo.nn.llm_config import LlmConfig
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig
from olmo.preprocessing.formatter import DataFormatterConfig
from olmo.preprocessing.slow_fast import FastToken
from olmo.tokenizer import SPECIAL_TOKENS


@dataclass
class Molmo2Config(ModelConfig):
    """SigLIP2 and attention pooling in front of a Qwen3 or OLMo3 decoder."""

    _model_name: ClassVar[str] = "video_olmo"
    _vision_class: ClassVar[type] = MolmoVisionBackboneConfig
    _preprocessor_class: ClassVar[type] = Molmo2PreprocessorConfig

    model_name: str = "video_olmo"
    """Selects this class."""
    llm: LlmConfig = field(default_factory=LlmConfig)
    """The language model."""
    vision_backbone: MolmoVisionBackboneConfig | None = field(default_factory=MolmoVisionBackboneConfig)
    """ViT and connector; null = text only."""
    data_formatter: DataFormatterConfig = field(default_factory=DataFormatterConfig)
    """How examples become text."""
    mm_preprocessor: Molmo2PreprocessorConfig = field(default_factory=Molmo2PreprocessorConfig)
    """How images and videos become tokens."""
    bi_directional_attn: BiDirectionalAttn | None = None
    """image_tokens: all image tokens of an example see each other; within_image: they see those of earlier images and their own."""
    cp_enabled: bool = False
    """Of published files, without effect: how many ranks share a sequence is up to the run (parallelism.context_parallel_config)."""
    apply_cp_to_vision_backbone: bool = False
    """See cp_enabled."""

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        raw = {k: v for k, v in raw.items() if k != "shared_low_high_embedding"}
        refuse_set(raw, ("debug",), "model")
        if "llm" not in raw:
            raw = split_flat_config(raw, cls._vision_class, cls._preprocessor_class, {f.name for f in fields(cls)}, GONE_FLAT_KEYS)
        blocks = {
            "llm": LlmConfig,
            "vision_backbone": cls._vision_class,
            "mm_preprocessor": cls._preprocessor_class,
            "data_formatter": DataFormatterConfig,
        }
        migrated = {k: c.update_legacy_settings(dict(raw[k])) for k, c in blocks.items() if isinstance(raw.get(k), dict)}
        return raw | migrated

    def special_token_ids(self) -> dict[str, int]:
        """Name of every special token -> id; they follow the padded vocabulary in a fixed order."""
        return {name: self.llm.first_special_token + i for i, name in enumerate(SPECIAL_TOKENS)}

    def validate(self) -> None:
        """Refuse combinations that cannot work, naming the fields."""
        self.llm.validate()
        if self.vision_backbone is not None:
            self.vision_backbone.validate()
            video = self.mm_preprocessor.video
            video.slow_fast.check(video.max_frames, video.pooling_w)
        first, rows = self.llm.first_special_token, self.llm.embedding_rows
        if self.llm.additional_vocab_size is not None and first != rows:
            raise OLMoConfigurationError(
                f"special tokens start at {first} but the embedding has {rows} rows: llm.vocab_size must equal llm.embedding_size, "
                "or set llm.fix_pad_tokenizer"
            )
        available = rows + (self.llm.additional_vocab_size or 0)
        if first + len(SPECIAL_TOKENS) > available:
            raise OLMoConfigurationError(
                f"llm.additional_vocab_size must be at least {len(SPECIAL_TOKENS)} to hold the special tokens, not {available - first}"
            )
        if self.bi_directional_attn == BiDirectionalAttn.within_image:
            for block, switch in (("image", "use_single_crop_start_token"), ("video", "use_frame_special_tokens")):
                if not getattr(getattr(self.mm_preprocessor, block), switch):
                    raise OLMoConfigurationError(
                        f"bi_directional_attn 'within_image' needs mm_preprocessor.{block}.{switch}: true, "
                        "because it tells images apart by their start tokens"
                    )

    def placeholder_ids(self) -> tuple[int, ...]:
        """Ids of the tokens at which visual features enter."""
        slow_fast, ids = self.mm_preprocessor.video.slow_fast, self.special_token_ids()
        low = slow_fast.mode is not None and slow_fast.fast_token == FastToken.image_low_res
        return (ids["image_patch"], ids["image_low_res"]) if low else (ids["image_patch"],)

    def build_model(self, device: torch.device | str = "meta") -> ModelBase:
        with torch.device(device):
            return self._model_class()(self)

    def _model_class(self) -> type[ModelBase]:
        from olmo.models.molmo2.model import Molmo2Model

        return Molmo2Model
