"""From the settings of a training to the page: opens the stream, looks at its first examples, fills the template."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from olmo.data.loader import TrainLoader
from olmo.distributed import World
from olmo.inference.api import VideoQA
from olmo.inference.show import film_strip
from olmo.models.molmo2.preprocessor import video_cells
from olmo.pages.files import template_environment
from olmo.train.config import TrainConfig
from olmo.train.data import build_loader
from olmo.visualize.examples import SeenExample, look, read_example
from olmo.visualize.packing_map import read_packing_map
from olmo.visualize.tokens import Box, Part, TokenView
from olmo.visualize.tree import Tree, build_tree

MAX_THUMBNAILS = 64
"""Frames of one example that are drawn; of longer videos, evenly chosen ones."""
SHOWN_ELSEWHERE = ("frame_times",)
"""Metadata that the page shows in another place."""
LONGEST_VALUE = 300
"""Characters of one value of the metadata."""


@dataclass
class ExampleView:
    """What the template draws of one example."""

    seen: SeenExample
    parts: list[tuple[Part, list[Box]]]
    tree: Tree
    strip: dict[str, Any] | None
    metadata: dict[str, str]
    counts: dict[str, str]


def open_stream(cfg: TrainConfig) -> TrainLoader:
    """The loader of a training on one device, one row at a time; opens (and if need be generates) the data sets."""
    return build_loader(cfg, World(0, 0, 1, torch.device("cpu")), rows=1)


def build_page(
    cfg: TrainConfig,
    loader: TrainLoader,
    *,
    examples: int,
    packing_map: int,
    qa: VideoQA | None = None,
    checkpoint: Path | None = None,
    config: str | None = None,
) -> str:
    """The page as HTML: the first `examples` of the stream, and the rows that its first `packing_map` examples fill.

    `qa` draws what its model keeps; `checkpoint` and `config` are named in the heading.
    """
    views = [view_example(cfg, loader, number, qa) for number in range(examples)]
    weights = [box.weight for view in views for _, boxes in view.parts for box in boxes]
    page = template_environment("olmo.inference", "olmo.visualize").get_template("visualize.html.j2")
    return page.render(
        name=cfg.data.dataset,
        settings={
            "split": cfg.data.split,
            "seed": str(cfg.data.seed),
            "config": config or "that of the checkpoint",
            **({"checkpoint": str(checkpoint)} if checkpoint else {}),
        },
        members=loader.source.members,
        views=views,
        max_weight=max(weights, default=0.0),
        packing=read_packing_map(loader, packing_map) if packing_map else None,
        mode=cfg.model.bi_directional_attn,
    )


def view_example(cfg: TrainConfig, loader: TrainLoader, number: int, qa: VideoQA | None) -> ExampleView:
    """Everything about one example of the stream."""
    seen = read_example(loader, number)
    if qa is not None:
        look(qa, loader, seen)
    tokens = TokenView(seen.example, loader.source.preprocessor.tokenizer, seen.keep)
    return ExampleView(
        seen=seen,
        parts=[(part, list(tokens.boxes(part))) for part in tokens.parts],
        tree=build_tree(tokens, cfg.model.bi_directional_attn),
        strip=None if seen.frames is None else picture_strip(cfg, seen),
        metadata={k: _short(v) for k, v in seen.example.metadata.items() if k not in SHOWN_ELSEWHERE},
        counts=_counts(seen, loader),
    )


def picture_strip(cfg: TrainConfig, seen: SeenExample) -> dict[str, Any]:
    """What `strip.html.j2` draws: frames with their times, or the crops of images by their number."""
    times = seen.times if seen.is_video else [f"crop {i}" for i in range(len(seen.frames))]
    return film_strip(seen.frames, times, seen.keep, seen.scores, video_cells(cfg.model), max_frames=MAX_THUMBNAILS)


def _counts(seen: SeenExample, loader: TrainLoader) -> dict[str, str]:
    """The numbers of an example that budgets are about, in words."""
    example, limit = seen.example, loader.cfg.sequence_length
    after, cells = example.num_tokens_after_pruning, example.num_pooled
    counts = {"tokens": f"{example.num_tokens} before pruning, {after} after"}
    if limit is not None:
        cut = f"; {after - limit} are cut" if after > limit and loader.cfg.pad is not None else ""
        counts["budget of tokens"] = f"{after} of {limit} ({100 * after / limit:.0f} %){cut}"
    if example.num_frames:
        most = loader.max_frames or loader.source.preprocessor.max_frames
        what = "frames" if seen.is_video else "crops"
        counts[f"budget of {what}"] = f"{example.num_frames} of {most} ({100 * example.num_frames / most:.0f} %)"
        counts["visual tokens"] = f"{cells}, of which {example.dropped_cells} are dropped and {cells - example.dropped_cells} kept"
    if example.num_spared:
        counts["spared by showing less"] = f"{example.num_spared} visual tokens"
    total = float(example.loss_masks.sum())
    counts["learned tokens"] = f"{example.num_loss_tokens}, loss weights add up to {total:.4g}"
    return counts


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"
