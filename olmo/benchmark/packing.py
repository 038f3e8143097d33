"""Filling rows with examples: how full they are, how long an example waits, and how even the work of ranks is."""

from collections.abc import Sequence

import numpy as np
import torch

from olmo.benchmark.measure import interleave
from olmo.benchmark.results import Row, current_commit
from olmo.budget import pruning_budget
from olmo.config_files import find_config
from olmo.data.lengths import Lengths
from olmo.data.packer import Item, Packer, PackingConfig
from olmo.data.plan import ExampleCost, deal
from olmo.train.config import TrainConfig
from olmo.train.data import example_cost

TOPKS = (0.0, 0.3, 0.5, 0.7)
ROW_TOKENS, ROW_FRAMES, POOL = 9686, 128, 48
CELLS = 81
"""Visual tokens of a frame, beside which its two marks stand."""
RANKS, ROWS_PER_RANK = 8, 8


def pack_key(topk: float) -> str:
    return f"pack/rows/{topk:g}"


def stream(topk: float, examples: int) -> list[Lengths]:
    """60 % videos of 64 frames, 40 % of 8 to 48, each with 20 to 400 tokens of text."""
    rng = np.random.default_rng(0)
    frames = np.where(rng.random(examples) < 0.6, 64, rng.integers(8, 49, examples))
    text = rng.integers(20, 401, examples)
    kept = [int(n) * (CELLS + 2) - pruning_budget(int(n), CELLS, topk) for n in frames]
    return [Lengths(int(k + t), int(n), int(t)) for k, n, t in zip(kept, frames, text, strict=True)]


def rows_of_stream(lengths: Sequence[Lengths], packing: PackingConfig) -> tuple[list[list[Lengths]], Packer[Lengths]]:
    """The rows that leave, and the packer with what still waits."""
    packer = Packer[Lengths](packing, ROW_TOKENS, ROW_FRAMES)
    items = (Item(e.tokens, e.frames, place, e) for place, e in enumerate(lengths))
    return [[i.value for i in row] for item in items if (row := packer.add(item))], packer


def fills(rows: Sequence[Sequence[Lengths]]) -> dict[str, float]:
    """Share of each budget that the rows use, on average."""
    tokens, frames = (sum(getattr(e, name) for row in rows for e in row) for name in ("tokens", "frames"))
    return {"tokens": tokens / (len(rows) * ROW_TOKENS), "frames": frames / (len(rows) * ROW_FRAMES)}


def possible_fill(lengths: Sequence[Lengths], scarce: str) -> float:
    """What no packer can pass: two examples that each take more than half of a budget never share a row."""
    budget = {"tokens": ROW_TOKENS, "frames": ROW_FRAMES}
    sizes = {name: np.array([getattr(e, name) for e in lengths]) / size for name, size in budget.items()}
    least = max(max(s.sum(), (s > 0.5).sum()) for s in sizes.values())
    return float(sizes[scarce].sum() / least)


def imbalances(rows: Sequence[Sequence[Lengths]], cost: ExampleCost) -> list[float]:
    """Of every global batch the work of the rank with the most of it, divided by the mean."""
    costs = [sum(cost.of(e) for e in row) for row in rows]
    size, found = RANKS * ROWS_PER_RANK, []
    for start in range(0, len(costs) - size + 1, size):
        batch = costs[start : start + size]
        totals = [sum(batch[i] for i in share) for share in deal(batch, RANKS)]
        found.append(max(totals) * RANKS / sum(totals))
    return found


def pack(topk: float, rounds: int, examples: int) -> Row:
    """The stream into rows of the published recipe, with the FLOPs of its model."""
    lengths, packing = stream(topk, examples), PackingConfig(buffer_size=POOL)
    timing = interleave({"pack": lambda: rows_of_stream(lengths, packing)}, rounds, 1, torch.device("cpu"))["pack"]
    rows, packer = rows_of_stream(lengths, packing)
    filled = fills(rows)
    scarce = max(filled, key=filled.__getitem__)
    published, _ = rows_of_stream(lengths, PackingConfig(buffer_size=POOL, solver="published", image_weight=30))
    model = [f"model.vision_backbone.vit.topk={topk}"] if topk else ["model.vision_backbone.vit.prune=false"]
    work = imbalances(rows, example_cost(TrainConfig.load(find_config("stts_50"), model)))
    return Row(
        key=pack_key(topk),
        part="pack",
        method=str(packing.solver),
        packing="",
        topk=topk,
        frames=round(np.mean([e.frames for e in lengths])),
        direction="forward",
        seconds_median=timing.median,
        seconds_iqr=timing.iqr,
        baseline="",
        rounds=rounds,
        commit=current_commit(),
        details={
            "examples": examples,
            "examples_per_second": examples / timing.median,
            "row_tokens": ROW_TOKENS,
            "row_frames": ROW_FRAMES,
            "token_fill": filled["tokens"],
            "frame_fill": filled["frames"],
            "scarce": scarce,
            "filled": filled[scarce],
            "possible": possible_fill([e for row in rows for e in row], scarce),
            "published_filled": fills(published)[scarce],
            "pool": packing.buffer_size,
            "longest_wait": packer.longest_wait,
            "max_age": packing.most_rows_waited,
            "ranks": RANKS,
            "rows_per_rank": ROWS_PER_RANK,
            "work_max_over_mean": max(work),
        },
    )
