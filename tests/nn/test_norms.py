"""Norms against formulas and torch. Seen to fail with the weight applied before the cast back."""

import pytest
import torch

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.norms import build_norm


def test_rms_equals_formula():
    torch.manual_seed(0)
    norm = build_norm("rms", 8, 1e-6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 8)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)


def test_rms_rounds_before_the_weight():
    """In bf16 the normalised value is rounded first and scaled afterwards, as checkpoints were trained."""
    torch.manual_seed(0)
    norm = build_norm("rms", 64, 1e-6).bfloat16()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(50, 64).bfloat16()
    wide = x.float()
    rounded = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).bfloat16()
    assert torch.equal(norm(x), rounded * norm.weight)


def test_rms_ignores_autocast():
    norm, x = build_norm("rms", 16, 1e-6), torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("kind", ["default", "low_precision"])
def test_layer_norm_equals_torch(kind):
    norm, x = build_norm(kind, 16, 1e-5, bias=True), torch.randn(4, 16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(x), torch.nn.functional.layer_norm(x, (16,), norm.weight, norm.bias, 1e-5))


def test_layer_norm_dtypes_under_autocast():
    x = torch.randn(4, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert build_norm("low_precision", 16, 1e-5)(x).dtype == torch.bfloat16


def test_parameters_follow_affine_and_bias():
    assert not list(build_norm("rms", 4, 1e-5, affine=False).parameters())
    assert [n for n, _ in build_norm("rms", 4, 1e-5, bias=False).named_parameters()] == ["weight"]
    assert [n for n, _ in build_norm("default", 4, 1e-5, bias=True).named_parameters()] == ["weight", "bias"]


def test_reset_after_meta():
    with torch.device("meta"):
        norm = build_norm("default", 4, 1e-5, bias=True)
    norm = norm.to_empty(device="cpu")
    norm.reset_parameters()
    assert torch.equal(norm.weight, torch.ones(4)) and torch.equal(norm.bias, torch.zeros(4))


def test_unknown_kind():
    with pytest.raises(OLMoConfigurationError, match="layer_norm_type 'batch' is unknown"):
        build_norm("batch", 4, 1e-5)
