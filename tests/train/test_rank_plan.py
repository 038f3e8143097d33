"""`--dry_run --fake_world N`: the plan of a run on many ranks, made in one process."""

import dataclasses
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from olmo.config_files import find_config
from olmo.distributed import World, initialized
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.models.molmo2.parallelize import parallelize_model
from olmo.train.build import build_sharded_model, meta_model
from olmo.train.config import TrainConfig
from olmo.train.memory.estimate import estimate, shape_of
from olmo.train.mesh import ParallelismConfig, sharding_mesh
from olmo.train.optim import build_optimizer
from olmo.train.rank_plan import fake_group, fullest_shape, gathered_units, plan_ranks
from tests.train.command import CONFIG, launch
from tests.train.conftest import _log_settings  # noqa: F401
from tests.train.ranks import run_ranks
from tests.train.tiny_run import make_batch, model_config

REPO = Path(__file__).resolve().parents[2]


class CountGathers(TorchDispatchMode):
    """Numbers of gathers, and what they gather."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "allgather" in str(function):
            self.count["gathers"] += 1
            self.count["weights"] += args[0].numel()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "tied"), [("video_olmo", True), ("video_olmo", False), ("temporal_video_olmo", True)])
def test_gathers_are_those_of_a_step(name, tied):
    """Against the calls of a real forward and backward pass. Seen to fail with the tied embedding counted once."""
    config = model_config(name, f"llm.weight_tying={tied}")
    with fake_group(2):
        model = config.build_model("cpu")
        model.reset_parameters()
        parallelize_model(model, mesh=sharding_mesh(ParallelismConfig(), World(0, 0, 2, torch.device("cpu"))))
        units = gathered_units(model)
        with CountGathers() as seen:
            model(make_batch(config, [4, 2]), compute_loss=True).loss.ce.backward()
    assert seen.count["gathers"] == 2 * sum(u.times for u in units)
    weights = 2 * sum(u.times * u.weights for u in units)
    assert weights <= seen.count["weights"] < 1.001 * weights, "tensors of odd length are padded"
    assert not initialized()


def held(world: World, folder: Path, overrides: list[str]) -> None:
    """What a real rank holds after a step of its optimiser, against the plan."""
    cfg = TrainConfig.load(CONFIG, overrides)
    model = build_sharded_model(cfg, world)
    optimizer = build_optimizer(cfg.optimizer, model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    size = lambda tensors: sum(t.to_local().numel() * 4 for t in tensors)  # noqa: E731
    moments = [s[k] for s in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    found = [size(model.parameters()), size(p.grad for p in model.parameters() if p.grad is not None), size(moments)]
    (folder / f"rank{world.rank}.txt").write_text(" ".join(map(str, found)))


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["ft_vit=false"], ["parallelism.data_parallel_replicate_degree=2"]])
def test_bytes_are_those_of_a_real_rank(overrides, tmp_path):
    """Two gloo ranks. Seen to fail with gradients counted for frozen weights."""
    run_ranks(2, held, tmp_path, overrides)
    plan = plan_ranks(TrainConfig.load(CONFIG, overrides), 2)
    assert [int(n) for n in (tmp_path / "rank0.txt").read_text().split()] == [plan.weights, plan.gradients, plan.optimiser]


def test_layout_of_a_plan():
    """64 GPUs in four copies: a copy is shared by 16, everyone has two rows of the global batch."""
    cfg = TrainConfig.load(find_config("molmo2_4b"), ["parallelism.data_parallel_replicate_degree=4", "device_train_microbatch_size=1"])
    plan = plan_ranks(cfg, 64)
    assert (plan.ranks, plan.replicas, plan.shards, plan.context, plan.rows, plan.micro_batches) == (64, 4, 16, 1, 2, 2)
    assert plan.tokens == 128 * 16384
    total = sum(p.numel() for p in meta_model(cfg).parameters())
    assert plan.weights == pytest.approx(4 * total / 16, rel=0.001)
    assert plan.memory.static["weights"] == 4 * total / 16
    assert "gradients of earlier micro-batches" in plan.memory.static
    one = plan_ranks(dataclasses.replace(cfg, parallelism=ParallelismConfig(), device_train_microbatch_size=2), 64)
    assert one.weights == pytest.approx(plan.weights / 4, rel=0.01) and one.gathers * 2 == plan.gathers


def test_adapters_are_trained_alone():
    cfg = TrainConfig.load(CONFIG, ["lora={targets: [llm]}"])
    plan = plan_ranks(cfg, 4)
    trained = sum(p.numel() for p in meta_model(cfg).parameters() if p.requires_grad)
    assert plan.optimiser == 2 * plan.gradients and plan.gradients == pytest.approx(trained, rel=0.05) and plan.weights > 4 * plan.gradients


def test_the_fullest_row_is_as_full_as_it_gets():
    """One frame more does not fit the tokens; a row that holds all frames of the packer is taken as it is."""
    cfg = TrainConfig.load(find_config("molmo2_4b"))
    frames = fullest_shape(cfg).frames
    assert 128 < frames < 256
    with pytest.raises(OLMoConfigurationError, match="tokens after pruning"):
        shape_of(cfg, frames + 1)
    cfg.compile = None
    assert fullest_shape(cfg).frames == frames, "rows that are not padded hold no more"
    assert fullest_shape(TrainConfig.load(find_config("stts_50"))).frames == 128


def test_shared_sequences_divide_a_rank_s_part():
    """As the config says it; how the work is divided is the model's business. Without them the estimate is that of the memory command."""
    cfg = TrainConfig.load(find_config("stts_50"))
    alone = plan_ranks(cfg, 64)
    assert alone.memory == estimate(cfg, 64, shape_of(cfg, 128))
    cfg.parallelism.context_parallel_config.degree = 8
    plan = plan_ranks(cfg, 64)
    assert (plan.context, plan.rows, plan.shards, plan.shape.tokens, plan.shape.frames) == (8, 8, 64, -(-9686 // 8), 16)
    assert plan.weights == alone.weights and plan.memory.needed < alone.memory.needed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--global_batch_size=63",), "global_train_batch_size=63 must be a multiple of the number of ranks, 64"),
        (("--parallelism.data_parallel_replicate_degree=3",), "64 ranks cannot be divided into"),
        (("--seq_len=2048",), "data.sequence_length 2048 is more than"),
        (("--model.vision_backbone.vit.topk=1.5",), "topk"),
        (("--initial_model_checkpoint={folder}",), "{folder}"),
    ],
)
def test_mistakes_of_a_start_on_64_ranks(words, message, tmp_path, capsys):
    words = [w.format(folder=tmp_path) for w in words]
    batch = () if any("batch" in w for w in words) else ("--global_batch_size=64",)
    assert launch(CONFIG, "moving_shapes", "--use_temporal_video_olmo", *batch, *words, "--dry_run", "--fake_world=64") == 1
    assert message.format(folder=tmp_path) in capsys.readouterr().err
    assert not initialized()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fake_world=64",), "--fake_world=64 needs --dry_run"),
        (("--fake_world=0", "--dry_run"), "--fake_world=0: must be at least 1"),
    ],
)
def test_mistakes_of_the_flag(words, message, capsys):
    assert launch(CONFIG, "moving_shapes", *words) == 1
    assert message in capsys.readouterr().err


