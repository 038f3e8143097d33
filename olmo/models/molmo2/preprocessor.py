"""The preprocessor settings of Molmo2, and the way from a model config to a working preprocessor."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from olmo.batch import MultimodalType, VisualSegment
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.pruning_plan import CellGrid, cell_grid
from olmo.preprocessing.collator import Collator
from olmo.preprocessing.crops import ImagePreprocessor, MultiCropConfig
from olmo.preprocessing.example import dropped_cells
from olmo.preprocessing.formatter import DataFormatter
from olmo.preprocessing.frame_sampling import FewerFrames
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.message_tree import MessageTreeBuilder, TextPreprocessorConfig
from olmo.preprocessing.multimodal import ExamplePreprocessor
from olmo.preprocessing.slow_fast import FrameScorer, choose_period, periodic
from olmo.preprocessing.video import LoadVideo, VideoPreprocessor, VideoPreprocessorConfig
from olmo.tokenizer import Tokenizer, build_tokenizer

GONE_FLAT_KEYS = {
    "max_crops": 1,
    "periodic_high_res_frame": None,
    "image_padding_mask": False,
    "query_based_resolution_selection": False,
}
"""Keys of older flat configs that nothing implements any more -> the only value that may have been set."""


@dataclass
class Molmo2PreprocessorConfig(TextPreprocessorConfig):
    """How examples become sequences: the text settings on this level, videos and images below."""

    video: VideoPreprocessorConfig = field(default_factory=VideoPreprocessorConfig)
    """Sampling and layout of videos."""
    image: MultiCropConfig = field(default_factory=MultiCropConfig)
    """Cropping and layout of images."""

    _key_aliases: ClassVar[dict[str, str]] = {f.name: f"video.{f.name}" for f in fields(VideoPreprocessorConfig)}

    @classmethod
    def video_config_class(cls) -> type[VideoPreprocessorConfig]:
        return next(f.default_factory for f in fields(cls) if f.name == "video")

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Older files have no `video` block: their video keys stand flat, and frames carry markers one by one."""
        raw = dict(raw)
        video_keys = {f.name for f in fields(cls.video_config_class())}
        if raw.get("video") is not None:
            return raw
        raw.pop("video", None)
        if not raw.keys() - {f.name for f in fields(cls)}:
            return raw
        for key, allowed in GONE_FLAT_KEYS.items():
            if (value := raw.pop(key, allowed)) != allowed and (value or allowed):
                raise OLMoConfigurationError(f"mm_preprocessor.{key} {value} of an older config is not supported; it must be {allowed}")
        video = {key: raw.pop(key) for key in video_keys & raw.keys()}
        raw["video"] = {**video, "per_frame_special_token": True}
        return raw

    def pruning(self, vit: Any) -> tuple[float, int]:
        """What the model prunes: fraction of cells removed, and frames left out of the budget. Nothing in plain Molmo2."""
        return 0.0, 0

    def fewer_frames(self, vit: Any) -> FewerFrames | None:
        """Which sampled frames are left out. None in plain Molmo2."""
        return None


def build_llm_tokenizer(llm: Any, *, fallback_tiny: bool = False) -> Tokenizer:
    """The tokenizer of a language model config, special tokens right behind its embedding."""
    return build_tokenizer(llm.tokenizer, llm.first_special_token, fallback_tiny=fallback_tiny)


def pixel_config(vision_backbone: Any) -> PixelConfig:
    """What the ViT expects of its pixels."""
    vit = vision_backbone.vit
    if vision_backbone.image_padding_embed is not None:
        raise OLMoConfigurationError(
            "vision_backbone.image_padding_embed needs padding masks, which resize modes that fill the crop do not make"
        )
    return PixelConfig(
        vit.input_size,
        vit.image_patch_size,
        str(vit.resize_mode),
        str(vit.normalize),
        vision_backbone.normalize_on_gpu,
        vit.pad_value,
    )


def video_cells(model_config: Any, full: bool = False) -> CellGrid:
    """How the cells of a video frame lie on it; `full`: on a frame of the size that is configured, even where smaller ones are seen."""
    video, vit = model_config.mm_preprocessor.video, model_config.vision_backbone.vit
    return cell_grid(vit.full_grid if full else vit.grid, (video.pooling_h, video.pooling_w))


