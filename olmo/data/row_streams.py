"""Rows of one rank, from the tasks that its workers do: either an example per row, or several in rows that are planned first.

Both are the same to the loader: `tasks` says what is to be done next, endlessly; `rows` takes the results in the same order. So the
same workers measure and read, and how far ahead they are changes nothing.
"""

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice

from olmo.data.examples import Loaded, Task
from olmo.data.plan import PlannedBatch, Planner, Position

BLOCK = 8
"""Places that are measured by one task: measuring is quick beside handing a task over."""


@dataclass
class Row:
    """What one row is made of."""

    examples: list[Loaded]
    position: Position | None = None
    """Behind the row, where a global batch ends."""
    batch: PlannedBatch | None = None
    """The plan that ends with this row."""


class SingleRows:
    """One example per row: rank r of R takes the places r, r + R, r + 2R, ... counted from the start."""

    def __init__(self, start: Position, rank: int, world_size: int) -> None:
        self.start, self.rank, self.world_size = start, rank, world_size

    def tasks(self) -> Iterator[Task]:
        return count(self.start.next + self.rank, self.world_size)

    def rows(self, results: Generator[Loaded]) -> Iterator[Row]:
        for number, loaded in enumerate(results, start=1):
            yield Row([loaded], Position(self.start.next + number * self.world_size))


class PackedRows:
    """Measures places, lets the planner make rows of them, and reads the examples of this rank's rows.

    Reading comes before measuring more. A result comes back before the tasks that depend on it are handed out, and measuring never
    depends on anything: so there is always a task.
    """

    def __init__(self, planner: Planner, start: Position) -> None:
        self.planner = planner
        self._places = chain((place for place, _ in start.waiting), count(start.next))
        self._to_read: deque[Loaded] = deque()
        self._planned: deque[Row] = deque()
        """Rows to come; their examples are still to be read."""

    def tasks(self) -> Iterator[Task]:
        while True:
            yield self._to_read.popleft() if self._to_read else tuple(islice(self._places, BLOCK))

    def rows(self, results: Generator[Loaded | list[Loaded]]) -> Iterator[Row]:
        read: list[Loaded] = []
        for result in results:
            if isinstance(result, list):
                self._plan(result)
                continue
            read.append(result)
            if len(read) == len(self._planned[0].examples):
                row = self._planned.popleft()
                row.examples, read = read, []
                yield row

    def _plan(self, measured: list[Loaded]) -> None:
        for example in measured:
            if example.error is not None:
                raise example.error
            if (batch := self.planner.add(example)) is None:
                continue
            rows = [Row(row) for row in batch.rows]
            rows[-1].position, rows[-1].batch = batch.position, batch
            self._planned += rows
            self._to_read += [example for row in batch.rows for example in row]
