"""Next-token loss computed straight from the hidden states, chunk by chunk, so that the [n, V] logits never exist at once.

A vocabulary of 150k entries makes fp32 logits of a long sequence the largest tensor of the whole step; here only one
chunk of rows is alive at a time, in the forward pass and again in the backward pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


class LossTerms(NamedTuple):
    """Weighted sums over tokens (0-d, in `sum_dtype`); whoever knows the global batch divides by the global weight."""

    ce: torch.Tensor
    """Sum of weight * cross entropy."""
    z: torch.Tensor
    """Sum of weight * logsumexp(logits)^2, to be scaled by the z-loss coefficient."""
    correct: torch.Tensor
    """Sum of weight * (argmax == label)."""
    weight: torch.Tensor
    """Sum of weights."""


def sum_dtype(tensor: torch.Tensor) -> torch.dtype:
    """What logits of a model in that type are held and summed in: fp32, of a model in fp64 fp64."""
    return torch.promote_types(tensor.dtype, torch.float32)


class ChunkFunctions(NamedTuple):
    """The two functions that touch logits. They are pure and take any number of rows, so they can be compiled, which fuses what
    follows the product; the loop over chunks and the sums stay outside, so that its length is not part of any graph."""

    terms: Callable
    gradient: Callable


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None = None,
    extra: torch.Tensor | None = None,
    chunk: int = 1024,
    functions: ChunkFunctions | None = None,
) -> LossTerms:
    """Loss of logits = hidden [n, d] @ weight [V, d]^T (+ bias [V]) against labels [n] (-1 = ignored) with weights [n].

    `extra` [V', d]: further rows of the matrix, as in `linear_logits`. Gradients are exact for any combination of `ce` and
    `z`; a weight below zero counts as zero. `functions`: compiled versions of the two functions of a chunk; None = as they stand.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        extra = None if extra is None else extra.to(dtype)
    weights = weights.to(sum_dtype(hidden)).clamp(min=0.0).masked_fill(labels < 0, 0.0)
    ce, z, correct = _LinearCrossEntropy.apply(hidden, weight, bias, extra, labels.clamp(min=0), weights, chunk, functions or EAGER)
    return LossTerms(ce, z, correct, weights.sum())


def naive_linear_cross_entropy(hidden, weight, labels, weights, bias=None, extra=None) -> LossTerms:
    """The same with all logits at once and plain autograd: the oracle, and the readable definition."""
    logits = linear_logits(hidden, weight, bias, extra)
    weights = weights.to(logits.dtype).clamp(min=0.0).masked_fill(labels < 0, 0.0)
    labels = labels.clamp(min=0)
    ce = F.cross_entropy(logits, labels, reduction="none")
    z = logits.logsumexp(-1) ** 2
    correct = (logits.argmax(-1) == labels).to(logits.dtype)
    return LossTerms((ce * weights).sum(), (z * weights).sum(), (correct * weights).sum(), weights.sum())


def linear_logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, extra: torch.Tensor | None = None
) -> torch.Tensor:
    """[n, V + V'] in `sum_dtype`: hidden [n, d] times weight [V, d] (with its bias), then times extra [V', d].

    Two products joined: joining the matrices would copy the vocabulary for every token that is decoded.
    """
    logits = F.linear(hidden, weight, None if bias is None else bias.to(hidden.dtype))
    if extra is not None:
        logits = torch.cat([logits, F.linear(hidden, extra)], dim=1)
    return logits.to(sum_dtype(logits))


def chunk_terms(hidden, weight, bias, extra, labels, weights):
    """(logsumexp [c], ce, z, correct) of the rows of one chunk."""
    logits = linear_logits(hidden, weight, bias, extra)
    lse = logits.logsumexp(-1)
    target = logits.gather(1, labels[:, None]).squeeze(1)
    correct = (logits.argmax(-1) == labels) * weights
    return lse, ((lse - target) * weights).sum(), (lse**2 * weights).sum(), correct.sum()


def chunk_gradient(hidden, weight, bias, extra, labels, weights, lse, grad_ce, grad_z):
    """(gradient of the chunk's logits [c, V + V'] in the dtype of `hidden`, that of the bias [V] in `sum_dtype` or None)."""
    # d lse / d logits = p, so d ce = p - onehot and d z = 2 * lse * p
    grad = linear_logits(hidden, weight, bias, extra).sub_(lse[:, None]).exp_()
    grad *= (weights * (grad_ce + 2 * grad_z * lse))[:, None]
    grad.scatter_add_(1, labels[:, None], -(weights * grad_ce)[:, None])
    return grad.to(hidden.dtype), None if bias is None else grad[:, : weight.shape[0]].sum(0)


EAGER = ChunkFunctions(chunk_terms, chunk_gradient)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, extra, labels, weights, chunk, functions):
        lse = hidden.new_zeros(hidden.shape[0], dtype=sum_dtype(hidden))
        sums = [hidden.new_zeros((), dtype=sum_dtype(hidden)) for _ in range(3)]
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            lse[rows], *terms = functions.terms(hidden[rows], weight, bias, extra, labels[rows], weights[rows])
            sums = [total + term for total, term in zip(sums, terms, strict=True)]
        ce, z, correct = sums
        ctx.save_for_backward(hidden, weight, bias, extra, labels, weights, lse)
        ctx.chunk, ctx.functions = chunk, functions
        ctx.mark_non_differentiable(correct)
        return ce, z, correct

    @staticmethod
    def backward(ctx, grad_ce, grad_z, _):
        hidden, weight, bias, extra, labels, weights, lse = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        # summed up over the chunks
        grad_weight, grad_bias, grad_extra = (
            torch.zeros_like(t, dtype=sum_dtype(t)) if needed else None
            for t, needed in zip((weight, bias, extra), ctx.needs_input_grad[1:4], strict=True)
        )
        size = weight.shape[0]
        for start in range(0, hidden.shape[0], ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            chunk = (hidden[rows], weight, bias, extra, labels[rows], weights[rows], lse[rows], grad_ce, grad_z)
            grad, of_bias = ctx.functions.gradient(*chunk)
            if grad_bias is not None:
                grad_bias += of_bias
            grad_hidden[rows] = grad[:, :size] @ weight
            if extra is not None:
                grad_hidden[rows] += grad[:, size:] @ extra
            if grad_weight is not None:
                grad_weight += grad[:, :size].T @ hidden[rows]
            if grad_extra is not None:
                grad_extra += grad[:, size:].T @ hidden[rows]
        grads = (None if g is None else g.to(t.dtype) for g, t in ((grad_weight, weight), (grad_bias, bias), (grad_extra, extra)))
        return grad_hidden, *grads, None, None, None, None
