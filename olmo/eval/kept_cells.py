"""Which cells of a video were kept, as a few hundred characters of a record: a bit for every cell."""

import base64

import numpy as np


def pack_cells(keep: np.ndarray) -> str:
    """Bools of any shape, in order."""
    return base64.b64encode(np.packbits(keep).tobytes()).decode()


def unpack_cells(packed: str, frames: int, cells: int) -> np.ndarray:
    """The inverse of `pack_cells` for a video: bool [frames, cells]."""
    bits = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
    return np.unpackbits(bits, count=frames * cells).astype(bool).reshape(frames, cells)
