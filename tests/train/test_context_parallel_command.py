"""The training command with ranks that share their sequences: same losses as one process, and checkpoints for any number of ranks."""

from pathlib import Path

import pytest
from rich.console import Console

from olmo.distributed import World
from olmo.train.run import train as train_run
from olmo.train.sft import build_train_config, parse
from tests.train.command import CONFIG, records, train
from tests.train.ranks import run_ranks

WORDS = (
    *("--packing", "--data.packing.buffer_size=3", "--data.packing.max_frames=16", "--seq_len=300", "--max_duration=4"),
    *("--global_batch_size=2", "--device_batch_size=1", "--save_interval=2", "--allow_resume=true"),
    *("--model.llm.n_heads=4", "--model.llm.n_kv_heads=4"),
)


def run(world: World, folder: Path, _: None) -> None:
    """Two steps from the start, and two steps that go on where one process stopped."""
    for name, stop in (("shared first", 2), ("alone first", 4)):
        words = (*WORDS, "--cp_degree=2", f"--stop_at={stop}", f"--save_folder={folder / name}", "--use_temporal_video_olmo")
        train_run(build_train_config(*parse([str(CONFIG), "moving_shapes", *words])), world, Console(quiet=True))


@pytest.mark.slow
def test_ranks_that_share_sequences_train_like_one_process(shapes, tmp_path):
    """Four steps of packed videos, by one process, by two ranks, and by each after the other, from the other's checkpoint."""
    assert train(tmp_path / "alone", *WORDS) == 0
    assert train(tmp_path / "alone first", *WORDS, "--stop_at=2") == 0
    run_ranks(2, run, tmp_path)
    assert train(tmp_path / "shared first", *WORDS) == 0
    expected = records(tmp_path / "alone")
    for name in ("shared first", "alone first"):
        found = records(tmp_path / name)
        assert len(found) == len(expected) == 4
        for step, (a, b) in enumerate(zip(expected, found, strict=True)):
            for key in ("train/CrossEntropyLoss", "train/AuxLoss", "train/Accuracy", "train/kept_fraction", "batch/loss_tokens"):
                assert b[key] == pytest.approx(a[key], rel=1e-4 if step else 1e-6), (name, step, key)
            assert b["throughput/total_tokens"] == a["throughput/total_tokens"]
            assert b["data/examples_per_row"] > 1
