"""Which example comes at which place of an endless mixture: a pure function of the place, so that any place can be found at once.

Of every data set d the first b blocks hold exactly floor(b * q_d + phase_d) draws, where q_d is the block size times its
rate: rates are met exactly, in every stretch of the stream, and the number of draws before a block needs no replay.
Inside a block the draws are shuffled. Each data set runs through its own shuffled order, epoch after epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from olmo.data.seeding import MIXTURE, Purpose, example_rng

BLOCK = 1024
"""Draws of one shuffled block, on average."""


@dataclass(frozen=True)
class Draw:
    """One place of the stream."""

    dataset: int
    index: int
    epoch: int


@dataclass(frozen=True)
class Source:
    """A data set of the mixture, as the stream sees it."""

    name: str
    size: int
    rate: float


class MixtureStream:
    """Maps a place (0, 1, 2, ...) to a `Draw`."""

    def __init__(self, sources: Sequence[Source], seed: int, shuffle: bool = True) -> None:
        assert sources and all(s.size > 0 and s.rate > 0 for s in sources)
        self.sources, self.seed, self.shuffle = list(sources), seed, shuffle
        rates = np.array([s.rate for s in sources], dtype=np.float64)
        self.quota = rates / rates.sum() * BLOCK  # [D] draws per block
        self.phase = example_rng(seed, MIXTURE, 0, 0, Purpose.PHASE).random(len(sources))
        self._block = lru_cache(maxsize=4)(self._make_block)
        self._order = lru_cache(maxsize=max(8, 2 * len(self.sources)))(self._make_order)

    def __reduce__(self) -> tuple:
        """Where workers are spawned, a stream goes to them without its caches."""
        return MixtureStream, (self.sources, self.seed, self.shuffle)

    def draw(self, place: int, skip: int = 0) -> Draw:
        """The example at `place`; with `skip`, the one that many later in the same data set's order (a substitute)."""
        block = self._find_block(place)
        datasets, ranks = self._block(block)
        offset = place - int(self._counts(block).sum())
        dataset = int(datasets[offset])
        count = int(self._counts(block)[dataset]) + int(ranks[offset])
        epoch, at = divmod(count, self.sources[dataset].size)
        if skip:
            at = (at + skip) % self.sources[dataset].size
        return Draw(dataset, int(self._order(dataset, epoch)[at]) if self.shuffle else at, epoch)

    def _counts(self, block: int) -> np.ndarray:
        """[D] draws of each data set before `block`."""
        return np.floor(block * self.quota + self.phase).astype(np.int64)

    def _find_block(self, place: int) -> int:
        """The block that holds `place`; blocks differ from BLOCK draws by less than one per data set."""
        block = max(0, (place - len(self.sources)) // BLOCK - 1)
        while int(self._counts(block + 1).sum()) <= place:
            block += 1
        return block

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Data set of each draw of a block, and the how-manieth draw of its data set within the block it is."""
        amounts = self._counts(block + 1) - self._counts(block)
        datasets = np.repeat(np.arange(len(amounts)), amounts)
        if len(amounts) > 1:
            datasets = example_rng(self.seed, MIXTURE, block, 0, Purpose.BLOCK).permutation(datasets)
        ranks = np.empty_like(datasets)
        for dataset in np.unique(datasets):
            where = datasets == dataset
            ranks[where] = np.arange(where.sum())
        return datasets, ranks

    def _make_order(self, dataset: int, epoch: int) -> np.ndarray:
        source = self.sources[dataset]
        return example_rng(self.seed, source.name, 0, epoch, Purpose.ORDER).permutation(source.size)
