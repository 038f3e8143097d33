"""Examples packed in one row, or batched in rows, against the same examples alone; pruning switched off against Molmo2."""

import weakref
from dataclasses import replace

import pytest
import torch

from olmo.batch import Batch
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from tests.models.builders import Example, batch, config, model

EXAMPLES = [Example(4, (4, 3), 1), Example(0, (5,), 2), Example(3, (5,), 3), Example(2, (2, 2, 2), 4)]
PACKINGS = {
    "varlen": dict(packing="varlen"),
    "first_fit": dict(packing="first_fit", refill_lone_frames=False, topk=0.3),
    "tome": dict(prune_method="tome"),
    "unpruned": dict(prune=False),
}


def logits_and_gradients(m, *batches: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of all tokens in order, and the gradient of the summed loss."""
    with torch.no_grad():
        logits = torch.cat([m.eval()(b, logits="all").logits for b in batches])
    m.train().zero_grad()
    for b in batches:
        m(b, compute_loss=True).loss.ce.backward()
    return logits, {n: p.grad.clone() for n, p in m.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_and_batched_equal_alone(packing):
    """Logits and gradients of every example. Seen to fail with refill of lone frames, with example ids left out of the
    bidirectional rule, and with pooled indices not moved by the examples before."""
    m = model(vit=PACKINGS[packing])
    alone = logits_and_gradients(m, *[batch([e]) for e in EXAMPLES])
    for together in (batch(EXAMPLES, extra=2), batch(*[[e] for e in EXAMPLES]), batch(EXAMPLES[:2], EXAMPLES[2:])):
        logits, gradients = logits_and_gradients(m, together)
        torch.testing.assert_close(logits, alone[0], atol=1e-5, rtol=0)
        scale = torch.stack([g.norm() for g in alone[1].values()]).median()
        for name, gradient in alone[1].items():
            # the gradient of a key's bias is zero but for rounding, hence the scale
            assert (gradients[name] - gradient).norm() <= 1e-4 * (gradient.norm() + 0.01 * scale), name


@pytest.mark.parametrize("mode", ["image_tokens", None])
def test_masks_by_example_equal_the_dense_mask(mode):
    """The whole model, pruned: logits and gradients; and the layout after compaction knows every example's length. Seen to fail
    with the cells of another example taken off."""
    m = model(bi_directional_attn=mode)
    together = batch(EXAMPLES, EXAMPLES[1:2], EXAMPLES[2:], extra=2)
    with torch.no_grad():
        short = m.shorten(together, m.encode_vision(together), None)
    for subsegments, row in zip(short.subsegment_ids, short.layout, strict=True):
        assert [e.num_tokens for e in row.examples] == (subsegments[subsegments >= 0] // 100_000).bincount().tolist()
    cheap = logits_and_gradients(m, together)
    m.mask_by_example = False
    dense = logits_and_gradients(m, together)
    torch.testing.assert_close(cheap[0], dense[0], atol=1e-5, rtol=1e-5)
    for name, gradient in dense[1].items():
        torch.testing.assert_close(cheap[1][name], gradient, atol=1e-5 * max(1, gradient.abs().max().item()), rtol=1e-4)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_neighbour_changes_nothing(packing):
    """Other pixels and words of one packed example leave the others' logits as they are, bit for bit. Seen to fail with
    example ids left out of the bidirectional rule."""
    m = model(vit=PACKINGS[packing])
    before = batch(EXAMPLES)
    after = batch([*EXAMPLES[:2], replace(EXAMPLES[2], seed=99), EXAMPLES[3]])
    with torch.no_grad():
        (short, a), (_, b) = [(m.shorten(x, m.encode_vision(x), None), m(x, logits="all").logits) for x in (before, after)]
    examples = (short.subsegment_ids[0] // 100_000)[short.input_ids[0] >= 0]
    assert torch.equal(a[examples != 2], b[examples != 2])
    assert not torch.equal(a[examples == 2], b[examples == 2])


@pytest.mark.parametrize(
    "off",
    [dict(prune=False), dict(topk=0.0), dict(topk=0.0, packing="first_fit"), dict(topk=0.0, prune_method="evs")]
    + [dict(topk=0.0, prune_method=method) for method in ("tome", "fewer_frames", "lower_resolution")],
)
def test_pruning_off_is_molmo2_bit_for_bit(off):
    """Logits, loss and gradients. Seen to fail with the keep mask applied although nothing was dropped."""
    plain, pruned = model(temporal=False), model(vit=off)
    missing = pruned.load_state_dict(plain.state_dict(), strict=False)
    assert all("temporal_token_scorer" in name for name in missing.missing_keys) and not missing.unexpected_keys
    b = batch(EXAMPLES[:2], EXAMPLES[2:], extra=1)
    (logits, gradients), (expected, wanted) = logits_and_gradients(pruned, b), logits_and_gradients(plain, b)
    assert torch.equal(logits, expected)
    assert all(torch.equal(gradients[name], wanted[name]) for name in wanted)
    assert pruned(b, compute_loss=True).tokens_after == tuple(row.num_tokens for row in b.layout)


def test_scorer_learns_from_the_language_loss_and_from_its_own():
    """Both signals reach the scorer; without a video they are zero, not missing."""
    m = model().train()
    scorer = dict(m.named_parameters())["vision_backbone.image_vit.transformer.temporal_token_scorer.mlp.w1.weight"]
    out = m(batch(EXAMPLES), compute_loss=True)
    (from_language,) = torch.autograd.grad(out.loss.ce, scorer, retain_graph=True)
    (from_itself,) = torch.autograd.grad(out.aux_loss, scorer)
    assert out.aux_loss.dim() == 0 and from_language.norm() > 0 and from_itself.norm() > 0
    m.run_vision_without_images = True
    out = m(batch([Example(0, (5,), 1)]), compute_loss=True)
    assert torch.autograd.grad(out.loss.ce + out.aux_loss, scorer)[0].norm() == 0


def test_the_plain_config_becomes_the_pruned_one():
    """`from_molmo2` keeps everything and adds the pruning settings at their defaults."""
    settings = dict(video=dict(max_frames=5), image=dict(max_crops=3), max_answer_len=7)
    plain = config(temporal=False, vit=dict(image_num_layers=6), mm_preprocessor=settings)
    pruned = TemporalVideoOlmoConfig.from_molmo2(plain)
    assert pruned.model_name == "temporal_video_olmo" and pruned.llm == plain.llm
    assert pruned.vision_backbone.vit.topk == 0.5 and pruned.vision_backbone.vit.prune_at == 3
    assert pruned.vision_backbone.vit.image_num_layers == 6
    text = pruned.mm_preprocessor
    assert text.video.topk is None and (text.video.max_frames, text.image.max_crops, text.max_answer_len) == (5, 3, 7)
    assert TemporalVideoOlmoConfig.from_molmo2(pruned) is pruned
    pruned.build_model()


@pytest.mark.parametrize("method", ["scorer", "tome", "evs"])
def test_outputs_of_other_blocks_are_forgotten(method):
    """Asking holds the two selected layers, and what a block reads and writes. Seen to fail with every output kept."""
    m = model(vit=dict(image_num_layers=12, prune_method=method))
    outputs, most = [], 0

    def note(module, args, output):
        nonlocal most
        outputs.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in outputs))

    for block in m.vision_backbone.image_vit.blocks:
        block.register_forward_hook(note)
    with torch.no_grad():
        m(batch([Example(4, (5,), 1)]), logits="last")
    assert len(outputs) == 12 and most <= 5, most
