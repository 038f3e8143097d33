"""Chunked loss against the loss of all logits at once."""

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from olmo.nn.losses import linear_cross_entropy, naive_linear_cross_entropy


def problem(n: int, seed: int, bias: bool, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 12, generator=g, dtype=dtype).requires_grad_()
    weight = torch.randn(37, 12, generator=g, dtype=dtype).requires_grad_()
    b = torch.randn(37, generator=g, dtype=dtype).requires_grad_() if bias else None
    labels = torch.randint(-1, 37, (n,), generator=g)
    weights = torch.rand(n, generator=g) * 2 - 0.3  # some negative: they count as zero
    return (hidden, weight, labels, weights, b), [t for t in (hidden, weight, b) if t is not None]


@given(
    n=st.integers(0, 20), chunk=st.sampled_from([1, 3, 7, 64]), bias=st.booleans(), seed=st.integers(0, 10), z=st.sampled_from([0.0, 0.3])
)
def test_values_and_gradients_equal_the_naive_loss(n, chunk, bias, seed, z):
    """Seen to fail with the last chunk dropped, the factor 2 of z left out, and negative weights not clamped."""
    results = []
    for loss in (lambda *a: linear_cross_entropy(*a, chunk=chunk), naive_linear_cross_entropy):
        args, leaves = problem(n, seed, bias)
        terms = loss(*args)
        grads = torch.autograd.grad(1.7 * terms.ce + z * terms.z, leaves)
        results.append([t.detach().float() for t in (*terms, *grads)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)


@given(n=st.integers(0, 9), bias=st.booleans(), frozen=st.booleans())
def test_further_rows_equal_one_matrix(n, bias, frozen):
    """A vocabulary in two matrices against the joined one, values and gradients. Seen to fail with the second part's share of the
    gradient of the hidden states left out."""
    (hidden, weight, labels, weights, b), _ = problem(n, 4, bias)
    results = []
    for joined in (False, True):
        h, first, last = (
            hidden.detach().requires_grad_(),
            weight.detach()[:30].requires_grad_(),
            weight.detach()[30:].requires_grad_(not frozen),
        )
        matrix, extra = (torch.cat([first, last]), None) if joined else (first, last)
        own = None if b is None else b.detach() if joined else b.detach()[:30]
        if joined and own is not None:
            own = own.masked_fill(torch.arange(37) >= 30, 0)
        loss = naive_linear_cross_entropy if joined else (lambda *a: linear_cross_entropy(*a, chunk=4))
        terms = loss(h, matrix, labels, weights, own, extra)
        grads = torch.autograd.grad(terms.ce + 0.3 * terms.z, [h, first, *[last] * (not frozen)])
        results.append([t.detach().float() for t in (*terms, *grads)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)


class PeakBytes(TorchDispatchMode):
    """The most bytes that were alive at once among tensors made inside."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and (key := t.untyped_storage()._cdata) not in self.alive:
                self.alive.add(key)
                size = t.untyped_storage().nbytes()
                self.now, self.peak = self.now + size, max(self.peak, self.now + size)
                weakref.finalize(t.untyped_storage(), self.gone, key, size)
        return out

    def gone(self, key, size):
        self.alive.discard(key)
        self.now -= size


def test_peak_memory_is_that_of_a_chunk():
    """Forward and backward at a vocabulary much wider than the model: of logits, less than four chunks are ever alive at once,
    where the plain loss holds several of all rows. Seen to fail with a chunk as long as the sequence."""
    n, width, vocabulary, chunk = 512, 8, 4000, 32
    hidden, weight = torch.randn(n, width, requires_grad=True), torch.randn(vocabulary, width, requires_grad=True)
    labels, weights = torch.randint(0, vocabulary, (n,)), torch.ones(n)
    peaks = []
    for loss in (lambda *a: linear_cross_entropy(*a, chunk=chunk), naive_linear_cross_entropy):
        with PeakBytes() as memory:
            terms = loss(hidden, weight, labels, weights)
            torch.autograd.grad(terms.ce + terms.z, (hidden, weight))
        peaks.append(memory.peak)
    gradients = 4 * (hidden.numel() + 3 * weight.numel())
    print(f"peak of the chunked loss {peaks[0] / 2**20:.1f} MiB, of the plain one {peaks[1] / 2**20:.1f} MiB")
    assert peaks[0] <= 4 * 4 * chunk * vocabulary + gradients
    assert peaks[1] > 2 * 4 * n * vocabulary


def test_z_alone_and_frozen_head():
    """Each term has its own gradient, and a frozen matrix gets none. Seen to fail with grad_ce used for z."""
    (hidden, weight, labels, weights, _), _ = problem(9, 0, False)
    weight = weight.detach()
    actual = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels, weights, chunk=4).z, hidden)[0]
    expected = torch.autograd.grad(naive_linear_cross_entropy(hidden, weight, labels, weights).z, hidden)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_bf16_is_as_good_as_bf16_autograd():
    """Against fp64: no worse than autograd through bf16 logits. Seen to fail with the weight gradient summed up in bf16 over
    many chunks."""
    args, _ = problem(400, 3, False)
    (exact,) = torch.autograd.grad(naive_linear_cross_entropy(*args).ce, args[1])
    errors = []
    for loss in (lambda *a: linear_cross_entropy(*a, chunk=2), naive_linear_cross_entropy):
        low = [t.detach().bfloat16().requires_grad_() for t in args[:2]]
        (grad,) = torch.autograd.grad(loss(*low, *args[2:]).ce, low[1])
        errors.append((grad.double() - exact).norm() / exact.norm())
    assert errors[0] <= 1.1 * errors[1] and errors[0] < 0.02


def test_autocast_uses_the_low_precision_matrix():
    """Under autocast the matrix product runs in bf16 and gradients come back in fp32."""
    args, leaves = problem(6, 1, False, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = linear_cross_entropy(*args)
    grads = torch.autograd.grad(terms.ce, leaves)
    low = linear_cross_entropy(args[0].bfloat16(), args[1].bfloat16(), *args[2:])
    assert torch.equal(terms.ce, low.ce) and terms.ce.dtype == torch.float32
    assert all(g.dtype == torch.float32 for g in grads)


@pytest.mark.parametrize("n", [0, 5])
def test_memory_stays_below_one_matrix_of_logits(n):
    """Nothing of size n x V is saved for the backward pass. Seen to fail with the logits among the saved tensors."""
    args, _ = problem(n + 100, 0, False)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        linear_cross_entropy(*args, chunk=10)
    assert max(saved) < (n + 100) * 37
