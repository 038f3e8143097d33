"""From a `TrainConfig` to batches: preprocessor, collator and loader of one rank, and a synthetic batch for dry runs."""

from typing import Any

import numpy as np

from olmo.batch import Batch
from olmo.budget import frames_within_budget
from olmo.data.loader import TrainLoader, build_train_loader
from olmo.data.packer import pack_examples
from olmo.data.plan import ExampleCost
from olmo.distributed import World
from olmo.models.molmo2.preprocessor import build_collator, build_preprocessor
from olmo.nn.flops import FlopCount, flops_for_video, llm_flops
from olmo.nn.flops_training import step_flops
from olmo.nn.pruning_plan import cell_grid
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
        rank=cfg.parallelism.data_rank(world.rank),
        world_size=cfg.parallelism.data_ranks(world.size),
        cost=example_cost(cfg),
    )


def example_cost(cfg: TrainConfig) -> ExampleCost:
    """FLOPs of a training step that an example adds, recomputation included, as a polynomial of its lengths.

    A frame counts as one of a video of `max_frames` frames; an example as one causal sequence, whatever its branches.
    """

    def step(count: FlopCount) -> float:
        return step_flops(count, cfg.model, cfg.trained, cfg.recompute).hardware

    llm, per_frame = cfg.model.llm, 0.0
    if cfg.model.vision_backbone is not None:
        video, vit = cfg.model.mm_preprocessor.video, cfg.model.vision_backbone.vit
        cells = cell_grid(vit.grid, (video.pooling_h, video.pooling_w)).num_cells
        seen = frames_within_budget(video.max_frames, cells, vit.topk, vit.prune_from_frame) if vit.thins_frames else video.max_frames
        per_frame = step(flops_for_video(cfg.model, video.max_frames, 0).only("vision")) / seen
    return ExampleCost(
        per_token=step(llm_flops(llm, 1, pairs=0)),
        per_token_pair=step(llm_flops(llm, 0, pairs=1)) / 2,  # a token sees those before it
        per_frame=per_frame,
        per_loss_token=step(llm_flops(llm, 0, loss_tokens=1, pairs=0)),
    )


def synthetic_batch(cfg: TrainConfig, tokenizer: Tokenizer, rows: int) -> Batch:
    """Noise videos of `max_frames` frames with one question each, as many per row as packing would put there."""
    preprocessor = train_preprocessor(cfg, tokenizer)
    rng = np.random.default_rng(cfg.data.seed)
    example = preprocessor(_synthetic_example(cfg, rng), rng)
    per_row = 1
    if cfg.data.packing is not None:
        by_frames = cfg.data.packing.row_frames(preprocessor.max_frames) // max(1, example.num_frames)
        per_row = max(1, min(cfg.data.sequence_length // example.num_tokens_after_pruning, by_frames))
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
