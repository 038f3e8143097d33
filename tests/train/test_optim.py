"""Parameter groups, weight decay, freezing and clipping on a model with the names that matter."""

import pytest
import torch
from torch import nn

from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import GROUPS
from olmo.train.optim import OptimizerConfig, build_optimizer, build_param_groups, clip_gradients, decays, freeze


class Toy(nn.Module):
    """One parameter per interesting name."""

    NAMES = {
        "llm": ("transformer.wte.embedding", "transformer.blocks.0.attn_norm.weight", "transformer.blocks.0.ff_out.weight",
                "transformer.ln_f.weight", "transformer.ff_out.weight"),
        "connector": ("vision_backbone.image_projector.w1.weight", "transformer.wte.new_embedding"),
        "vit": ("vision_backbone.image_vit.positional_embedding", "vision_backbone.image_vit.block.w1.weight"),
        "frame_selector": (),
        "temporal_token_scorer": ("vision_backbone.image_vit.temporal_token_scorer.mlp.w1.weight",),
    }  # fmt: skip

    def __init__(self):
        super().__init__()
        self.tensors = {n: nn.Parameter(torch.randn(3, 2)) for names in self.NAMES.values() for n in names}

    def named_parameters(self, *args, **kwargs):
        return iter(self.tensors.items())

    def parameter_groups(self):
        return {g: [(n, self.tensors[n]) for n in reversed(names)] for g, names in self.NAMES.items()}


def test_order_names_and_settings():
    cfg = OptimizerConfig(temporal_token_scorer_learning_rate=0.5, llm_weight_decay=0.1, llm_betas=[0.8, 0.9], vit_eps=1e-3)
    groups = build_param_groups(cfg, Toy().parameter_groups())
    assert [g["group_name"] for g in groups] == ["llm", "llm", "connector", "vit", "temporal_token_scorer"]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0, 0.0, 0.0, 0.0]
    assert groups[0]["param_names"] == ["transformer.blocks.0.ff_out.weight", "transformer.ff_out.weight"]
    assert groups[0]["betas"] == (0.8, 0.9)
    assert groups[3]["eps"] == 1e-3
    assert groups[4]["lr"] == 0.5
    for group in groups:
        assert group["param_names"] == sorted(group["param_names"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer.blocks.0.q_norm.weight", True),
        ("transformer.blocks.0.att_proj.bias", True),
        ("transformer.blocks.0.attn_norm.weight", False),
        ("vision_backbone.image_vit.patch_embedding.weight", False),
        ("transformer.wte.new_embedding", False),
    ],
)
def test_decay_by_name(name, expected):
    assert decays(name) is expected


def test_every_trainable_parameter_is_in_one_group():
    """A parameter that is forgotten or counted twice ends the start. Seen to fail without either assertion."""
    model = Toy()
    model.tensors["stray"] = nn.Parameter(torch.zeros(1))
    with pytest.raises(AssertionError, match="stray"):
        build_optimizer(OptimizerConfig(), model)
    groups = Toy().parameter_groups()
    groups["vit"] += groups["connector"]
    with pytest.raises(AssertionError, match="two parameter groups"):
        build_param_groups(OptimizerConfig(), groups)


@pytest.mark.parametrize(
    ("ft_embedding", "trained"),
    [
        ("all", {"wte.embedding", "ff_out.weight", "ln_f.weight"}),
        ("lm_head", {"ff_out.weight", "ln_f.weight"}),
        ("ln_f", {"ln_f.weight"}),
        ("wte", {"wte.embedding"}),
    ],
)
def test_ft_embedding(ft_embedding, trained):
    model = Toy()
    freeze(model, ft_llm=True, ft_vit=True, ft_connector=True, ft_embedding=ft_embedding)
    parts = ("wte.embedding", "ff_out.weight", "ln_f.weight")
    assert {p for p in parts if model.tensors[f"transformer.{p}"].requires_grad} == trained
    assert model.tensors["transformer.blocks.0.ff_out.weight"].requires_grad
    assert model.tensors["transformer.wte.new_embedding"].requires_grad


def test_freezing_groups():
    model = Toy()
    freeze(model, ft_llm=False, ft_vit=False, ft_connector=True, ft_embedding="all")
    optimizer = build_optimizer(OptimizerConfig(), model)
    assert [g["group_name"] for g in optimizer.param_groups] == ["connector", "temporal_token_scorer"]
    with pytest.raises(OLMoConfigurationError, match="ft_embedding must be one of"):
        freeze(model, ft_llm=True, ft_vit=True, ft_connector=True, ft_embedding="head")


def test_clipping_is_per_group_and_joins_the_halves():
    """Against torch's own clipping of each group's gradients together. Seen to fail when the two halves are clipped apart."""
    model = Toy()
    optimizer = build_optimizer(OptimizerConfig(llm_weight_decay=0.1), model)
    expected = {}
    for group, names in Toy.NAMES.items():
        params = [model.tensors[n] for n in names]
        for p in params:
            p.grad = torch.randn_like(p) * (100.0 if group in ("llm", "vit") else 0.01)
        if params:
            copies = [nn.Parameter(p.detach().clone()) for p in params]
            for copy, p in zip(copies, params, strict=True):
                copy.grad = p.grad.clone()
            norm = nn.utils.clip_grad_norm_(copies, 1.0)
            expected[group] = (norm, {n: c.grad for n, c in zip(names, copies, strict=True)})
    norms = clip_gradients(optimizer.param_groups, 1.0)
    assert set(norms) == set(GROUPS) - {"frame_selector"}
    for group, (norm, grads) in expected.items():
        torch.testing.assert_close(norms[group], norm)
        for name, grad in grads.items():
            torch.testing.assert_close(model.tensors[name].grad, grad)


def test_no_clipping_leaves_gradients_alone():
    model = Toy()
    optimizer = build_optimizer(OptimizerConfig(), model)
    for p in model.tensors.values():
        p.grad = torch.full_like(p, 7.0)
    norms = clip_gradients(optimizer.param_groups, None)
    assert all(float(p.grad.min()) == 7.0 for p in model.tensors.values())
    assert float(norms["temporal_token_scorer"]) == pytest.approx(7.0 * 6**0.5)


def test_betas_must_be_two():
    with pytest.raises(OLMoConfigurationError, match="optimizer.vit_betas must be two numbers"):
        build_param_groups(OptimizerConfig(vit_betas=[0.9]), Toy().parameter_groups())
