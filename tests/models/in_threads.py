"""Ranks that share sequences as threads of this process: what one sends to another keeps its graph, so one backward pass is that of all."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from olmo.nn.context_parallel import ContextParallel


class Meeting:
    """Where the threads put something down and take what all have put down."""

    def __init__(self, degree: int):
        self.things: list[Any] = [None] * degree
        self.barrier = threading.Barrier(degree, timeout=30)

    def swap(self, rank: int, thing: Any) -> list[Any]:
        self.things[rank] = thing
        self.barrier.wait()
        things = list(self.things)
        self.barrier.wait()
        return things


class Thread(ContextParallel):
    def __init__(self, meeting: Meeting, degree: int, rank: int):
        self.meeting, self.degree, self.rank = meeting, degree, rank

    def exchange(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([sent[self.rank] for sent in self.meeting.swap(self.rank, x)])

    def gather(self, x: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        found = self.meeting.swap(self.rank, x)
        assert [len(rows) for rows in found] == list(counts)
        return torch.cat(found)


def in_threads(degree: int, function: Callable[[ContextParallel], Any]) -> list[Any]:
    """What `function` returns for every rank of a group; an error of one is raised here."""
    meeting = Meeting(degree)
    results: list[Any] = [None] * degree
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            results[rank] = function(Thread(meeting, degree, rank))
        except BaseException as err:
            errors.append(err)
            meeting.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(degree)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    causes = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)] or errors
    if causes:
        raise causes[0]
    return results