def test_not_under_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert launch(CONFIG, "moving_shapes", "--dry_run", "--fake_world=2") == 1
    assert "start it without torchrun" in capsys.readouterr().err
    with fake_group(2), pytest.raises(OLMoEnvironmentError, match="without torchrun"):
        plan_ranks(TrainConfig.load(CONFIG), 2)


def test_a_checkpoint_elsewhere_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    words = ("--initial_model_checkpoint=/nowhere/step1", "--global_batch_size=4", "--dry_run", "--fake_world=4")
    assert launch(CONFIG, "moving_shapes", *words) == 0
    out = capsys.readouterr().out
    assert "the checkpoint /nowhere/step1 is not here" in out and "plan for 4 ranks" in out
    assert not list(tmp_path.iterdir())


PEAK = """
import runpy, sys
from olmo.host_memory import status_bytes
sys.argv = sys.argv[1:]
try: runpy.run_path(sys.argv[0], run_name="__main__")
finally: print("peak", status_bytes("VmHWM"))
"""


@pytest.mark.slow
def test_the_largest_model_takes_seconds_and_little_memory(tmp_path):
    """The whole command for the 8B model on 64 ranks: its weights are 35 GB, the process stays far below."""
    start = time.monotonic()
    words = ["launch_scripts/sft.py", "molmo2_8b", "all-v5-video-academic-only", "--dry_run", "--fake_world=64"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words],
        cwd=REPO, capture_output=True, text=True, env={"PATH": "", "PYTHONPATH": str(REPO), "MOLMO_DATA_DIR": str(tmp_path)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"copies of the model x shards\W+1 x 64", done.stdout)
    assert int(re.search(r"peak (\d+)", done.stdout)[1]) < 2_000_000_000
    assert time.monotonic() - start < 60
