"""Ranks that pack train like one process: the same rows in every global batch, so the same losses."""

from pathlib import Path

import pytest

from olmo.distributed import World
from tests.train.command import CONFIG, records, train
from tests.train.ranks import run_ranks

WORDS = (
    *("--packing", "--data.packing.buffer_size=3", "--data.packing.max_frames=16", "--seq_len=300", "--max_duration=4"),
    *("--global_batch_size=4", "--device_batch_size=1", "--save_interval=null", "--save_final_optim=false", "--compile=null"),
)


def run(world: World, folder: Path, argument: None) -> None:
    from rich.console import Console

    from olmo.train.run import train as train_run
    from olmo.train.sft import build_train_config, parse

    words = [str(CONFIG), "moving_shapes", f"--save_folder={folder}", "--use_temporal_video_olmo", *WORDS]
    train_run(build_train_config(*parse(words)), world, Console(quiet=True))


@pytest.mark.slow
def test_two_packing_ranks_equal_one_process(shapes, tmp_path):
    """Four steps of four rows of several examples. Seen to fail when both ranks take the rows of the first."""
    run_ranks(2, run, tmp_path / "two")
    assert train(tmp_path / "one", *WORDS) == 0
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert len(one) == len(two) == 4
    for alone, shared in zip(one, two, strict=True):
        for name in ("train/CrossEntropyLoss", "train/AuxLoss", "train/Accuracy"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-5), name
        assert shared["data/examples_per_row"] > 1
