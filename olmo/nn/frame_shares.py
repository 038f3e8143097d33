"""Which frames of a batch each rank of a group computes, and putting together what they found.

Ranks that share their sequences have the same frames. Each runs the ViT and the connector on a run of them. Frames are divided
by host integers; images, whose cells may reach over several crops, and videos whose pruning compares any of their frames stay
in one piece. The learned scorer compares a frame with the one before: where a video is cut, a rank also computes the last frame of the rank
before, up to the scores, so that nothing needs to be sent (gradients add up over the ranks).

Which cells stay is decided by every rank on the scores of all, alike. How many of them lie in the frames of a rank depends on
the scores: these few numbers are read from the device, once for every batch.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from olmo.batch import MultimodalType, RowLayout
from olmo.exceptions import OLMoDataError
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.indices import kept_rows
from olmo.nn.pruning_methods import CellScores
from olmo.nn.pruning_plan import PrunableVideo, PruningPlan


class AllFrames:
    """The share of a process that has no others: everything is here already."""

    lent = 0

    def __init__(self, plan: PruningPlan):
        self.plan = plan

    def of(self, part: PruningPlan) -> PruningPlan:
        return part

    def everywhere(self, answer: CellScores, part: PruningPlan, dtype: torch.dtype) -> CellScores:
        return answer

    def own_rows(self, x: Tensor) -> Tensor:
        return x

    def settle(self, keep: Tensor | None) -> None:
        pass

    def to_pack(self, keep: Tensor) -> tuple[Tensor, int, int]:
        return keep, *self.plan.slots


class FrameShare:
    """The share of one rank of a group. F = frames of the batch, padding included.

    A rank that gets none computes one frame for nothing: sharded weights need every rank in every collective.
    """

    def __init__(
        self,
        context: ContextParallel,
        images: Tensor,
        token_pooling: Tensor,
        layout: Sequence[RowLayout],
        plan: PruningPlan | None,
        cut: bool,
    ):
        """images: [B, T, N, px]; token_pooling: [B, P, G]; `cut`: whether videos may be divided between frames."""
        self.context, self.token_pooling = context, token_pooling
        self.frames_per_row, self.num_patches = images.shape[1:3]
        shares = divide(frame_units(layout, self.frames_per_row, cut), context.degree)
        self.own = shares[context.rank]
        """Frames of this rank."""
        videos = [] if plan is None else [range(v.start, v.start + v.num_frames) for v in plan.videos]
        self.lent = int(any(self.own[0] in v[1:] for v in videos)) if self.own else 0
        """1 if the frame before the own ones is computed as well, up to the scores."""
        self.frames = [self.own[0] - 1, *self.own] if self.lent else self.own or [next(iter(sum(shares, [])), 0)]
        """Frames that are computed here."""
        owner = {f: rank for rank, share in enumerate(shares) for f in share}
        host = torch.tensor([owner.get(f, 0) for f in range(images.shape[0] * self.frames_per_row)] + self.frames)
        self.owner, self.index = host.to(images.device, non_blocking=True).split([len(host) - len(self.frames), len(self.frames)])
        self.plan = None if plan is None else restrict(plan, self.frames if self.own else [])
        """The plan of the frames that are computed here."""
        prunable = [owner[f] for video in videos for f in video]
        self.prunable = [prunable.count(rank) for rank in range(context.degree)]
        """Frames of every rank that are up for pruning."""
        self.keep_rows: Tensor | None = None
        """[B, P] bool, kept rows of `token_pooling`, once settled."""
        self.cells: list[int] = []
        """Kept cells of every rank, once settled."""

    # -- up to the scores

    def take(self, x: Tensor) -> Tensor:
        """The frames computed here of x [F, ...]."""
        return x.index_select(0, self.index)

    def of(self, part: PruningPlan) -> PruningPlan:
        """What is computed here of the plan of the batch."""
        return self.plan

    def everywhere(self, answer: CellScores | None, part: PruningPlan, dtype: torch.dtype) -> CellScores:
        """The answer for all prunable frames of the batch from those of the ranks (None: there is no prunable frame here)."""
        dtype = torch.promote_types(dtype, torch.float32)
        if answer is None:
            rows = torch.zeros(0, part.cells.num_cells + 1, dtype=dtype, device=self.index.device)
        else:
            protected = torch.zeros_like(answer.scores[:, 0], dtype=torch.bool) if answer.protected is None else answer.protected
            rows = torch.cat([answer.scores.detach().to(dtype), protected[:, None].to(dtype)], dim=1)[self.lent :]
        found = self.context.gather(rows, self.prunable)
        return CellScores(found[:, :-1], found[:, -1] > 0)

    def own_rows(self, x: Tensor) -> Tensor:
        """The rows of this rank's frames in x [P, ...], which has one for every prunable frame of the batch."""
        return x.split(self.prunable)[self.context.rank]

    # -- from the keep mask on

    def settle(self, keep: Tensor | None) -> int:
        """Find out how many cells every rank keeps, and how many patches there are in this one's frames. keep: [F, N]."""
        self.keep_rows = kept_rows(self.token_pooling, keep)
        kept, owner = self.keep_rows.flatten(), self.owner_of_cells().flatten()
        cells = torch.zeros(self.context.degree, dtype=torch.int64, device=kept.device).index_add_(0, owner, kept.long())
        disorder = (kept & (owner < torch.where(kept, owner, 0).cummax(0).values)).sum()
        patches = disorder if keep is None else self.own_patches(keep).sum()
        *self.cells, disorder, patches = torch.cat([cells, torch.stack([disorder, patches])]).tolist()
        if disorder:
            raise OLMoDataError("the rows of token_pooling do not follow the order of the frames, so ranks cannot share the frames")
        return patches

    def owner_of_cells(self) -> Tensor:
        """[B, P] rank that has the frames of every row of `token_pooling`."""
        frame = torch.div(self.token_pooling.amax(-1).clamp(min=0), self.num_patches, rounding_mode="floor")
        start = torch.arange(len(frame), device=frame.device)[:, None] * self.frames_per_row
        return self.owner[frame + start]

    def own_patches(self, keep: Tensor) -> Tensor:
        """keep [F, N] of this rank's frames (of one that is computed for nothing: False)."""
        return keep.index_select(0, self.index[self.lent :]) & bool(self.own)

    def to_pack(self, keep: Tensor) -> tuple[Tensor, int]:
        """(own part of keep [F, N], how many patches that is). Where nothing is kept, one frame is, for nothing."""
        here, patches = self.own_patches(keep), self.settle(keep)
        if not patches:
            here[0] = True
        return here, patches or self.num_patches

    def own_cells(self) -> tuple[Tensor, int]:
        """(bool [B, P], number): the kept rows of `token_pooling` in this rank's frames."""
        return self.keep_rows & (self.owner_of_cells() == self.context.rank), self.cells[self.context.rank]

    def position(self, keep: Tensor | None) -> Tensor:
        """[F * N] which row of the patches computed here holds each own patch; `keep` [F, N]: those that are not kept were not packed."""
        if keep is not None:
            return (keep & (self.owner == self.context.rank)[:, None]).flatten().cumsum(0) - 1
        place = torch.zeros_like(self.owner)
        own = self.index[self.lent :]
        place[own] = torch.arange(len(own), device=own.device)
        return (place[:, None] * self.num_patches + torch.arange(self.num_patches, device=own.device)).flatten()


