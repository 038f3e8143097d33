"""Processes that do the loader's tasks, and how they begin and end."""

import ctypes
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from olmo.exceptions import OLMoEnvironmentError

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
"""Linux (prctl.h): the signal a process gets when its parent ends."""


def results_of(
    source: torch.utils.data.Dataset, tasks: Iterator[Any], *, num_workers: int, prefetch_factor: int | None, timeout: float
) -> Generator[Any]:
    """`source[task]` for every task, in their order, whoever does them; 0 workers = this process."""
    if num_workers == 0:
        return (source[task] for task in tasks)
    workers = torch.utils.data.DataLoader(
        source,
        batch_size=None,
        sampler=_Endless(tasks),
        num_workers=num_workers,
        prefetch_factor=prefetch_factor or 2,
        timeout=timeout,
        collate_fn=_as_it_is,
        worker_init_fn=live_and_die_with_the_parent,
        # Without one of its own it draws from that of the process, from which dropout is drawn too: a resumed run would go on shifted.
        generator=torch.Generator(),
    )
    # The iterator is made here, in the main thread, because making it forks the workers.
    return _owned(iter(workers))


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """torch notices a dead worker in whichever thread is looking; either way it is one sentence."""
    try:
        yield
    except RuntimeError as err:
        if "DataLoader worker" not in str(err):
            raise
        reason = " ".join(str(err).split())[:200]
        raise OLMoEnvironmentError(f"a data worker died ({reason}); lower data.num_workers or free memory") from None


class _Endless(torch.utils.data.Sampler):
    """Hands an endless iterator of tasks to torch's loader."""

    def __init__(self, tasks: Iterator[Any]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[Any]:
        return self.tasks


def _owned(iterator: Iterator[T]) -> Generator[T]:
    """The same items; closing it lets go of the iterator, and so ends its workers at once and in order. (Left to the
    garbage collector, workers are waited for until they notice by themselves, five seconds later.)"""
    with naming_dead_workers():
        yield from iterator


def live_and_die_with_the_parent(worker: int) -> None:
    """Torchrun and Ctrl-C signal the whole process group; the training process finishes its step first and needs data for
    it. Workers end when it tells them to, or when it is gone: torch looks for that only between two examples, and a worker
    that waits for room in its queue would stay for ever, so on Linux the kernel is asked to end it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _as_it_is(value: T) -> T:
    return value
