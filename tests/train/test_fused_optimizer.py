"""The fused AdamW is the same optimiser: equal steps, and states that load both ways."""

import pytest
import torch

from olmo.checkpoints import model_tensors
from olmo.train.config import TrainConfig
from olmo.train.optim import OptimizerConfig, build_optimizer
from olmo.train.saving.checkpoint import load_optimizer, optimizer_tensors
from olmo.train.saving.folder import save_checkpoint
from tests.train.ranks import ALONE
from tests.train.tiny_run import model_config

RATES = OptimizerConfig(llm_weight_decay=0.1, llm_learning_rate=1e-2, vit_eps=1e-3, connector_betas=[0.5, 0.6])


def built(fused: bool):
    config = model_config()
    torch.manual_seed(0)
    model = config.build_model("cpu")
    model.reset_parameters()
    return model, build_optimizer(RATES, model, fused=fused)


def steps(model, optimizer, first: int, last: int) -> None:
    """Steps with gradients that depend on the number of the step alone."""
    for number in range(first, last):
        random = torch.Generator().manual_seed(number)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=random)
        optimizer.step()


def test_on_a_cpu_nothing_is_fused_unless_asked():
    model, optimizer = built(fused=True)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not any(group["fused"] for group in build_optimizer(RATES, model).param_groups)


@pytest.mark.parametrize("fused", [True, False])
def test_a_state_goes_on_in_the_other_kind(fused, tmp_path):
    """Three steps, saved, loaded into the other kind, three more: as six steps of one kind.

    Seen to fail (loading into the fused one) when the number of steps is no fp32 tensor.
    """
    whole_model, whole = built(fused)
    steps(whole_model, whole, 0, 6)
    model, optimizer = built(fused)
    steps(model, optimizer, 0, 3)
    cfg = TrainConfig(model=model.config, save_folder=str(tmp_path))
    folder = save_checkpoint(cfg, 3, model, optimizer, {"step": 3}, ALONE)
    other = build_optimizer(RATES, model, fused=not fused)
    load_optimizer(folder, other)
    before, after = optimizer_tensors(optimizer), optimizer_tensors(other)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    steps(model, other, 3, 6)
    for (name, p), q in zip(model_tensors(model).items(), model_tensors(whole_model).values(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6, msg=name)