def frame_units(layout: Sequence[RowLayout], frames_per_row: int, cut: bool) -> list[range]:
    """Frames that stay together, in order: those of an image or, unless videos may be cut, of a video."""
    units = []
    for r, row in enumerate(layout):
        start = r * frames_per_row
        for segment in row.segments:
            frames = range(start, start + segment.num_frames)
            units += [range(f, f + 1) for f in frames] if cut and segment.kind == MultimodalType.VIDEO else [frames]
            start = frames.stop
    return units


def divide(units: Sequence[range], degree: int) -> list[list[int]]:
    """Frames of every rank: runs of units, each unit with the rank in whose part of the frames its middle lies."""
    total, done = sum(map(len, units)), 0
    shares: list[list[int]] = [[] for _ in range(degree)]
    for unit in units:
        if unit:
            shares[(2 * done + len(unit)) * degree // (2 * total)] += unit
        done += len(unit)
    return shares


def restrict(plan: PruningPlan, frames: Sequence[int]) -> PruningPlan:
    """The plan of some of the batch's frames, rising, that hold every video's frames in a run. Budgets stay those of whole videos."""
    videos = []
    for video in plan.videos:
        inside = [(here, f - video.start) for here, f in enumerate(frames) if 0 <= f - video.start < video.num_frames]
        if inside:
            (start, skipped), count = inside[0], len(inside)
            whole = tuple(w - skipped for w in video.whole if 0 <= w - skipped < count)
            videos.append(PrunableVideo(start, count, video.budget, whole))
    return replace(plan, num_frames=len(frames), real=(True,) * len(frames), videos=tuple(videos), dropped_per_segment=())
