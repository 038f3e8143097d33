"""The whole model on ranks that share sequences, as threads: the parts of the loss add up to that of one process."""

import copy
from dataclasses import replace

import pytest
import torch

from olmo.exceptions import OLMoDataError
from tests.models.builders import Example, batch, model
from tests.models.in_threads import in_threads

HEADS = dict(n_heads=8, n_kv_heads=4)
STARTS = dict(image=dict(use_single_crop_start_token=True), video=dict(use_frame_special_tokens=True))
BATCHES = {
    "branches and padding": batch([Example(4, (4, 3), 1), Example(2, (5,), 2)], [Example(1, (6,), 3)], extra=1),
    "text": batch([Example(0, (6,), 3)], [Example(0, (2, 3, 4), 4)]),
    "shorter than the group": batch([Example(0, (1,), 3)]),
}


def parts(m, b, degree: int, pad_to: int | None = None) -> list:
    """Output of every rank."""

    def forward(context):
        own = copy.copy(m)
        own.context = context
        return own(b, compute_loss=True, pad_to=pad_to)

    return in_threads(degree, forward)


@pytest.mark.parametrize("mode", ["image_tokens", "within_image", None])
@pytest.mark.parametrize("name", BATCHES)
def test_the_parts_of_the_loss_add_up(name, mode):
    """Branches, padding, text alone and rows shorter than the group, under every rule of the mask."""
    m, b = model(bi_directional_attn=mode, llm=HEADS, mm_preprocessor=STARTS).double().train(), BATCHES[name]
    expected, found = m(b, compute_loss=True), parts(m, b, 4)
    assert all(out.tokens_after == expected.tokens_after and out.logits is None for out in found)
    terms = [sum(values) for values in zip(*(out.loss for out in found), strict=True)]
    for a, b in zip(terms, expected.loss, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    names, parameters = zip(*m.named_parameters(), strict=True)
    both = (torch.autograd.grad(loss[0] + loss[1], parameters, allow_unused=True) for loss in (terms, expected.loss))
    for name, a, b in zip(names, *both, strict=True):
        assert (a is None) == (b is None), name
        if b is not None:
            assert (a - b).abs().max() <= 1e-6 * max(1, b.abs().max()), name


def test_static_lengths_are_cut_evenly_too():
    m, b = model(llm=HEADS), BATCHES["text"]
    expected = m(b, compute_loss=True).loss
    found = parts(m, b, 4, pad_to=23)
    torch.testing.assert_close(sum(out.loss.ce for out in found), expected.ce)


def test_logits_and_answers_are_those_of_one_process():
    """Only a loss is shared: asking (evaluation while training) computes whole sequences on every rank."""
    m, b = model(llm=HEADS), BATCHES["branches and padding"]
    expected = m(b, logits="all").logits
    m.context = object()  # would fail if it were asked for anything
    assert torch.equal(m(b, logits="all").logits, expected)
    assert m.prefill(b, 2)[0].shape == (2, expected.shape[1])


def test_ranks_with_different_rows_stop():
    one, other = BATCHES["text"], BATCHES["branches and padding"]
    device = torch.device("cpu")
    in_threads(2, lambda context: context.check_same(one, device))
    longer = replace(one, layout=(replace(one.layout[0], num_pooled=1), *one.layout[1:]))
    for differs in (other, longer):
        with pytest.raises(OLMoDataError, match="have read different rows"):
            in_threads(2, lambda context, b=differs: context.check_same(b if context.rank else one, device))
