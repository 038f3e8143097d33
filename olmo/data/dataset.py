"""What a data set offers: a length, and raw examples by index."""

from typing import Any, Protocol

import numpy as np

Example = dict[str, Any]


class Dataset(Protocol):
    """Raw examples, drawn by index.

    `get` returns a fresh dict every time (a reader may change it), and takes every random choice from `rng`, so that an
    example depends on nothing but the data set, the index and the generator.
    """

    name: str

    def __len__(self) -> int: ...

    def get(self, index: int, rng: np.random.Generator) -> Example: ...
