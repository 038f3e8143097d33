"""Batches that are not finite, in whole runs: skipped, kept, and replayed to the same numbers; on one of two ranks, both decide alike."""

import json
import shutil

import pytest
import torch

from olmo.checkpoints import load_model, model_tensors
from olmo.data.loader import TrainLoader
from olmo.distributed import World, whole
from olmo.launch import run_command
from olmo.train import build
from olmo.train.bad_batches import dump as bad_batch
from olmo.train.bad_batches import replay
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import NonFiniteConfig, NonFinitePolicy
from olmo.train.optim import build_optimizer
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainingDiverged, TrainStep
from tests.train.command import records, train, two_ranks_with
from tests.train.faulty import install
from tests.train.ranks import ALONE, run_ranks
from tests.train.test_nonfinite import batch_of, everything, poisoned
from tests.train.tiny_run import model_config

FLOATS = "--model.vision_backbone.normalize_on_gpu=false"
RUN = (FLOATS, "--max_duration=3", "--save_interval=1", "--nonfinite.policy=skip", "--model.llm.residual_dropout=0.1", "--ema={}")


def weights_of(folder) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model_tensors(load_model(folder)).items()}


@pytest.fixture
def seen(monkeypatch):
    """step -> (batch, metrics) of the steps of this process."""
    steps, call = {}, TrainStep.__call__

    def keeping(self, batch, number, *args):
        result = call(self, batch, number, *args)
        steps[number] = (batch, result.metrics)
        return result

    monkeypatch.setattr(TrainStep, "__call__", keeping)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["huge_pixel", "nan_pixel"])
def test_fault_a_bad_batch_is_skipped_and_replayed(fault, shapes, tmp_path, monkeypatch, capsys, seen):
    """One pixel of step 2 is broken. The run leaves that batch out and ends as planned; the replay has the same loss terms, also those of
    the micro-batch that is well, and names the first place; with the pixel repaired it has the loss of a run without the fault.

    Seen to fail (replay) without the random state, and with the weights of another step.
    """
    assert train(tmp_path / "clean", *RUN) == 0
    clean = dict(seen)
    monkeypatch.setattr(TrainLoader, "__iter__", TrainLoader.__iter__)  # what `install` puts there goes away with this test
    install(fault, 2, 0)
    assert train(tmp_path / "run", *RUN) == 0
    monkeypatch.undo()
    monkeypatch.setenv("MOLMO_DATA_DIR", str(shapes))
    assert "skipped step 2: train/CrossEntropyLoss is not finite" in capsys.readouterr().out
    found, expected = records(tmp_path / "run"), records(tmp_path / "clean")
    assert [(r["step"], r["health/skipped_steps"]) for r in found] == [(1, 0), (2, 1), (3, 1)]
    assert found[1]["train/CrossEntropyLoss"] is None and found[2]["train/CrossEntropyLoss"] > 0
    # the data and the schedule of step 3 are those of a run in which nothing was skipped
    same = ("batch/loss_tokens", "batch/tokens_before_pruning", "optim/llm_lr")
    assert all(found[2][key] == expected[2][key] for key in same) and found[2]["train/Accuracy"] is not None
    one, two, three = (weights_of(tmp_path / "run" / f"step{n}") for n in (1, 2, 3))
    assert all(torch.equal(p, two[n]) for n, p in one.items()) and not all(torch.equal(p, three[n]) for n, p in one.items())

    path = tmp_path / "run/bad_batches/step2-rank0.pt"
    ids = json.loads(path.with_suffix(".json").read_text())["micro_batches"][1]["rows"]
    assert run_command(replay.main, [str(path)]) == 0
    out = capsys.readouterr().out
    assert f"weights: {tmp_path / 'run' / 'step1'}" in out
    assert "the same loss terms as in the run, bit for bit" in out
    first = "micro-batch 2 of 2, forward: vision_backbone."
    assert first in out and "the gradient of" in out
    assert (f"batch: images of row 3 (examples {ids[1][0]}) holds 1 nan among" in out) == (fault == "nan_pixel")
    assert ("what it was given is finite" in out) == (fault == "huge_pixel")

    # the same weights, the same dropout, the pixel as it should be
    content = torch.load(path, weights_only=True)
    content["tensors"]["images"] = clean[2][0].images
    torch.save(content, tmp_path / "repaired.pt")
    dumped = bad_batch.read_dump(tmp_path / "repaired.pt")
    cfg = TrainConfig.from_dict(dumped.config)
    terms, findings = replay.replay(dumped, replay.build_step(cfg, str(tmp_path / "run/step1"), ALONE))
    assert not findings
    assert sum(ce for ce, *_ in terms) / dumped.weight == clean[2][1]["train/CrossEntropyLoss"]
    assert "not the same loss terms as in the run: micro-batch 2 has ce" in replay.compare(dumped, terms)


