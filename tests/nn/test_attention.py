"""Attention against a formula written out with a softmax, and every segment backend against a block-diagonal mask.

Seen to fail with: the kernel's default scale (that of the padded width), the bias multiplied instead of divided by the
scale, the remainder channel left out in bf16, segments shifted by one token.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.attention import Segments, attend, attend_segments

torch.manual_seed(0)


def softmax_attention(q, k, v, bias=None, mask=None, scale=None):
    """The formula, in the inputs' precision: q [B, H, S, hd]; bias broadcasts to the logits."""
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    logits = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1) @ v


def segments_of(lengths) -> Segments:
    """Segments whose lengths the host knows."""
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    return Segments(ends, sum(lengths), max(lengths), tuple(lengths))


def random_qkv(*shape, kv=None, dtype=torch.float32, heads_at=1):
    q = torch.randn(*shape, dtype=torch.float64)
    kv_shape = list(shape)
    kv_shape[heads_at] = kv or shape[heads_at]
    return [x.to(dtype).requires_grad_() for x in (q, *torch.randn(2, *kv_shape, dtype=torch.float64))]


@pytest.mark.parametrize("kv", [4, 2])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attend_equals_formula(kv, scale):
    q, k, v = random_qkv(2, 4, 7, 24, kv=kv)
    mask = torch.rand(2, 1, 7, 7) < 0.7
    mask |= torch.eye(7, dtype=torch.bool)
    torch.testing.assert_close(
        attend(q, k, v, mask=mask, scale=scale), softmax_attention(q, k, v, mask=mask, scale=scale), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("head_dim", [72, 16])
def test_key_bias_equals_dense_bias(dtype, tolerance, head_dim):
    """Values, and the gradient of the bias within 1 %: its only use is to carry the task's loss to the scorer."""
    torch.manual_seed(1)
    q, k, v = random_qkv(2, 4, 40, head_dim, kv=2, dtype=dtype)
    bias = (-2 * torch.rand(2, 40)).requires_grad_()
    out = attend(q, k, v, key_bias=bias)
    exact_bias = bias.detach().double().requires_grad_()
    exact = softmax_attention(q.double(), k.double(), v.double(), bias=exact_bias[:, None, None])
    assert out.dtype == dtype and out.shape == exact.shape
    assert (out.double() - exact).abs().max() <= tolerance
    weights = torch.randn_like(exact)
    (out.double() * weights).sum().backward()
    (exact * weights).sum().backward()
    assert (bias.grad - exact_bias.grad).norm() <= 0.01 * exact_bias.grad.norm()


def test_key_bias_is_split_in_half_precision():
    """One bf16 channel alone would move a logit by up to 7e-3; the two together stay within 1e-4."""
    from olmo.nn.attention import append_key_bias

    bias = -2 * torch.rand(500)
    q, k, v = torch.zeros(3, 500, 1, 72, dtype=torch.bfloat16)
    q, k, v = append_key_bias(q, k, v, bias[:, None, None], 72**-0.5)
    assert q.shape[-1] == k.shape[-1] == v.shape[-1] == 80
    logits = (q.double() * k.double()).sum(-1)[:, 0] * 72**-0.5
    assert (logits - bias).abs().max() < 1e-4


LENGTHS = [(3, 0, 5, 1), (4,), (0, 0, 2), (7, 7, 7), (1, 40)]


@pytest.mark.parametrize("backend", ["split", "padded", "auto"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("biased", [False, True])
def test_segments_equal_block_mask(backend, lengths, biased):
    """Values and gradients of every backend that runs here; lengths come from the device as well as from the host."""
    total = sum(lengths)
    known = segments_of(lengths)
    unknown = Segments(known.cu_seqlens, total, 41)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = owner[:, None] == owner[None]
    q, k, v = random_qkv(total, 4, 16, kv=2)
    bias = torch.randn(total, requires_grad=True)
    weights = torch.randn(total, 4, 16)
    inputs = [q, k, v] + [bias] * biased

    dense = softmax_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), bias=bias if biased else None, mask=mask)[0].transpose(0, 1)
    expected = torch.autograd.grad((dense * weights).sum(), inputs)
    for segments in (known, unknown):
        out = attend_segments(q, k, v, segments, key_bias=bias if biased else None, backend=backend)
        torch.testing.assert_close(out, dense, atol=2e-6, rtol=1e-5)
        for actual, wanted in zip(torch.autograd.grad((out * weights).sum(), inputs), expected, strict=True):
            torch.testing.assert_close(actual, wanted, atol=5e-6, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 2**31))
def test_split_equals_padded(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, sum(lengths), 2, 8, generator=generator)
    segments = segments_of(lengths)
    torch.testing.assert_close(
        attend_segments(q, k, v, segments, backend="split"), attend_segments(q, k, v, segments, backend="padded"), atol=2e-6, rtol=1e-5
    )


def test_lengths_are_read_once():
    segments = Segments(torch.tensor([0, 2, 5], dtype=torch.int32), 5, 3)
    assert segments.host_lengths() == (2, 3)
    segments.cu_seqlens = None
    assert segments.host_lengths() == (2, 3)


def test_unknown_backend():
    q = torch.zeros(2, 1, 8)
    with pytest.raises(OLMoConfigurationError, match="unknown attention backend 'fast'"):
        attend_segments(q, q, q, segments_of((2,)), backend="fast")
