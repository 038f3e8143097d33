"""Merging instead of dropping: a cell that leaves goes on inside the cell of the previous frame that it resembles most.

Two steps. `best_matches` says for every cell which cell of the previous frame of its video is most similar, and how similar;
the pruning takes the `budget` most similar ones away, as it would take any other cells. `merge` then averages what was
taken away into its match, patch by patch. Where the match leaves as well, its own match is meant, and so on: the cell that
stays becomes the average of all cells that end in it.
Shapes: P = frames of prunable videos, C = cells of a frame, G = patches of a cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from olmo.nn.pruning_plan import CellGrid, PruningPlan


def best_matches(x: Tensor, cells: CellGrid) -> tuple[Tensor, Tensor]:
    """For every cell of x [P, N, D]: (cosine with its match [P, C] fp32, the match [P, C] among the P * C cells).

    The patches of a cell count as one vector. A cell that the edge of the grid cuts can only match cells that are cut alike, so
    that every patch has a counterpart. Entries of first frames mean nothing: their cells never leave.
    """
    vectors = cells.split(x).flatten(2)  # [P, C, G * D]
    vectors = F.normalize(vectors.to(torch.promote_types(x.dtype, torch.float32)), dim=-1, eps=1e-12)
    similarity = vectors[1:] @ vectors[:-1].transpose(1, 2)  # [P - 1, C, C]
    present = cells.present(x.device)
    if present is not None:
        alike = (present[:, None] == present[None]).all(-1)  # [C, C]
        similarity = similarity.masked_fill(~alike, -torch.inf)
    best, where = similarity.max(-1)
    start = torch.arange(len(x) - 1, device=x.device)[:, None] * cells.num_cells  # of the previous frame
    return F.pad(best, (0, 0, 1, 0)), F.pad(start + where, (0, 0, 1, 0))


def final_matches(keep: Tensor, match: Tensor, most_frames: int) -> Tensor:
    """The cell that stays in which every cell ends, [P * C]; cells that stay end in themselves.

    keep, match: [P, C]. A chain takes one frame back per link and ends in a first frame at the latest, so that a video of
    `most_frames` frames needs that many halvings at most.
    """
    end = torch.where(keep, torch.arange(keep.numel(), device=keep.device).view_as(keep), match).flatten()
    for _ in range((most_frames - 2).bit_length()):
        end = end.index_select(0, end)
    return end


def merge(x: Tensor, keep: Tensor, match: Tensor, plan: PruningPlan) -> Tensor:
    """Every cell that stays becomes the average of the cells that end in it; the others keep their values, and nobody reads them.

    x: [P, N, D]; keep, match: [P, C]. Sums run in fp32 at least.
    """
    cells = plan.cells
    end = final_matches(keep, match, max(plan.frame_counts))
    members = cells.split(x.to(torch.promote_types(x.dtype, torch.float32))).flatten(0, 1)  # [P * C, G, D]
    total = torch.zeros_like(members).index_add(0, end, members)
    count = members.new_zeros(len(members)).index_add(0, end, torch.ones_like(end, dtype=members.dtype))
    average = torch.where(keep.flatten()[:, None, None], total / count.clamp(min=1)[:, None, None], members)
    return cells.join(average.unflatten(0, keep.shape)).to(x.dtype)
