"""Laying the kept patches of many frames into one dense computation, and finding them again.

Two layouts, one interface. A packing offers
- `pack(x)`: frames [F, N, D] to the packed tensor that blocks run on,
- `attention`: the keyword arguments that confine a block's attention to each frame,
- `unpack(packed)`: the kept patches as one flat run [slots, D], frame by frame, raster order inside a frame,
- `kept`: which of the F * N patches each of those slots holds.

`VarlenPacking` computes on the flat run itself. Its size is a host integer, nothing is read back from the device.
`FirstFitPacking` is the published layout: rows of N slots, several frames per row, a block-diagonal mask. It reads the
kept count of every frame, and serves as reference.
"""

import torch
from torch import Tensor

from olmo.nn.attention import Segments
from olmo.nn.indices import kept_indices


class VarlenPacking:
    """Flat run of kept patches; frame f owns one segment of it, dropped patches own nothing.

    `slots` is the host's count of kept patches. Where the cell grid has partly empty cells, how many patches stay depends
    on which cells were chosen, so there it is an upper bound: the `spare` slots at the end repeat some patch, attend
    among themselves only and are read by nobody.
    """

    def __init__(self, keep: Tensor, slots: int, spare: int = 0):
        num_frames, num_patches = keep.shape  # keep: [F, N] bool
        self.kept = kept_indices(keep.flatten(), slots)  # [slots] into F * N
        ends = keep.sum(1).cumsum(0)  # [F]
        behind = torch.arange(1, -(-spare // num_patches) + 1, device=keep.device) * num_patches
        cu_seqlens = torch.cat([ends.new_zeros(1), ends, (ends[-1:] + behind).clamp(max=slots)])
        self.segments = Segments(cu_seqlens.int(), slots, num_patches)
        self.attention = {"segments": self.segments}
        self.rows = slots / num_patches
        """Work done, in units of whole frames."""
        self.refilled = 0

    def pack(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.kept)

    def unpack(self, packed: Tensor) -> Tensor:
        return packed


class FirstFitPacking:
    """Rows of N slots filled first-fit with frames in order of descending kept count.

    With `refill`, a frame that ends up alone in its row brings its dropped patches along: they take part in attention
    and are discarded by `unpack` (published behaviour; it makes a video depend on what else is in the batch).
    """

    def __init__(self, keep: Tensor, slots: int, spare: int = 0, refill: bool = True):
        num_frames, num_patches = keep.shape
        frames_of_row = first_fit(keep.sum(1).tolist(), num_patches)
        lone = [row[0] for row in frames_of_row if len(row) == 1]
        carried = keep.clone()
        if refill:
            carried[lone] = True
        index = torch.zeros(len(frames_of_row), num_patches, dtype=torch.int64, device=keep.device)
        owner = torch.full_like(index, -1)  # frame of every slot
        place = torch.zeros_like(keep, dtype=torch.int64)  # slot of every carried patch
        for r, frames in enumerate(frames_of_row):
            column = 0
            for f in frames:
                patches = carried[f].nonzero()[:, 0]
                span = slice(column, column + len(patches))
                index[r, span] = f * num_patches + patches
                owner[r, span] = f
                place[f, patches] = torch.arange(column, span.stop, device=keep.device) + r * num_patches
                column = span.stop
        self.index = index
        # Unused slots form a group of their own: no softmax over nothing, and nobody reads them.
        self.attention = {"mask": (owner[:, :, None] == owner[:, None, :])[:, None]}  # [rows, 1, N, N]
        self.kept = kept_indices(keep.flatten(), slots)
        self.place = place.flatten()[self.kept]
        self.rows = len(frames_of_row)
        self.refilled = int((carried & ~keep).sum())

    def pack(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.index.flatten()).view(*self.index.shape, x.shape[-1])

    def unpack(self, packed: Tensor) -> Tensor:
        return packed.flatten(0, 1).index_select(0, self.place)


def first_fit(counts: list[int], capacity: int) -> list[list[int]]:
    """Frames of every row: counts above zero in descending order, each into the first row with room."""
    rows: list[list[int]] = []
    used: list[int] = []
    for frame in sorted((f for f, c in enumerate(counts) if c), key=lambda f: -counts[f]):
        row = next((r for r, u in enumerate(used) if u + counts[frame] <= capacity), len(rows))
        if row == len(rows):
            rows.append([])
            used.append(0)
        rows[row].append(frame)
        used[row] += counts[frame]
    return rows


def unpack_to_frames(flat: Tensor, keep: Tensor) -> Tensor:
    """A flat run of kept patches back on the grid, [F, N, D] with zeros where patches were dropped (for inspection; slow)."""
    dense = flat.new_zeros(keep.numel(), flat.shape[-1])
    kept = keep.flatten().nonzero()[:, 0]
    return dense.index_copy(0, kept, flat[: len(kept)]).view(*keep.shape, -1)
