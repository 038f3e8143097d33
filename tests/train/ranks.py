"""The world of one process, and running a function in several gloo ranks, each a process of its own."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from olmo.distributed import World, distributed_world

ALONE = World(0, 0, 1, torch.device("cpu"))


def run_ranks(count: int, function: Callable[[World, Path, Any], None], folder: Path, argument: Any = None) -> None:
    """Call `function(world, folder, argument)` (a module-level function) in `count` ranks; a failure in one fails the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank, args=(count, port, function, folder, argument), nprocs=count, join=True)


def _rank(rank: int, count: int, port: int, function: Callable, folder: Path, argument: Any) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    torch.set_num_threads(1)
    with distributed_world() as world:
        function(world, folder, argument)
    sys.stdout.flush()
    os._exit(0)  # threads of gloo that are still winding down may abort an interpreter that is being taken apart