def fast_cells(model_config: Any) -> CellGrid:
    """How the cells of a fast frame lie on it."""
    window = model_config.mm_preprocessor.video.slow_fast.fast_window
    return cell_grid(model_config.vision_backbone.vit.grid, (window, window))


def longest_video(model_config: Any) -> VisualSegment:
    """A video of the most frames, as the model gets it."""
    cfg, vit = model_config.mm_preprocessor.video, model_config.vision_backbone.vit
    fewer, sampled = model_config.mm_preprocessor.fewer_frames(vit), cfg.max_frames
    seen = sampled if fewer is None else fewer.count(sampled)
    cells = video_cells(model_config).num_cells
    spared = sampled * video_cells(model_config, full=True).num_cells - seen * cells
    video = VisualSegment(MultimodalType.VIDEO, seen, cells, spared)
    if cfg.slow_fast.mode is None:
        return video
    fast = np.flatnonzero(~periodic(seen, choose_period(seen, cfg.slow_fast.limits)))
    return replace(video, fast=tuple(fast.tolist()), fast_cells=fast_cells(model_config).num_cells)


def build_preprocessor(
    model_config: Any,
    *,
    is_training: bool = False,
    for_inference: bool = False,
    seq_len: int | None = None,
    load_video: LoadVideo | None = None,
    tokenizer: Tokenizer | None = None,
    score_frames: FrameScorer | None = None,
) -> ExamplePreprocessor:
    """The preprocessor that goes with a model config (`llm`, `vision_backbone`, `data_formatter`, `mm_preprocessor`).

    `seq_len` counts tokens after pruning. `load_video` reads video files and comes from the data side; without it only
    decoded `VideoFrames` are taken. `score_frames` is needed where `video.slow_fast` goes by scores.
    """
    cfg = model_config.mm_preprocessor
    tokenizer = tokenizer or build_llm_tokenizer(model_config.llm)
    video = image = None
    topk, prune_from_frame = 0.0, 0
    if model_config.vision_backbone is not None:
        if is_training and cfg.video.slow_fast.mode is not None:
            raise OLMoConfigurationError(
                "mm_preprocessor.video.slow_fast.mode must be null in training: slow and fast frames are for asking and evaluating"
            )
        pixels = pixel_config(model_config.vision_backbone)
        fewer = cfg.fewer_frames(model_config.vision_backbone.vit)
        video = VideoPreprocessor(cfg.video, pixels, tokenizer, fewer, video_cells(model_config, full=True).num_cells)
        image = ImagePreprocessor(cfg.image, pixels, tokenizer, is_training)
        topk, prune_from_frame = cfg.pruning(model_config.vision_backbone.vit)
        if seq_len is not None:
            _check_fits(video, seq_len, topk, prune_from_frame)
    return ExamplePreprocessor(
        formatter=DataFormatter(model_config.data_formatter),
        text=MessageTreeBuilder(cfg, tokenizer),
        video=video,
        image=image,
        tokenizer=tokenizer,
        is_training=is_training,
        for_inference=for_inference,
        seq_len=seq_len,
        load_video=load_video,
        topk=topk,
        prune_from_frame=prune_from_frame,
        score_frames=score_frames,
    )


def build_collator(preprocessor: ExamplePreprocessor, *, pad_to: str | None = None) -> Collator:
    """The collator that goes with a preprocessor (same special tokens, same sequence length)."""
    return Collator(preprocessor.tokenizer.image_token_ids(), pad_to=pad_to, seq_len=preprocessor.seq_len)


def _check_fits(video: VideoPreprocessor, seq_len: int, topk: float, prune_from_frame: int) -> None:
    """Refuse settings under which a long video cannot fit, before anything is decoded."""
    n = video.max_frames
    slow = video.evenly(n)
    tokens = len(video.frame_tokens(range(n), slow)) - dropped_cells([video.segment(n, slow=slow)], topk, prune_from_frame)
    if tokens >= seq_len:
        raise OLMoConfigurationError(
            f"a video of max_frames {video.config.max_frames} takes at least {tokens} tokens after pruning, which leaves no room for text "
            f"in seq_len {seq_len}; raise seq_len or lower mm_preprocessor.video.max_frames"
        )