def test_fault_weights_that_overflow_stop_the_run(shapes, tmp_path, capsys):
    """A learning rate far too high: step 2 overflows, is not updated, and can be replayed; not without the weights of step 1."""
    words = ("--optimizer.llm_learning_rate=1e30", "--scheduler.llm_t_warmup=0", "--save_interval=1", "--max_duration=3")
    assert train(tmp_path, *words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: step 2: train/CrossEntropyLoss is not finite") and err.count("\n") == 1
    assert [r["step"] for r in records(tmp_path)] == [1]
    dump = tmp_path / "bad_batches/step2-rank0.pt"
    assert run_command(replay.main, [str(dump)]) == 0
    out = capsys.readouterr().out
    assert "the same loss terms as in the run, bit for bit (micro-batches: nan, nan)" in out
    assert "forward: transformer.blocks.0.att_proj (Linear) returned" in out and "what it was given is finite" in out
    assert run_command(replay.main, [str(dump), "--device_train_microbatch_size=1", f"--checkpoint={tmp_path / 'step1'}"]) == 0
    assert "cut into 4 micro-batches instead of the run's 2: losses are not compared" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "step1")
    assert run_command(replay.main, [str(dump)]) == 1
    assert "holds no checkpoint from before step 2; name one with --checkpoint" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- two ranks


def make_step(folder, world: World, policy: str, fused: bool) -> TrainStep:
    cfg = TrainConfig(model=model_config(), save_folder=str(folder), nonfinite=NonFiniteConfig(NonFinitePolicy(policy)), max_grad_norm=1.0)
    model = build.build_sharded_model(cfg, world)
    build.initialise_weights(cfg, model, world)
    optimizer = build_optimizer(cfg.optimizer, model, fused=fused)
    return TrainStep(cfg, model, optimizer, Scheduler(SchedulerConfig(), 100), world)


def one_rank_is_not_finite(world: World, folder, argument) -> None:
    for fused in (False, True):
        step = make_step(folder / f"skip{fused}", world, "skip", fused)
        assert step(batch_of(step, 1), 1).trouble is None
        before = {n: whole(t) for n, t in everything(step).items()}
        batch = batch_of(step, 20 + world.rank)
        result = step(poisoned(batch) if world.rank == 1 else batch, 2)
        assert "it came from rank 1, examples 21/0, 21/1;" in result.trouble
        after = {n: whole(t) for n, t in everything(step).items()}
        assert before.keys() == after.keys() and all(torch.equal(t, after[n]) for n, t in before.items())
        assert step(batch_of(step, 3), 3).trouble is None
        files = sorted(p.name for p in (folder / f"skip{fused}/bad_batches").iterdir())
        assert files == ["step2-rank0.json", "step2-rank1.json", "step2-rank1.pt"]
    step = make_step(folder / "stop", world, "stop", True)
    batch = batch_of(step, 20 + world.rank)
    with pytest.raises(TrainingDiverged, match="it came from rank 1, examples 21/0, 21/1;"):
        step(poisoned(batch) if world.rank == 1 else batch, 1)


@pytest.mark.slow
def test_fault_on_one_of_two_ranks_is_decided_by_both(tmp_path):
    """Sharded, with the optimiser of CPUs and the fused one of GPUs. Seen to fail (one rank updates) where each looks at its own loss."""
    run_ranks(2, one_rank_is_not_finite, tmp_path)


@pytest.mark.slow
def test_fault_on_one_rank_of_the_command(shapes, tmp_path, capsys):
    """Two ranks of the command; rank 1's batch is replayed by one process to the very numbers that it had among two."""
    done = two_ranks_with("huge_pixel", 2, 1, tmp_path, "--use_temporal_video_olmo", *RUN)
    assert done.returncode == 0, done.stderr
    assert [r["health/skipped_steps"] for r in records(tmp_path)] == [0, 1, 1]
    assert sorted(p.name for p in (tmp_path / "bad_batches").iterdir()) == ["step2-rank0.json", "step2-rank1.json", "step2-rank1.pt"]
    assert run_command(replay.main, [str(tmp_path / "bad_batches/step2-rank1.pt")]) == 0
    out = capsys.readouterr().out
    assert "step 2 of rank 1 (of 2)" in out and "the same loss terms as in the run, bit for bit" in out
    assert "micro-batch 2 of 2, forward: vision_backbone." in out
