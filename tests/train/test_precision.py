"""Half precision in the training step."""

import dataclasses

import pytest
import torch

from olmo.train.config import TrainConfig
from olmo.train.optim import OptimizerConfig, build_optimizer
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainStep
from tests.train.ranks import ALONE
from tests.train.tiny_run import make_batch, model_config


def make_step(**settings) -> TrainStep:
    torch.manual_seed(0)
    cfg = TrainConfig(model=model_config(), device_train_microbatch_size=2, **settings)
    model = cfg.model.build_model("cpu")
    model.reset_parameters()
    return TrainStep(cfg, model, build_optimizer(OptimizerConfig(), model), Scheduler(SchedulerConfig(), 100), ALONE)


class CpuCalledCuda(str):
    """A device that tensors take for the CPU and the step for a GPU."""

    type = "cuda"


@pytest.mark.parametrize("precision", ["amp_bf16", "fp32"])
def test_half_precision_is_autocast(precision, monkeypatch):
    """With amp_bf16 on a GPU matrix products run in bf16 and nothing else changes type: weights, gradients and moments stay
    fp32, and the loss is that of fp32 up to rounding. Here autocast of the CPU stands in for that of a GPU.
    Seen to fail with autocast always off or always on, and with the model itself in bf16.
    """
    batch = make_batch(model_config(), [4, 2])
    exact = make_step()(batch, 1)
    autocast, seen = torch.autocast, set()
    monkeypatch.setattr(torch, "autocast", lambda kind, *args, **kwargs: autocast("cpu", *args, **kwargs))
    step = make_step(precision=precision)
    step.world = dataclasses.replace(ALONE, device=CpuCalledCuda("cpu"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # there is no GPU to copy to
    for module in step.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    result = step(batch, 1)
    assert seen - {torch.float32} == ({torch.bfloat16} if precision == "amp_bf16" else set())
    tensors = [*step.model.parameters(), *(p.grad for p in step.model.parameters() if p.grad is not None)]
    tensors += [t for state in step.optimizer.state.values() for t in state.values()]
    assert {t.dtype for t in tensors} == {torch.float32}
    for key in ("train/CrossEntropyLoss", "train/AuxLoss"):
        same = result.metrics[key] == exact.metrics[key]
        assert same is (precision == "fp32") and result.metrics[key] == pytest.approx(exact.metrics[key], rel=0.05)
