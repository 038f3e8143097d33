"""A step that is not finite changes nothing, says whose fault it was, and leaves its batch behind."""

import dataclasses
import errno
import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from olmo.checkpoints import model_tensors
from olmo.exceptions import OLMoCheckpointError
from olmo.train.bad_batches.dump import read_dump
from olmo.train.callbacks.ema import ExponentialAverage
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import EmaConfig, NonFiniteConfig, NonFinitePolicy
from olmo.train.optim import OptimizerConfig, build_optimizer, update_if
from olmo.train.saving.checkpoint import optimizer_tensors, random_state
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainingDiverged, TrainStep
from tests.train.ranks import ALONE
from tests.train.tiny_run import make_batch, model_config

RATES = {f"{group}_learning_rate": 1e-2 for group in ("llm", "vit", "connector", "temporal_token_scorer")}
WARM = SchedulerConfig(llm_t_warmup=0, vit_t_warmup=0, connector_t_warmup=0, temporal_token_scorer_t_warmup=0)


def make_step(folder: Path, policy: str = "skip", fused: bool = False) -> TrainStep:
    """Weight decay is on: it is part of what a skipped step leaves out."""
    torch.manual_seed(0)
    config = model_config("temporal_video_olmo", "llm.residual_dropout=0.1")
    model = config.build_model("cpu")
    model.reset_parameters()
    cfg = TrainConfig(
        model=config,
        save_folder=str(folder),
        device_train_microbatch_size=1,
        optimizer=OptimizerConfig(**RATES, llm_weight_decay=0.1),
        nonfinite=NonFiniteConfig(NonFinitePolicy(policy)),
        max_grad_norm=1.0,
    )
    return TrainStep(cfg, model, build_optimizer(cfg.optimizer, model, fused=fused), Scheduler(WARM, 100), ALONE)


def batch_of(step: TrainStep, seed: int):
    batch = make_batch(step.cfg.model, [2, 3], seed=seed)
    return dataclasses.replace(batch, metadata=[{"example_id": f"{seed}/{row}"} for row in range(2)])


def poisoned(batch):
    """The second row's loss weights are infinite."""
    weights = batch.loss_masks.clone()
    weights[1] *= math.inf
    return dataclasses.replace(batch, loss_masks=weights.nan_to_num(nan=0.0, posinf=math.inf))


def everything(step: TrainStep) -> dict[str, torch.Tensor]:
    weights = {n: p.detach().clone() for n, p in model_tensors(step.model).items()}
    return weights | {n: t.clone() for n, t in optimizer_tensors(step.optimizer).items()}


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def both_step(step: TrainStep, twin: TrainStep, number: int, state: torch.Tensor) -> None:
    """The same ordinary step of both, with the same dropout."""
    for s in (step, twin):
        torch.set_rng_state(state)
        assert s(batch_of(s, number), number).trouble is None


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_changes_nothing_but_the_count(fused, tmp_path):
    """Weights, moments and their counters stay bit for bit; what follows is as if that batch had not been there, with the learning
    rates of its own step.

    Seen to fail when the optimiser is called whatever the gradients are, and when it is called with gradients set to zero.
    """
    step, twin = make_step(tmp_path, fused=fused), make_step(tmp_path, fused=fused)
    state = random_state()["torch"]
    both_step(step, twin, 1, state)
    before = everything(step)
    result = step(poisoned(batch_of(step, 2)), 2)
    assert "step 2: train/CrossEntropyLoss is not finite" in result.trouble and "rank 0, examples 2/1;" in result.trouble
    assert_same(before, everything(step))
    rate = step.scheduler.learning_rate("llm", 1e-2, 2)
    assert result.metrics["optim/llm_lr"] == rate and rate != step.scheduler.learning_rate("llm", 1e-2, 1)
    both_step(step, twin, 3, state)
    assert_same(everything(twin), everything(step))
    assert not torch.equal(everything(step)["transformer.wte.embedding"], before["transformer.wte.embedding"])


def test_a_skipped_first_step_leaves_a_state_to_save(tmp_path):
    """Seen to fail when only an update makes the optimiser's state: such a checkpoint could not be continued."""
    step = make_step(tmp_path)
    step(poisoned(batch_of(step, 1)), 1)
    tensors = optimizer_tensors(step.optimizer)
    assert len(tensors) == 3 * sum(len(g["params"]) for g in step.optimizer.param_groups)
    assert not any(t.any() for t in tensors.values())


