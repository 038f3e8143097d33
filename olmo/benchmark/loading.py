"""Whether the data keep up: how long the steps of a short training wait for their batches."""

import io
import json
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from olmo.benchmark.results import Row, current_commit
from olmo.processes import cores

WARM_UP = 5
"""Steps at the start that fill the workers' queues and are left out."""


def loading_key(workers: int) -> str:
    return f"decode/training/tiny/{workers}w"


def wait_for_data(workers: int, steps: int, folder: Path) -> Row:
    """`steps` steps of configs/tiny.yaml on generated videos below `folder`, read by `workers` processes."""
    from rich.console import Console

    from olmo.config_files import find_config
    from olmo.distributed import World
    from olmo.train.callbacks.jsonl import FILE_NAME
    from olmo.train.config import TrainConfig
    from olmo.train.run import train

    with tempfile.TemporaryDirectory(prefix="run_", dir=folder) as save_folder:
        changes = [f"save_folder={save_folder}", f"max_duration={WARM_UP + steps}", "data.dataset=moving_shapes"]
        changes += [f"data.num_workers={workers}", "data.moving_shapes.num_train=200", "save_interval=null", "save_final_optim=false"]
        with patch.dict(os.environ, MOLMO_DATA_DIR=str(folder / "data")):
            train(TrainConfig.load(find_config("tiny"), changes), World(0, 0, 1, torch.device("cpu")), Console(file=io.StringIO()))
        lines = [json.loads(line) for line in (Path(save_folder) / FILE_NAME).read_text().splitlines()][WARM_UP:]
    seconds = [line["throughput/seconds_per_step"] for line in lines]
    waits = [line["throughput/data_wait_seconds"] for line in lines]
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return Row(
        key=loading_key(workers),
        part="decode",
        method="training",
        packing="",
        topk=0.5,
        frames=0,
        direction="training",
        seconds_median=float(median),
        seconds_iqr=float(high - low),
        baseline="",
        rounds=len(lines),
        commit=current_commit(),
        details={"workers": workers, "wait_fraction": sum(waits) / sum(seconds), "cores": cores()},
    )
