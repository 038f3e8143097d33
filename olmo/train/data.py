"""From a `TrainConfig` to batches: preprocessor, collator and loader of one rank, and a synthetic batch for dry runs."""

from typing import Any

import numpy as np

from olmo.batch import Batch
from olmo.data.loader import TrainLoader, build_train_loader
from olmo.data.packer import pack_examples
from olmo.distributed import World
from olmo.models.molmo2.preprocessor import build_collator, build_preprocessor
from olmo.preprocessing.multimodal import ExamplePreprocessor
from olmo.preprocessing.video import VideoFrames
from olmo.tokenizer import Tokenizer
from olmo.train.config import TrainConfig


def train_preprocessor(cfg: TrainConfig, tokenizer: Tokenizer | None = None) -> ExamplePreprocessor:
    """The preprocessor of training, with the configured video reader."""
    video = cfg.model.mm_preprocessor.video
    video.check()
    return build_preprocessor(
        cfg.model,
        is_training=True,
        seq_len=cfg.data.sequence_length,
        load_video=cfg.data.video_loader(video.reader_backend),
        tokenizer=tokenizer,
    )


def build_loader(cfg: TrainConfig, world: World, *, tokenizer: Tokenizer | None = None, rows: int | None = None) -> TrainLoader:
    """The endless stream of this rank's batches (`rows` each; default its share of the global batch)."""
    preprocessor = train_preprocessor(cfg, tokenizer)
    return build_train_loader(
        cfg.data,
        preprocessor,
        build_collator(preprocessor, pad_to=cfg.data.pad),
        device_batch_size=cfg.rows_per_rank(world.size) if rows is None else rows,
        rank=world.rank,
        world_size=world.size,
    )


def synthetic_batch(cfg: TrainConfig, tokenizer: Tokenizer, rows: int) -> Batch:
    """Noise videos of `max_frames` frames with one question each, as many per row as packing would put there."""
    preprocessor = train_preprocessor(cfg, tokenizer)
    rng = np.random.default_rng(cfg.data.seed)
    example = preprocessor(_synthetic_example(cfg, rng), rng)
    per_row = 1
    if cfg.data.packing is not None:
        per_row = max(1, cfg.data.sequence_length // example.num_tokens_after_pruning)
        if cfg.data.packing.max_frames is not None:
            per_row = max(1, min(per_row, cfg.data.packing.max_frames // max(1, example.num_frames)))
    row = pack_examples([example] * per_row)
    return build_collator(preprocessor, pad_to=cfg.data.pad)([row] * rows)


def _synthetic_example(cfg: TrainConfig, rng: np.random.Generator) -> dict[str, Any]:
    example: dict[str, Any] = {"question": "What happens in this video?", "answer": "Nothing but noise.", "style": "video_short_answer"}
    if cfg.model.vision_backbone is None:
        return example | {"style": "text_sft"}
    count = cfg.model.mm_preprocessor.video.max_frames
    height, width = cfg.model.vision_backbone.vit.image_default_input_size
    frames = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return example | {"video": VideoFrames(frames, np.arange(count) / 2.0, target_fps=2.0)}