@pytest.mark.parametrize("fused", [False, True])
def test_whether_to_update_is_decided_on_the_device(fused):
    """The fused optimiser (that of GPUs) is called without the host reading the flag; the other one does read it."""
    with FakeTensorMode() as mode:
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([p], fused=fused)
        p.grad = torch.ones(3)
        flag = mode.from_tensor(torch.tensor(False))
        if fused:
            update_if(optimizer, flag)
        else:
            with pytest.raises(DataDependentOutputException):
                update_if(optimizer, flag)


def test_a_gradient_alone_can_be_the_trouble(tmp_path):
    """The loss is finite: nobody is named, and the batch is kept. Seen to fail when only the loss is looked at."""
    step = make_step(tmp_path)
    weight = step.model.transformer.ln_f.weight
    handle = weight.register_hook(lambda gradient: gradient * math.inf)
    before = everything(step)
    result = step(batch_of(step, 1), 1)
    assert result.trouble.startswith("step 1: optim/llm_grad_norm is not finite; the loss of every rank is finite")
    assert math.isfinite(result.metrics["train/CrossEntropyLoss"])
    after = everything(step)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert read_dump(tmp_path / "bad_batches/step1-rank0.pt").not_finite == ["optim/llm_grad_norm"]
    handle.remove()
    assert step(batch_of(step, 2), 2).trouble is None


def test_stop_names_the_step_and_the_examples(tmp_path):
    step = make_step(tmp_path, "stop")
    before = {n: p.detach().clone() for n, p in model_tensors(step.model).items()}
    with pytest.raises(TrainingDiverged, match=r"step 5: .*rank 0, examples 5/1; the batch is in .*bad_batches.*replay_batch\.py"):
        step(poisoned(batch_of(step, 5)), 5)
    assert_same(before, {n: p.detach() for n, p in model_tensors(step.model).items()})


def test_what_is_kept_of_the_batch(tmp_path):
    """The rows themselves, the random state before the step, and a summary without words that JSON does not know."""
    step = make_step(tmp_path)
    batch, state = poisoned(batch_of(step, 4)), random_state()
    step(batch, 4)
    found = read_dump(tmp_path / "bad_batches/step4-rank0.pt")
    assert (found.step, found.rank, found.world_size, found.ids) == (4, 0, 1, [["4/0"], ["4/1"]])
    for name in batch.TENSORS:
        ours, theirs = getattr(batch, name), getattr(found.batch, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs), name
    assert found.batch.layout == batch.layout
    assert torch.equal(found.random["torch"], state["torch"]) and not torch.equal(state["torch"], torch.get_rng_state())
    assert TrainConfig.from_dict(found.config).asdict() == step.cfg.asdict()
    summary = json.loads((tmp_path / "bad_batches/step4-rank0.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert [part["finite"] for part in summary["micro_batches"]] == [True, False]
    assert summary["micro_batches"][1]["rows"] == [["4/1"]] and summary["micro_batches"][1]["ce"] == "inf"
    assert not list(tmp_path.rglob("*-tmp"))


def test_fault_a_full_disk_does_not_hide_the_error(tmp_path, monkeypatch, caplog):
    """Seen to fail when a failure to write is raised."""

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    step = make_step(tmp_path, "stop")
    with caplog.at_level(logging.WARNING), pytest.raises(TrainingDiverged, match="step 1: train/CrossEntropyLoss is not finite"):
        step(poisoned(batch_of(step, 1)), 1)
    assert caplog.text.count("No space left on device") == 2
    assert not list((tmp_path / "bad_batches").iterdir())


def test_what_is_no_dump_is_refused(tmp_path):
    torch.save({"step": 1}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("nothing")
    for name, message in (("other.pt", "no batch that a training run dumped"), ("text.pt", "cannot be read"), ("none.pt", "there is no")):
        with pytest.raises(OLMoCheckpointError, match=message):
            read_dump(tmp_path / name)


def test_the_running_average_leaves_skipped_steps_out():
    """Seen to fail without the check: the average moves towards weights that did not move."""
    model = torch.nn.Linear(2, 2)
    average = ExponentialAverage(EmaConfig(), model)
    with torch.no_grad():
        model.weight.add_(1.0)
    before = average.averages["weight"].clone()
    trainer = SimpleNamespace(state=SimpleNamespace(step=5))
    average.on_step(trainer, SimpleNamespace(trouble="step 5: ..."), {})
    assert torch.equal(before, average.averages["weight"])
    average.on_step(trainer, SimpleNamespace(trouble=None), {})
    assert not torch.equal(before, average.averages["weight"])
