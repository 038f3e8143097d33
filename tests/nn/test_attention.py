"""Attention against a formula written out with a softmax, and every segment backend against a block-diagonal mask.

Seen to fail with: the kernel's default scale (that of the padded width), the bias multiplied instead of divided by the
scale, the remainder channel left out in bf16, segments shifted by one token.
"""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError
from olmo.nn import segment_backends
from olmo.nn.attention import Segments, append_key_bias, attend, attend_segments
from olmo.nn.segment_backends import SEGMENT_BACKENDS, Backend, Request

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


def test_a_kernel_that_cannot_be_told_the_scale(monkeypatch):
    """That of torch 2.10 divides by the square root of the width it sees, which the channels of a key bias make larger."""

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
        owner = Segments(cu_seq_q, len(query), max_q).owner()
        return softmax_attention(*(x.transpose(0, 1)[None] for x in (query, key, value)), mask=owner[:, None] == owner)[0].transpose(0, 1)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    segment_backends._varlen_arguments.cache_clear()
    try:
        kernel = segment_backends.SEGMENT_BACKENDS["torch_varlen"]
        assert kernel.obstacle(request("cuda", torch.bfloat16)) is None
        assert kernel.obstacle(request("cuda", torch.bfloat16, gqa=True)) == "this torch's varlen_attn has no argument enable_gqa"
        q, k, v = random_qkv(9, 2, 12)
        q, k, v = append_key_bias(q, k, v, torch.randn(9)[:, None, None], 12**-0.5)
        out, wanted = (SEGMENT_BACKENDS[name].run(q, k, v, segments_of([4, 5]), 12**-0.5) for name in ("torch_varlen", "dense"))
        torch.testing.assert_close(out, wanted)
    finally:
        segment_backends._varlen_arguments.cache_clear()


def request(device="cpu", dtype=torch.float32, gqa=False, head_dim=72, gradient=True, tiny=False) -> Request:
    return Request(device, dtype, gqa, head_dim, gradient, tiny)


DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
SHAPES = {
    "plain": dict(lengths=(40, 33, 57), kv=4, biased=False),
    "bias and empty segments": dict(lengths=(0, 40, 0, 21, 0), kv=4, biased=True),
    "groups and tiny segments": dict(lengths=(3, 0, 5, 1), kv=2, biased=True),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_every_backend_equals_the_formula(shape, dtype, device):
    """Heads of 72 channels (80 with the bias), keys and values that are not contiguous, forward and backward where there is
    one, against fp64. Seen to fail with the owner of a token looked up with right=False, which moves every border by one."""
    lengths, kv, biased = (SHAPES[shape][name] for name in ("lengths", "kv", "biased"))
    g = torch.Generator().manual_seed(5)
    fused = torch.randn(sum(lengths), 4 + 2 * kv, 72, generator=g).to(device, dtype)
    exact = [t.double().requires_grad_() for t in fused.split((4, kv, kv), dim=1)]
    bias = -2 * torch.rand(sum(lengths), generator=g).to(device)
    exact_bias = bias.double().requires_grad_()
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
    heads_first = (x.transpose(0, 1)[None] for x in exact)
    wanted = softmax_attention(*heads_first, bias=exact_bias if biased else None, mask=owner[:, None] == owner)[0].transpose(0, 1)
    weights = torch.randn(wanted.shape, generator=g).to(device)
    wanted_grads = torch.autograd.grad((wanted * weights).sum(), [*exact, *[exact_bias] * biased])
    limit, ran = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype], []
    for name, backend in SEGMENT_BACKENDS.items():
        gradient = backend.obstacle(request(device, dtype, kv < 4, 80 if biased else 72)) is None
        if reason := backend.obstacle(request(device, dtype, kv < 4, 80 if biased else 72, gradient)):
            print(f"{name}: {reason}")
            continue
        # strides of a transposed tensor; without a backward pass nothing asks for one
        leaves = [t.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_(gradient) for t in fused.split((4, kv, kv), dim=1)]
        leaves += [bias.clone().requires_grad_(gradient)] * biased
        ends = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
        with torch.set_grad_enabled(gradient):
            segments = Segments(ends, sum(lengths), max(lengths))
            out = attend_segments(*leaves[:3], segments, key_bias=leaves[3] if biased else None, backend=name)
        assert out.shape == wanted.shape and out.dtype == dtype
        differences = [(out - wanted).abs().max().item()]
        if gradient:
            grads = torch.autograd.grad((out.double() * weights).sum(), leaves)
            # relative to the largest: in bf16 a gradient is as good as its largest term
            differences += [((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in zip(grads, wanted_grads, strict=True)]
        print(f"{name} on {device}, {dtype}, {shape}: largest differences (out, q, k, v, bias) {[f'{d:.1e}' for d in differences]}")
        assert max(differences) <= limit, (name, differences)
        ran.append(name)
    assert {"split", "padded", "dense"} <= set(ran)


def chosen(monkeypatch, table: dict[str, Backend], **kwargs) -> str:
    monkeypatch.setattr(segment_backends, "SEGMENT_BACKENDS", table)
    segment_backends._choose.cache_clear()
    return segment_backends._choose("auto", request(**kwargs))


def test_auto_goes_through_the_declarations(monkeypatch, caplog):
    """With every package there, and with none. Seen to fail with `split` allowed for tiny segments."""
    from dataclasses import replace

    complete = {n: replace(b, missing=lambda r: None) for n, b in SEGMENT_BACKENDS.items()}
    bare = complete | {n: replace(complete[n], missing=lambda r: "not here") for n in ("torch_varlen", "flash_attn")}
    half = dict(device="cuda", dtype=torch.bfloat16)
    assert chosen(monkeypatch, complete, **half) == chosen(monkeypatch, complete, **half, head_dim=80) == "torch_varlen"
    assert chosen(monkeypatch, complete | {"torch_varlen": bare["torch_varlen"]}, **half) == "flash_attn"
    assert chosen(monkeypatch, bare, **half) == "padded"
    assert chosen(monkeypatch, complete, **half, head_dim=12) == "padded"  # no multiple of 8
    assert chosen(monkeypatch, complete, device="cuda") == "padded"  # the kernels are for half precision
    assert chosen(monkeypatch, complete) == "split" and chosen(monkeypatch, complete, tiny=True) == "padded"
    assert chosen(monkeypatch, complete, device="meta") == "padded"
    for name, backend in complete.items():  # nothing that waits for the device is ever picked for it
        assert not (backend.host_sync and backend.auto(request(**half))), name
    segment_backends._tell.cache_clear()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for gradient in (True, False):
            chosen(monkeypatch, complete, gradient=gradient)
    assert [r.message for r in caplog.records] == ["attention of pruned frames: split (cpu, float32)"]
    segment_backends._choose.cache_clear()


@pytest.mark.parametrize(
    ("backend", "head_dim", "reason"),
    [
        ("fast", 16, "unknown attention backend 'fast'; known: auto, torch_varlen"),
        ("torch_varlen", 16, "'torch_varlen' cannot be used: it runs on cuda, not on cpu"),
        ("flex", 8, "'flex' cannot be used: it takes heads of 16 to 256 channels"),
        ("flex", 16, "'flex' cannot be used: it has no backward pass on cpu"),
    ],
)
def test_a_backend_that_cannot_run_says_why(backend, head_dim, reason):
    q = torch.zeros(2, 1, head_dim, requires_grad=True)
    with pytest.raises(OLMoConfigurationError, match=reason):
        attend_segments(q, q, q, segments_of((2,)), backend=backend)


@pytest.mark.parametrize("backend", ["padded", "dense", "split", "flex"])
def test_compiled_graphs_hold_what_they_declare(backend):
    """One whole graph with those that say so, and a break with the others. Seen to fail with `split` declared as the former."""
    torch._dynamo.reset()
    q = torch.randn(9, 2, 16)
    segments = segments_of((4, 5))

    def call(q):
        return attend_segments(q * 2, q, q, segments, backend=backend) + 1

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    if SEGMENT_BACKENDS[backend].compiles:
        torch.testing.assert_close(compiled(q), call(q))
    else:
        with pytest.raises(torch._dynamo.exc.Unsupported):
            compiled(q)
    torch._dynamo.reset()
