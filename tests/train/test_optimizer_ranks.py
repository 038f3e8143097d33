"""Two gloo ranks: one reduction per step however many micro-batches, the fused optimiser on shards, adapters and averages."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from olmo.checkpoints import load_model, model_tensors, open_weights, select_checkpoint
from olmo.distributed import World, whole
from olmo.nn.lora import LoraConfig, is_adapter
from olmo.train import build
from olmo.train.callbacks.ema import ExponentialAverage
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import EmaConfig, FSDPConfig
from olmo.train.optim import OptimizerConfig, build_optimizer
from olmo.train.saving.checkpoint import load_optimizer, optimizer_tensors
from olmo.train.saving.folder import save_checkpoint
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainStep
from tests.train.ranks import ALONE, run_ranks
from tests.train.tiny_run import cut_rows, make_batch, model_config

pytestmark = pytest.mark.slow
FRAMES = [4, 2, 3, 1, 2, 0]
RATES = OptimizerConfig(**{f"{g}_learning_rate": 3e-3 for g in ("llm", "vit", "connector", "temporal_token_scorer")})


def make_step(folder, world: World, micro: int = 1, every: bool = False, fused: bool | None = None, **settings) -> TrainStep:
    cfg = TrainConfig(
        model=model_config("video_olmo"),
        save_folder=str(folder),
        device_train_microbatch_size=micro,
        optimizer=RATES,
        fsdp=FSDPConfig(reduce_every_microbatch=every),
        max_grad_norm=1.0,
        ft_embedding="all",
        **settings,
    )
    model = build.build_sharded_model(cfg, world)
    build.initialise_weights(cfg, model, world)
    warm = SchedulerConfig(llm_t_warmup=0, vit_t_warmup=0, connector_t_warmup=0)
    return TrainStep(cfg, model, build_optimizer(cfg.optimizer, model, fused=fused), Scheduler(warm, 100), world)


def train(step: TrainStep, count: int = 2, first: int = 1) -> list[dict]:
    records = []
    for number in range(first, first + count):
        batch, rows = make_batch(step.cfg.model, FRAMES, seed=number), len(FRAMES) // step.world.size
        part = cut_rows(batch, step.world.rank * rows, (step.world.rank + 1) * rows)
        records.append(step(part, number).metrics)
    return records


def gradients(step: TrainStep) -> dict[str, torch.Tensor]:
    return {n: whole(p.grad) for n, p in model_tensors(step.model).items() if p.grad is not None}


class Reductions(TorchDispatchMode):
    """Counts the collectives that sum shards of gradients."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "reduce_scatter" in str(func)
        return func(*args, **(kwargs or {}))


def reductions(step: TrainStep) -> int:
    with Reductions() as counter:
        train(step, 1)
    return counter.count


LORA = LoraConfig(targets=["llm", "vit"], rank=4, dropout=0.0, train_whole=["connector"])


def two_ranks(world: World, folder, argument):
    found = {}
    for name, settings in {"whole": dict(micro=3), "cut": dict(), "every": dict(every=True), "fused": dict(fused=True)}.items():
        step = make_step(folder, world, **settings)
        found[name] = {"reductions": reductions(step), "gradients": gradients(step)}
        found[name]["records"] = train(step, 1, first=2)
        found[name]["weights"] = {n: whole(p.detach()) for n, p in model_tensors(step.model).items()}
    # a fused state of shards goes on in a plain optimiser
    save_checkpoint(step.cfg, 2, step.model, step.optimizer, {"step": 2}, world)
    again = make_step(folder, world)
    build.load_weights(again.cfg, again.model, select_checkpoint(folder), world)
    load_optimizer(select_checkpoint(folder), again.optimizer)
    before, after = (optimizer_tensors(s.optimizer) for s in (step, again))
    assert before.keys() == after.keys() and all(torch.equal(whole(before[n]), whole(after[n])) for n in before)
    for a, b in zip(train(step, 1, first=3), train(again, 1, first=3), strict=True):
        assert a == pytest.approx(b, rel=1e-5)

    step = make_step(folder / "lora", world, lora=LORA)
    ema = ExponentialAverage(EmaConfig(decay=0.5, warmup=False), step.model)
    for number in (1, 2, 3):
        found[f"lora{number}"] = train(step, 1, first=number)
        ema.update(number)
    found["averages"] = {n: whole(t) for n, t in ema.tensors().items()}
    found["adapted"] = {n: whole(p.detach()) for n, p in model_tensors(step.model).items()}
    save_checkpoint(step.cfg, 3, step.model, step.optimizer, {"step": 3}, world, ema.tensors())
    again = make_step(folder / "lora", world, lora=LORA)
    build.load_weights(again.cfg, again.model, select_checkpoint(folder / "lora"), world)
    load_optimizer(select_checkpoint(folder / "lora"), again.optimizer)
    fresh = ExponentialAverage(EmaConfig(decay=0.5, warmup=False), again.model)
    fresh.load_tensors(select_checkpoint(folder / "lora"))
    assert all(torch.equal(whole(t), found["averages"][n]) for n, t in fresh.tensors().items())
    assert train(step, 1, first=4) == train(again, 1, first=4)
    if world.is_main:
        torch.save(found, folder / "found.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(2, two_ranks, folder)
    return folder


@pytest.fixture(scope="module")
def found(ranks):
    return torch.load(ranks / "found.pt", weights_only=True)


def test_gradients_of_micro_batches_are_reduced_once(found):
    """As many reductions as with one micro-batch, a third of those after every one.

    The tied embedding has one more: its two uses end their backward passes apart, and what has come together so far goes first.
    """
    assert found["cut"]["reductions"] == found["whole"]["reductions"] + 1 > 1
    assert found["every"]["reductions"] == 3 * found["whole"]["reductions"]


@pytest.mark.parametrize("name", ["cut", "every", "fused"])
def test_gradients_are_those_of_one_batch(found, name):
    """The reference holds one micro-batch of all rows."""
    assert found[name]["gradients"].keys() == found["whole"]["gradients"].keys()
    for what in ("gradients", "weights"):
        for key, value in found["whole"][what].items():
            torch.testing.assert_close(found[name][what][key], value, rtol=1e-3, atol=1e-5, msg=lambda m, n=key: f"{n}: {m}")


def test_adapters_train_as_in_one_process(found, tmp_path):
    step = make_step(tmp_path, ALONE, lora=LORA)
    for number in (1, 2, 3):
        for a, b in zip(train(step, 1, first=number), found[f"lora{number}"], strict=True):
            assert b == pytest.approx(a, rel=1e-4, abs=1e-6)
    for name, value in model_tensors(step.model).items():
        torch.testing.assert_close(found["adapted"][name], value.detach(), rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_adapters_of_two_ranks_are_merged(found, ranks):
    folder = select_checkpoint(ranks / "lora")
    plain = model_tensors(load_model(folder))
    name = "transformer.blocks.1.ff_out"
    base, a, b = (found["adapted"][f"{name}.{part}"] for part in ("weight", "lora.a", "lora.b"))
    torch.testing.assert_close(plain[f"{name}.weight"], base + LORA.scale * b @ a)
    assert b.abs().max() > 1e-3
    averaged = open_weights(folder, merge=False, averaged=True)
    trained = {n for n in averaged.shapes if is_adapter(n) or "image_pooling" in n or "projector" in n or "new_embedding" in n}
    assert {f"ema.{n}" for n in trained} == set(found["averages"])
    for n in trained:
        assert torch.equal(averaged.read(n), found["averages"][f"ema.{n}"]), n
