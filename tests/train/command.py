"""Running the training command in this process, and reading what it left."""

import json
from pathlib import Path

from olmo.launch import run_command
from olmo.train.sft import main

CONFIG = Path(__file__).with_name("six_blocks.yaml")


def launch(*words: str) -> int:
    """Exit status of `train_image_video_sft.py WORDS...`."""
    return run_command(lambda argv: main(argv, "train_image_video_sft.py"), [str(w) for w in words])


def train(save_folder, *words: str) -> int:
    return launch(CONFIG, "moving_shapes", f"--save_folder={save_folder}", "--use_temporal_video_olmo", *words)


def records(save_folder) -> list[dict]:
    return [json.loads(line) for line in (Path(save_folder) / "metrics.jsonl").read_text().splitlines()]


NOT_COMPARED = ("throughput/", "data/", "System/")
"""Times, memory, and counters of what this start has read (a resumed run reads again what waited in the packer)."""


def without_times(record: dict) -> dict:
    """What must be equal when a run is repeated."""
    return {k: v for k, v in record.items() if not k.startswith(NOT_COMPARED)}
