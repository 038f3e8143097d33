"""The one rule for random choices of the data side: a generator of its own for every (seed, data set, index, epoch, purpose).

Nothing reads a global generator, so no choice depends on the process that makes it, nor on what was chosen before.
"""

import zlib
from enum import IntEnum

import numpy as np

MIXTURE = ""
"""Stands for the data set where a choice is about the mixture itself."""


class Purpose(IntEnum):
    """What is chosen. The numbers are part of every stream: changing one changes all orders."""

    BLOCK = 1
    """Order of the data sets within a block of the stream (`index` is the block)."""
    ORDER = 2
    """Order of a data set in an epoch (`index` is 0)."""
    PHASE = 3
    """Where within a block each data set has its first draw."""
    EXAMPLE = 4
    """Everything within one example: question, options, frame rate, wording."""


def name_key(name: str) -> int:
    """A number that stands for a name in random seeds (data sets of equal length must not share an order)."""
    return zlib.crc32(name.encode())


def example_rng(seed: int, dataset: str, index: int, epoch: int, purpose: Purpose) -> np.random.Generator:
    """The generator of one choice."""
    return np.random.default_rng([seed, name_key(dataset), index, epoch, int(purpose)])
