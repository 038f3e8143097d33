"""`starts.jsonl` in the save folder: one line per start of a run, with everything that may explain why two starts differ."""

import os
import socket
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from olmo.distributed import World, gather_objects, on_main
from olmo.json_lines import append_records
from olmo.provenance import checkout, package_versions, processor_name, versions
from olmo.train.config import TrainConfig
from olmo.train.saving.checkpoint import cannot_write
from olmo.train.start import Start

FILE_NAME = "starts.jsonl"
PACKAGES = (
    *("torch", "transformers", "tokenizers", "numpy", "safetensors", "omegaconf"),  # what computes and reads
    *("av", "decord", "torchcodec", "pillow", "torchvision"),  # what decodes
    *("triton", "flash-attn", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "s3fs", "wandb", "tensorboard"),
)
"""Packages whose versions are noted where they are installed."""


def note_start(cfg: TrainConfig, world: World, start: Start, step: int, command: str) -> None:
    """Add the line of this start; a new run begins a new file. All ranks call this, rank 0 writes."""
    cuda = world.device.type == "cuda"
    machine = (socket.gethostname(), torch.cuda.get_device_name(world.device) if cuda else processor_name())
    machines = gather_objects(machine)

    def write() -> None:
        path = Path(cfg.save_folder) / FILE_NAME
        if not start.resumes:
            path.unlink(missing_ok=True)
        append_records(path, [facts(world, machines, start, step, command)])

    on_main(write, cannot_write(cfg.save_folder))


def facts(world: World, machines: list[tuple[str, str]], start: Start, step: int, command: str) -> dict[str, Any]:
    """What the line says. `machines`: host and device of every rank."""
    commit, dirty = checkout()
    software = versions()
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "folder": os.getcwd(),
        "step": step,
        "resumes": start.resumes,
        "checkpoint": start.origin,
        "world_size": world.size,
        "host": machines[0][0],
        "ranks_of_hosts": dict(Counter(host for host, _ in machines)),
        "devices": dict(Counter(device for _, device in machines)),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if world.device.type == "cuda" else None,
        "commit": commit,
        "dirty": dirty,
        "versions": {"olmo": software["olmo"], "python": software["python"], **package_versions(PACKAGES)},
    }
