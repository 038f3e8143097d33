"""The plan of a job: which examples share rows, and which rank gets which rows. Made from lengths, before anything is decoded.

Every rank makes the whole plan from the same measured examples in the same order, so no rank needs to ask another. Rows are made
in one global order that knows nothing of ranks; only then the rows of a global batch are dealt. So a global batch holds the
same rows for any number of ranks, and an example that cannot be decoded later changes nothing but its own row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from olmo.data.examples import Loaded
from olmo.data.lengths import Lengths
from olmo.data.packer import Item, Packer


@dataclass(frozen=True)
class Position:
    """Where the stream of a job is, between two global batches."""

    next: int = 0
    """The first place that has not been taken."""
    rows: int = 0
    """Rows that were packed before."""
    waiting: tuple[tuple[int, int], ...] = ()
    """Places whose examples wait to be packed, oldest first, each with the number of rows that had left when it came."""


@dataclass(frozen=True)
class ExampleCost:
    """Estimated work of an example, in any unit: FLOPs where the model is known. Examples of a row do not see each other, so the work
    of a row is the sum of theirs."""

    per_token: float = 1.0
    """Of the language model, after pruning."""
    per_token_pair: float = 0.0
    """Times the square of the example's tokens."""
    per_frame: float = 0.0
    per_loss_token: float = 0.0

    def of(self, lengths: Lengths) -> float:
        attention = self.per_token_pair * lengths.tokens**2
        return self.per_token * lengths.tokens + attention + self.per_frame * lengths.frames + self.per_loss_token * lengths.loss_tokens


@dataclass(frozen=True)
class PlannedBatch:
    """What one rank has to read for one global batch."""

    rows: list[list[Loaded]]
    """This rank's rows of measured examples, dearest first."""
    position: Position
    """Behind the global batch."""
    imbalance: float
    """Work of the rank with the most of it, divided by the mean."""
    longest_wait: int
    """Most rows that an example had waited, so far."""


class Planner:
    """Takes the measured examples of the whole job in the order of their places; gives this rank's rows, a global batch at a time."""

    def __init__(self, packer: Packer[Loaded], global_rows: int, cost: ExampleCost, *, rank: int, world_size: int, start: Position) -> None:
        """`global_rows`: rows of a global batch, over all ranks."""
        assert global_rows % world_size == 0 and not packer.buffer
        self.packer, self.global_rows, self.cost, self.rank, self.world_size = packer, global_rows, cost, rank, world_size
        self.packer.rows = start.rows
        self._since = [since for _, since in reversed(start.waiting)]
        self._next = start.next
        self._rows: list[list[Loaded]] = []

    def add(self, measured: Loaded) -> PlannedBatch | None:
        """Take the next example: first those that waited at the start, in their order, then those from the next place on."""
        item = Item(measured.lengths.tokens, measured.lengths.frames, measured.place, measured)
        if self._since:
            row = self.packer.add(item, self._since.pop())
        else:
            assert measured.place == self._next, "measured examples come in the order of their places"
            self._next += 1
            row = self.packer.add(item)
        if row is None:
            return None
        self._rows.append([i.value for i in row])
        if len(self._rows) < self.global_rows:
            return None
        rows, self._rows = self._rows, []
        return self._dealt(rows)

    def _dealt(self, rows: list[list[Loaded]]) -> PlannedBatch:
        costs = [sum(self.cost.of(e.lengths) for e in row) for row in rows]
        shares = deal(costs, self.world_size)
        totals = [sum(costs[i] for i in share) for share in shares]
        waiting = tuple((i.key, i.since) for i in self.packer.buffer)
        return PlannedBatch(
            rows=[rows[i] for i in shares[self.rank]],
            position=Position(self._next, self.packer.rows, waiting),
            imbalance=max(totals) * len(totals) / sum(totals),
            longest_wait=self.packer.longest_wait,
        )


def deal(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Rows of each rank, as many for each, so that all have about the same to do at any time.

    The dearest rows go first, one to each rank, the dearest of them to the rank that has least so far. So the i-th rows of all ranks
    are alike (ranks wait for each other in every pass), and what one rank had too much it gets less of in the next round.
    """
    order = sorted(range(len(costs)), key=lambda i: -costs[i])
    shares: list[list[int]] = [[] for _ in range(ranks)]
    totals = [0.0] * ranks
    for start in range(0, len(order), ranks):
        for rank, i in zip(sorted(range(ranks), key=totals.__getitem__), order[start : start + ranks], strict=True):
            shares[rank].append(i)
            totals[rank] += costs[i]
    return shares
