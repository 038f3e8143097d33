"""Which cells a video loses.

Every method answers with one score per cell of the prunable frames (low = drop first) and, for some, with frames that it
wants to protect or cells to merge with. `select` makes the keep mask of it, so that every method keeps exactly the same
number of cells. (`fewer_frames` and `lower_resolution` spare tokens before the model sees them and are not here.)
Shapes: P = frames of prunable videos, C = cells of a frame, G = patches of a cell, V = videos.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from olmo.nn.pruning_plan import CellGrid, PruningPlan
from olmo.nn.token_merging import best_matches

if TYPE_CHECKING:
    from olmo.nn.temporal_image_vit import TemporalVitConfig

ATTEMPTS = 5
"""How often easy and heuristic try with a lower threshold."""
THRESHOLD_STEP = 0.05


@dataclass
class CellScores:
    """A method's answer."""

    scores: Tensor
    """[P, C] fp32, low = drop first."""
    protected: Tensor | None = None
    """[P] bool: frames that lose cells only after all others have lost theirs."""
    match: Tensor | None = None
    """[P, C] cell among the P * C into which a cell is merged if it leaves; None = cells that leave are gone."""


Method = Callable[[Tensor, PruningPlan, "TemporalVitConfig", bool], CellScores]
"""(x [P, N, D] the prunable frames, plan, config, training) -> scores."""


def select(answer: CellScores, plan: PruningPlan) -> Tensor:
    """Drop the lowest cells of every video: [P, C] bool, True = keep.

    One stable sort of (video, rank of the frame, score), written as one integer per cell: first frames (and all that are
    whole) rank last and are never dropped, protected frames rank before them. Equal scores leave in the order of frame and
    cell. How many leave is the budget, so which *sorted* positions leave is known beforehand.
    """
    scores = answer.scores.detach().float() + 0.0  # + 0.0 makes -0.0 equal to 0.0
    bits = scores.view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers that sort as the floats do
    rank = plan.on_device.whole.long() * 2
    if answer.protected is not None:
        rank = rank.maximum(answer.protected.long())
    key = ((plan.on_device.video * 4 + rank) << 32)[:, None] + ordered
    order = torch.sort(key.flatten(), stable=True).indices
    dropped = plan.on_device.dropped
    return torch.empty_like(dropped).scatter_(0, order, ~dropped).view_as(scores)


def neighbour_similarity(x: Tensor, cells: CellGrid) -> Tensor:
    """Cosine of every cell (all its patches as one vector) with the same cell one frame earlier.

    x: [P, N, D] -> [P - 1, C] fp32. Entries whose frames belong to different videos mean nothing; callers leave them out.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        per_patch = torch.stack([(x[1:] * x[:-1]).sum(-1), (squares := x.square().sum(-1))[1:], squares[:-1]], dim=-1)
        dot, a, b = cells.split(per_patch).sum(2).unbind(-1)
        return dot / (a.clamp(min=1e-24).sqrt() * b.clamp(min=1e-24).sqrt())


def previous_frame_scores(x: Tensor, cells: CellGrid) -> Tensor:
    """1 - similarity to the previous frame, [P, C]; first frames get a 1 that nothing reads."""
    change = 1 - neighbour_similarity(x, cells)
    return torch.cat([torch.ones_like(change[:1]), change])


def evs(x: Tensor, plan: PruningPlan, config: "TemporalVitConfig", training: bool) -> CellScores:
    """Keep what changed most since the previous frame."""
    return CellScores(previous_frame_scores(x, plan.cells))


def tome(x: Tensor, plan: PruningPlan, config: "TemporalVitConfig", training: bool) -> CellScores:
    """Merge the cells that are most similar to any cell of the previous frame into it."""
    similarity, match = best_matches(x, plan.cells)
    return CellScores(1 - similarity, match=match)


def random(x: Tensor, plan: PruningPlan, config: "TemporalVitConfig", training: bool) -> CellScores:
    """Uniform among the frames after the first.

    Training draws from torch's own generator, whose state checkpoints carry. Otherwise every video has its own generator,
    seeded by `prune_seed` and its length, so that its cells do not depend on what else is in the batch.
    """
    shape = (sum(plan.frame_counts), plan.cells.num_cells)
    if training:
        return CellScores(torch.rand(shape, device=x.device))
    draws = [np.random.default_rng([config.prune_seed, n]).random((n, shape[1]), dtype=np.float32) for n in plan.frame_counts]
    return CellScores(torch.from_numpy(np.concatenate(draws)).to(x.device, non_blocking=True))


def easy(x: Tensor, plan: PruningPlan, config: "TemporalVitConfig", training: bool) -> CellScores:
    """Drop the cells most similar to the previous frame; frames that changed as a whole are protected."""
    scores = previous_frame_scores(x, plan.cells)
    mean = (1 - scores).mean(1)
    protected = mean < thresholds(config, x.device)[:, None]  # [attempts, P]
    return first_sufficient(scores.expand(ATTEMPTS, -1, -1), protected, plan)


def heuristic(x: Tensor, plan: PruningPlan, config: "TemporalVitConfig", training: bool) -> CellScores:
    """As easy, but a cell is compared with the last one at its place that differed."""
    limits = thresholds(config, x.device)[:, None]  # [attempts, 1]
    place = torch.arange(plan.cells.num_cells, device=x.device)
    scores, protected = [], []
    for frames in x.split(plan.frame_counts):
        vectors = plan.cells.split(frames).flatten(2).transpose(0, 1).float()  # [C, frames, G * D]
        vectors = F.normalize(vectors, dim=-1, eps=1e-12)
        similarity = vectors @ vectors.transpose(1, 2)  # [C, frames, frames]
        reference = torch.zeros(ATTEMPTS, len(place), dtype=torch.int64, device=x.device)
        for t in range(len(frames)):
            to_reference = similarity[place, t, reference]  # [attempts, C]
            whole = to_reference.mean(1, keepdim=True) < limits
            reference = torch.where(whole | (to_reference < limits), t, reference)
            scores.append(1 - to_reference)
            protected.append(whole[:, 0])
    return first_sufficient(torch.stack(scores, 1), torch.stack(protected, 1), plan)


def thresholds(config: "TemporalVitConfig", device: torch.device) -> Tensor:
    """The mean similarity below which a frame is protected, for every attempt."""
    return config.new_ref_threshold - THRESHOLD_STEP * torch.arange(ATTEMPTS, device=device, dtype=torch.float32)


def first_sufficient(scores: Tensor, protected: Tensor, plan: PruningPlan) -> CellScores:
    """Per video, the first attempt that leaves enough unprotected cells for the budget, else the last.

    scores: [attempts, P, C]; protected: [attempts, P]. A shortfall of the last attempt is met by `select`, which goes on
    to the most similar cells of protected frames.
    """
    free = (~protected & ~plan.on_device.whole).long() * plan.cells.num_cells
    per_video = free.new_zeros(ATTEMPTS, len(plan.videos)).index_add_(1, plan.on_device.video, free)
    enough = per_video >= plan.on_device.budgets
    enough[-1] = True
    attempt = enough.int().argmax(0)[plan.on_device.video]  # [P]
    frame = torch.arange(len(attempt), device=attempt.device)
    return CellScores(scores[attempt, frame], protected[attempt, frame])


METHODS: dict[str, Method] = {"easy": easy, "heuristic": heuristic, "random": random, "evs": evs, "tome": tome}
"""Methods without parameters; `scorer` is learned and lives with the ViT."""
