"""Processes: joining and leaving the group, and the few collectives that carry Python values.

Works without torchrun too (one process, no group). Everything that a rank decides alone (an error while writing, a
folder that cannot be created) goes through `on_all_ranks` or `agree`, so that no rank waits for another that has left.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from olmo.exceptions import OLMoEnvironmentError, OLMoError
from olmo.host_memory import reuse_freed_memory


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int
    local_rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def distributed_world() -> Iterator[World]:
    """Join the process group that torchrun describes (nccl on GPUs, gloo on CPUs) and leave it again.

    Leaving matters: a process that exits with a live group aborts instead of returning its status. A sharded model refers
    to its group in reference cycles, so these are collected first; what is left of a group would die with the interpreter.
    After an error of one of several ranks it is not left, because that may wait for ranks that are stuck: `olmo/leaving.py` ends the
    process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda:
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise OLMoEnvironmentError(
                f"this machine has {count} GPUs but torchrun started rank {local_rank + 1} on it; lower --nproc-per-node"
            )
        torch.cuda.set_device(local_rank)
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if not cuda:
        reuse_freed_memory()
    # FSDP shards (and offers mixed precision) on one GPU too, so a GPU always has a group; one CPU process needs none.
    needs_group = size > 1 or (cuda and "MASTER_ADDR" in os.environ)
    if needs_group:
        minutes = float(os.environ.get("NCCL_TIMEOUT_MINUTES", "10"))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            rank=rank,
            world_size=size,
            timeout=timedelta(minutes=minutes),
            device_id=device if cuda else None,
        )
    try:
        yield World(rank, local_rank, size, device)
    except BaseException:
        if size == 1:
            _leave_group()
        raise
    _leave_group()


def _leave_group() -> None:
    if initialized():
        gc.collect()
        dist.destroy_process_group()


def initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def barrier() -> None:
    if initialized():
        dist.barrier()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over ranks, in place."""
    if initialized():
        dist.all_reduce(values)
    return values


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or all of a sharded one (then every rank must call this)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_objects(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The value of every rank, on every rank."""
    if not initialized():
        return [value]
    values = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group=group)
    return values


def broadcast_object(value: Any, group: dist.ProcessGroup | None = None) -> Any:
    """Rank 0's value on every rank."""
    if not initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def on_all_ranks(action: Callable[[], Any], translate: Callable[[BaseException], OLMoError], group: dist.ProcessGroup | None = None) -> Any:
    """Run `action` here; if it fails on any rank, every rank raises that rank's error instead of waiting for it.

    `translate` words an error that is not meant for the user yet; where it happened stays its cause, for `--debug`.
    """
    result, error, cause = None, None, None
    try:
        result = action()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # the checkpoint library's own exception is no Exception
        error, cause = err if isinstance(err, OLMoError) else translate(err), err
    failed = next((e for e in gather_objects(error, group) if e is not None), None)
    if failed is None:
        return result
    if failed is cause:  # one process: no copy of it came back
        raise failed
    raise failed from cause


def on_main(action: Callable[[], Any], translate: Callable[[BaseException], OLMoError], group: dist.ProcessGroup | None = None) -> Any:
    """Run `action` on rank 0 only, return its result everywhere, and raise its error everywhere."""
    main = not initialized() or dist.get_rank() == 0
    return broadcast_object(on_all_ranks(action if main else (lambda: None), translate, group), group)
