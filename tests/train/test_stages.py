"""The stages of docs/stages.md one after another, on the tiny model and generated data, each from the checkpoint of the one before."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from olmo.checkpoints import load_config, load_model, model_tensors, select_checkpoint
from olmo.train.config import TrainConfig
from tests.test_docs import commands
from tests.train.command import records

REPO = Path(__file__).resolve().parents[2]
FEW = ["--data.moving_shapes.num_train=8", "--data.packing.buffer_size=4", "--num_workers=0", "--console_log_interval=1"]
PLANS = [c for c in commands(REPO / "docs/stages.md") if c.endswith("--dry_run --fake_world 8")]
LONG = ["--max_duration=2", "--data.moving_shapes.num_train=4"]


def follow(start: str, folder: Path, *more: str) -> str:
    """Run the documented command that begins like this, with a few steps on a few examples; returns what it printed."""
    (command,) = (c for c in commands(REPO / "docs/stages.md") if c.startswith(start))
    run = {
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"],
    }
    words = [part for word in shlex.split(command) for part in run.get(word, [word])]
    env = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "MOLMO_DATA_DIR": str(folder / "data")}
    done = subprocess.run([*words, *FEW, *more], cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=400)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def weights(run: Path) -> dict:
    return model_tensors(load_model(select_checkpoint(run)))


@pytest.mark.slow
@pytest.mark.parametrize("command", PLANS, ids=[shlex.split(c)[2] for c in PLANS])
def test_the_plan_of_a_large_stage(command, tmp_path):
    """As it stands, at its full lengths, without data and weights."""
    assert len(PLANS) == 3
    env = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "MOLMO_DATA_DIR": str(tmp_path), "COLUMNS": "150"}
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    name, out = shlex.split(command)[2], done.stdout
    tokens = 2_536 if name.endswith("pretrain") else 36_864
    assert re.search(rf"tokens of all ranks\W+{128 * tokens:,} ", out) and "dry run: nothing was trained" in out
    frames = int(re.search(r"│   0 │ +(\d+) │", out)[1])
    assert frames % (16 if name.endswith("pretrain") else 384) == 0, "videos as long as they may be"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_each_stage_goes_on_from_the_one_before(tmp_path):
    (tmp_path / "launch_scripts").symlink_to(REPO / "launch_scripts")
    runs = tmp_path / "runs"
    out = follow("python launch_scripts/pretrain.py tiny_molmo2 --mixture", tmp_path, "--max_duration=3", "--save_interval=null")
    assert "starting from fresh weights" in out
    first = [r["train/CrossEntropyLoss"] for r in records(runs / "pretrain")]

    out = follow("python launch_scripts/sft.py runs/pretrain", tmp_path, "--max_duration=3")
    assert "starting from runs/pretrain/step3" in out and "start from random values" not in out
    tuned = [r["train/CrossEntropyLoss"] for r in records(runs / "sft")]
    assert tuned[0] < first[0] - 0.05, "what was learned is there"
    config = load_config(select_checkpoint(runs / "sft"))
    assert (config.model_name, config.llm.max_sequence_length) == ("video_olmo", 16384)
    assert config.data_formatter.prompt_templates == "uber_model_v2"

    out = follow("torchrun --nproc-per-node 2 launch_scripts/sft.py runs/sft", tmp_path, *LONG)
    assert "starting from runs/sft/step3" in out
    assert len(list((select_checkpoint(runs / "long") / "train").glob("rank*.pt"))) == 2
    assert load_config(select_checkpoint(runs / "long")).mm_preprocessor.video.max_frames == 48
    assert TrainConfig.load(runs / "long/config.yaml").parallelism.context_parallel_config.degree == 2
    assert max(r["batch/non_masked_tokens"] for r in records(runs / "long")) > 512, "longer than the sequences before"

    out = follow("python launch_scripts/train_image_video_sft.py runs/long", tmp_path, *LONG)
    found = re.findall(r"has no (\S+): its (\d+) tensors start from random values, all others are loaded", out)
    assert [name for name, _ in found] == ["temporal_token_scorer"]
    pruned, plain = weights(runs / "stts"), weights(runs / "long")
    assert len(pruned.keys() - plain.keys()) == int(found[0][1]) and not plain.keys() - pruned.keys()
    assert all(record["train/kept_fraction"] == pytest.approx(0.5, abs=0.02) for record in records(runs / "stts"))
