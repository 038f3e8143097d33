"""Rotary embedding against complex rotation and transformers' frequency rules."""

import math

import pytest
import torch

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.rope import RopeSettings, RopeTables, RopeType, apply_rope, inverse_frequencies, rope_tables

OLMO3 = RopeSettings(
    128, 5e5, RopeType.yarn, factor=8.0, original_max_positions=8192, attention_factor=1.2079441541679836, beta_fast=32, beta_slow=1
)


def test_rotation_is_multiplication_by_a_complex_number():
    """Oracle: dimension pairs (j, j + hd/2) as complex numbers. Seen to fail with pairs (2j, 2j + 1) and with sin negated."""
    settings = RopeSettings(16, 1e4)
    positions = torch.tensor([[0, 1, 7, 30000]])
    x = torch.randn(1, 2, 4, 16, dtype=torch.float64)
    frequencies = 1e4 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    turn = torch.polar(torch.ones(4, 8, dtype=torch.float64), positions[0, :, None] * frequencies)
    expected = torch.complex(x[..., :8], x[..., 8:]) * turn
    actual = apply_rope(x.float(), rope_tables(settings, positions))
    torch.testing.assert_close(actual, torch.cat([expected.real, expected.imag], -1).float(), atol=2e-2, rtol=0)
    torch.testing.assert_close(actual[:, :, :3], torch.cat([expected.real, expected.imag], -1).float()[:, :, :3], atol=1e-5, rtol=0)


def test_relative_positions_only():
    """Scores depend on the distance. Seen to fail with one sin negated."""
    q, k = torch.randn(2, 1, 1, 1, 128)
    scores = []
    for shift in (0, 5, 11):
        turned = [apply_rope(t, rope_tables(OLMO3, torch.tensor([[p + shift]]))) for t, p in ((q, 9), (k, 2))]
        scores.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(torch.stack(scores), scores[0].expand(3), atol=1e-4, rtol=1e-4)


def test_padding_and_precision():
    """Padding (-1) is finite; without full precision the rotation runs in the dtype of x. Seen to fail with -1 used as it is."""
    tables = rope_tables(RopeSettings(8, 1e4), torch.tensor([[3, -1]]))
    assert torch.equal(tables.cos[0, 0, 1], torch.ones(8)) and torch.equal(tables.sin[0, 0, 1], torch.zeros(8))
    x = torch.randn(1, 1, 2, 8).bfloat16()
    full = apply_rope(x, tables)
    exact = apply_rope(x.float(), tables)
    low = apply_rope(x, RopeTables(tables.cos, tables.sin), full_precision=False)
    assert full.dtype == low.dtype == torch.bfloat16
    assert torch.equal(full, exact.bfloat16()) and not torch.equal(full, low)


def test_olmo3_yarn_numbers():
    """Published facts: dimensions up to 18 unscaled, from 35 divided by 8, a ramp between; default attention factor."""
    scaled, amplitude = inverse_frequencies(OLMO3)
    plain, one = inverse_frequencies(RopeSettings(128, 5e5))
    ratio = plain / scaled
    assert amplitude == 1.2079441541679836 and one == 1.0
    torch.testing.assert_close(ratio[:19], torch.ones(19))
    torch.testing.assert_close(ratio[35:], torch.full((29,), 8.0))
    assert (ratio[18:36].diff() > 0).all()
    derived = inverse_frequencies(RopeSettings(128, 5e5, RopeType.yarn, factor=8.0, original_max_positions=8192))[1]
    assert derived == pytest.approx(0.1 * math.log(8) + 1)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_frequencies_equal_those_of_transformers(kind, truncate):
    """Oracle: transformers' rope initialisation. Seen to fail with low and high factors swapped, and with the ramp reversed."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    own = dict(factor=4.0, original_max_positions=256)
    theirs = dict(rope_type=kind, rope_theta=1e4, factor=4.0, original_max_position_embeddings=256)
    if kind == "llama3":
        own |= dict(low_freq_factor=1.0, high_freq_factor=4.0)
        theirs |= dict(low_freq_factor=1.0, high_freq_factor=4.0)
    else:
        own |= dict(beta_fast=16.0, beta_slow=2.0, truncate=truncate)
        theirs |= dict(beta_fast=16.0, beta_slow=2.0, truncate=truncate)
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, head_dim=64, max_position_embeddings=1024, rope_parameters=theirs)
    expected, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    actual, amplitude = inverse_frequencies(RopeSettings(64, 1e4, RopeType(kind), **own))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    assert amplitude == pytest.approx(factor)


@pytest.mark.parametrize("kind", [RopeType.llama3, RopeType.yarn])
def test_missing_numbers_are_named(kind):
    with pytest.raises(OLMoConfigurationError, match="llm.rope_factor"):
        inverse_frequencies(RopeSettings(64, 1e4, kind))
