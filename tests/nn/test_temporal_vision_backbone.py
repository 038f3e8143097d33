"""The pruned backbone against a slow oracle, against the plain backbone, and against itself in other company.

Seen to fail with: the bias left out, the first frame's bias not zero, packing one block too early, the row offset of
`token_pooling` forgotten, neighbours of the auxiliary loss crossing videos, a scorer that sees the previous video, refill
switched on, padding frames packed, a read-back in the scorer.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from olmo.batch import RowLayout
from olmo.exceptions import OLMoConfigurationError
from olmo.nn import indices
from olmo.nn.image_vit import SiglipVisionTransformer
from tests.nn.pruning_cases import IMAGE, LLM, MIXED, VIDEO, build, make_batch, plain_twin, slow_forward, temporal_config

FRAMES = 8
METHODS = ["scorer", "easy", "heuristic", "random", "evs", "tome"]
SEES_LESS = ["fewer_frames", "lower_resolution"]
"""Baselines that leave nothing to prune in the backbone."""
GRIDS = [((6, 6), (3, 3)), ((4, 6), (2, 2)), ((5, 4), (3, 3)), ((7, 5), (2, 3))]
"""(patches, window): square, not square, and two that the window does not divide."""


def loss_of(features, aux):
    """A scalar that weighs every feature differently."""
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features)
    return (features * weights).mean() + aux


@pytest.mark.parametrize("packing", ["varlen", "first_fit"])
@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_equals_slow_oracle(packing, grid, window):
    """varlen == first_fit without refill == loops: kept cells, features, auxiliary loss and every gradient."""
    compare_with_oracle(temporal_config(grid, window, packing=packing, refill_lone_frames=False))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_flat_packing_equals_dense_masks(grid, window, dtype, limit):
    """In the types that models run in: frames of different lengths laid together, against masks over whole rows."""
    outs = []
    for fields in ({}, {"varlen_backend": "dense"}, {"packing": "first_fit", "refill_lone_frames": False}):
        config = temporal_config(grid, window, **fields)
        backbone = build(config, dtype).eval()
        with torch.no_grad():
            outs.append(backbone(*make_batch(MIXED, config, FRAMES)))
    for other in outs[1:]:
        assert torch.equal(outs[0].keep_rows, other.keep_rows)
        assert outs[0].features.dtype == dtype
        assert (outs[0].features - other.features).abs().max() <= limit * outs[0].features.std()


@pytest.mark.parametrize(
    "fields",
    [
        {"bias_rescale": "frame"},
        {"pruning_in_scorer": False},
        {"topk": 0.8, "prune_at": 3},
        {"rescale_bias_min": 0.5, "sim_reg_loss_coefficient": 2.0},
        {"prune_from_frame": 1},
        {"varlen_backend": "padded"},
        {"varlen_backend": "dense"},
    ],
    ids=str,
)
def test_settings_equal_slow_oracle(fields):
    compare_with_oracle(temporal_config(**fields))


def test_the_config_chooses_the_attention_backend():
    """One that cannot run says why, so it was asked; an unknown name is refused before anything is built."""
    config = temporal_config(varlen_backend="torch_varlen")
    with pytest.raises(OLMoConfigurationError, match="'torch_varlen' cannot be used: it runs on cuda, not on cpu"):
        build(config)(*make_batch(MIXED, config, FRAMES))
    with pytest.raises(OLMoConfigurationError, match="varlen_backend = 'fast' is unknown; known: auto, torch_varlen"):
        temporal_config(varlen_backend="fast").vit.validate()


def compare_with_oracle(config):
    backbone = build(config)
    batch = make_batch(MIXED, config, FRAMES)
    out = backbone(*batch)
    features, aux, kept = slow_forward(backbone, *batch)

    assert out.features.shape == features.shape and sum(out.kept_per_row) == len(features)
    assert out.kept_per_row == tuple(out.keep_rows.sum(1).tolist())
    for (row, frame), (cells, scores) in kept.items():
        assert frame_cells(out.keep_rows, batch[1], row, frame, config.vit.num_patches) == cells
        torch.testing.assert_close(out.scores[row * FRAMES + frame], scores, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(out.features, features, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(out.aux_loss, aux, atol=1e-9, rtol=1e-7)
    names = [name for name, _ in backbone.named_parameters()]
    actual = torch.autograd.grad(loss_of(out.features, out.aux_loss), list(backbone.parameters()))
    expected = torch.autograd.grad(loss_of(features, aux), list(backbone.parameters()))
    for name, a, e in zip(names, actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-9, rtol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def frame_cells(keep_rows, pooling, row, frame, num_patches) -> list[bool]:
    some_patch = pooling[row].amax(-1)
    return keep_rows[row][(some_patch >= frame * num_patches) & (some_patch < (frame + 1) * num_patches)].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_kept_count_is_exact(method):
    """Every method keeps the same number of cells per video, the first frame whole; images lose nothing."""
    config = temporal_config((7, 5), (2, 3), prune_method=method, topk=0.6)
    backbone = build(config, torch.float32).eval()
    images, pooling, layout = make_batch(MIXED, config, FRAMES)
    with torch.no_grad():
        out = backbone(images, pooling, layout)
    cells = config.vit.cells.num_cells
    assert cells == 8
    # budgets: int(fp32(8 * .6) * frames): 14 of 3 frames, 19 of 4, 9 of 2 but at most 8; the one-frame video loses none
    dropped = [14, 0, 19, 8]
    assert out.kept_per_row == tuple(row.num_pooled - d for row, d in zip(layout, dropped, strict=True))
    assert out.keep_rows.sum(1).tolist() == list(out.kept_per_row) and len(out.features) == sum(out.kept_per_row)
    assert all(frame_cells(out.keep_rows, pooling, 0, f, config.vit.num_patches) == [True] * 12 for f in (0, 1))  # 2x2 cells
    for row, first in ((0, 2), (2, 0), (2, 4), (3, 0)):
        assert all(frame_cells(out.keep_rows, pooling, row, first, config.vit.num_patches))
    assert out.scores.shape == (len(MIXED) * FRAMES, cells) and out.scores.dtype == torch.float32


@pytest.mark.parametrize("fields", [{"topk": 0.0}, {"prune": False}], ids=str)
@pytest.mark.parametrize("method", METHODS + SEES_LESS)
def test_off_is_the_plain_backbone_bit_for_bit(fields, method):
    config = temporal_config(prune_method=method, **fields)
    backbone = build(config, torch.float32)
    twin = plain_twin(backbone)
    batch = make_batch(MIXED, config, FRAMES)
    out, plain = backbone(*batch), twin(*batch)
    assert torch.equal(out.features, plain.features) and out.keep_rows is None and out.kept_per_row == plain.kept_per_row
    names = [name for name, _ in twin.named_parameters()]
    zero = 0 if out.aux_loss is None else out.aux_loss
    parameters = dict(backbone.named_parameters())
    actual = torch.autograd.grad(loss_of(out.features, zero), [parameters[name] for name in names])
    expected = torch.autograd.grad(loss_of(plain.features, 0), list(twin.parameters()))
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("method", SEES_LESS)
def test_what_sees_less_is_the_plain_backbone(method):
    """No scorer, no packing, nothing dropped, whatever `topk` says. Seen to fail with a ViT that still asks `prune`."""
    config = temporal_config(prune_method=method, topk=0.6, prune_at=9)
    backbone = build(config, torch.float32)
    batch = make_batch(MIXED, config, FRAMES)
    out = backbone(*batch)
    assert backbone.scorer is None and not config.vit.packs and type(backbone.image_vit) is SiglipVisionTransformer
    assert out.keep_rows is None and out.aux_loss is None and sum(out.kept_per_row) == len(out.features)
    assert batch[0].shape[2] == (36 if method == "fewer_frames" else 9)
    out.features.sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_evs_features_are_the_plain_ones_at_kept_cells():
    config = temporal_config(prune_method="evs")
    backbone = build(config, torch.float32).eval()
    batch = make_batch(MIXED, config, FRAMES)
    with torch.no_grad():
        out, plain = backbone(*batch), plain_twin(backbone)(*batch)
    valid = (batch[1] >= 0).any(-1)
    torch.testing.assert_close(out.features, plain.features[out.keep_rows[valid]], atol=1e-6, rtol=1e-5)


def test_scorer_learns_through_the_bias_alone():
    """Loss on the features only: a gradient with the bias, exactly none when the bias is made constant."""
    for minimum, learns in ((0.1, True), (1.0, False)):
        backbone = build(temporal_config(rescale_bias_min=minimum))
        out = backbone(*make_batch(MIXED, backbone.config, FRAMES))
        loss_of(out.features, 0).backward()
        gradients = [p.grad for p in backbone.scorer.parameters()]
        assert all(bool(g.any()) == learns for g in gradients if g is not None and g.numel() > 2)
        assert any(g is not None for g in gradients)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("packing", ["varlen", "first_fit"])
def test_video_alone_equals_video_in_a_batch(method, packing):
    """Kept cells and features of a video do not depend on its company (without refill), nor on how it is padded."""
    config = temporal_config(prune_method=method, packing=packing, refill_lone_frames=False)
    backbone = build(config).eval()
    videos = [(VIDEO, 4, 71), (VIDEO, 3, 72), (VIDEO, 5, 73)]
    together = make_batch([[(IMAGE, 1), videos[0], videos[1]], [videos[2]]], config, 9)
    with torch.no_grad():
        out = backbone(*together)
        image_cells = together[2][0].num_pooled - 7 * 4
        dropped = [8, 6, 10]
        sizes = [image_cells, 4 * 4 - dropped[0], 3 * 4 - dropped[1], 5 * 4 - dropped[2]]
        parts = out.features.split(sizes)[1:]
        for video, part in zip(videos, parts, strict=True):
            alone = backbone(*make_batch([[video]], config, video[1]))
            torch.testing.assert_close(alone.features, part, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("packing", ["varlen", "first_fit"])
def test_neighbour_changes_nothing(packing):
    """Perturbing one video leaves the features and the gradients of the other untouched (with first_fit: without refill).

    Both videos have frames with few kept cells, which share rows. Seen to fail with attention across the frames of a row, and
    with the ends of the frames three patches late.
    """
    config = temporal_config(packing=packing, refill_lone_frames=False, topk=0.6)
    backbone = build(config)
    results = []
    for other in (81, 82):
        out = backbone(*make_batch([[(VIDEO, 4, 70), (VIDEO, 4, other)]], config, 8))
        mine = out.features[: 16 - 9]
        results.append((mine, *torch.autograd.grad(loss_of(mine, 0), list(backbone.parameters()), allow_unused=True)))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-9)


def test_refill_is_first_fit_only_and_changes_lone_frames():
    config = temporal_config(packing="first_fit", topk=0.3)
    backbone = build(config).eval()
    batch = make_batch([[(VIDEO, 3)]], config, 3)
    with torch.no_grad():
        refilled = backbone(*batch)
        config.vit.refill_lone_frames = False
        bare = backbone(*batch)
    assert refilled.metrics["refilled_over_kept"] > 0 and bare.metrics["refilled_over_kept"] == 0
    assert torch.equal(refilled.keep_rows, bare.keep_rows) and not torch.allclose(refilled.features, bare.features)


def test_auxiliary_loss_target_can_be_detached():
    losses, gradients = [], []
    for detach in (False, True):
        backbone = build(temporal_config(detach_similarity_target=detach))
        out = backbone(*make_batch(MIXED, backbone.config, FRAMES))
        out.aux_loss.backward()
        losses.append(out.aux_loss.detach())
        gradients.append([backbone.image_vit.patch_embedding.weight.grad, backbone.scorer.mlp.w3.weight.grad])
    assert torch.equal(*losses)
    assert not torch.allclose(gradients[0][0], gradients[1][0]) and torch.equal(gradients[0][1], gradients[1][1])


def test_auxiliary_loss_is_for_training_with_the_scorer():
    for method in METHODS:
        config = temporal_config(prune_method=method)
        backbone = build(config)
        batch = make_batch(MIXED, config, FRAMES)
        assert (backbone(*batch).aux_loss is not None) == (method == "scorer")
        assert backbone.eval()(*batch).aux_loss is None


@pytest.mark.parametrize("rows", [[[(IMAGE, 2)]], [[(VIDEO, 1)]], [[]], None], ids=["images", "one frame", "padding", "no images"])
def test_every_parameter_takes_part_without_a_prunable_frame(rows):
    """Sharded collectives line up on such ranks: every gradient exists, the scorer's is zero."""
    config = temporal_config()
    backbone = build(config)
    if rows is None:
        out = backbone(None, None, (RowLayout((), 3, 0),))
        assert out.features.shape == (0, LLM.d_model) and out.kept_per_row == (0,)
    else:
        out = backbone(*make_batch(rows, config, 2))
        assert out.keep_rows is None and out.metrics["packed_rows"] == 2
    assert out.aux_loss == 0
    (out.features.sum() + out.aux_loss).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert not any(p.grad.any() for p in backbone.scorer.parameters())


def test_scorer_runs_once_per_forward_at_the_same_place():
    """Also where nothing is prunable: ranks must gather the sharded modules in the same order."""
    config = temporal_config()
    backbone = build(config)
    orders = []
    for module in [*backbone.image_vit.blocks, backbone.scorer]:
        module.register_forward_hook(lambda module, *_: orders[-1].append(id(module)))
    for rows in ([[(VIDEO, 3)]], [[(IMAGE, 2)]], None):
        orders.append([])
        backbone(*(make_batch(rows, config, 3) if rows else (None, None, (RowLayout((), 1, 0),))))
    assert orders[0] == orders[1] == orders[2] and len(orders[0]) == 7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_forward_reads_nothing_from_the_device(method, training, monkeypatch):
    """Fake tensors have no values: any read-back (item, tolist, bool, nonzero) raises. The check of the layout reads on CPUs only."""
    monkeypatch.setattr(indices, "check_total", lambda *args: None)
    config = temporal_config((5, 4), (3, 3), prune_method=method)
    images, pooling, layout = make_batch(MIXED, config, FRAMES)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        backbone = config.build(LLM).train(training)
        out = backbone(mode.from_tensor(images), mode.from_tensor(pooling), layout)
        assert out.features.shape == (sum(out.kept_per_row), LLM.d_model)
        if training:
            (out.features.sum() + (0 if out.aux_loss is None else out.aux_loss)).backward()


def test_autocast_keeps_scores_in_fp32():
    """Scores under bf16 autocast are not rounded to bf16, where they would tie in masses."""
    config = temporal_config((9, 9), (3, 3))
    backbone = build(config, torch.float32)
    batch = make_batch([[(VIDEO, 8)], [(VIDEO, 8)]], config, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = backbone(*batch)
    assert out.scores.dtype == torch.float32 and out.aux_loss.dtype == torch.float32
    assert len(out.scores.unique()) > 0.9 * out.scores.numel()
    assert len(out.scores.bfloat16().unique()) < 0.9 * out.scores.numel()
    (out.features.float().sum() + out.aux_loss).backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())


def test_padding_embedding_follows_kept_patches():
    config = temporal_config(prune_method="evs")
    packed = temporal_config(prune_method="random")
    outputs = []
    for c in (config, packed):
        c.image_padding_embed = "regress"
        backbone = build(c, torch.float32).eval()
        batch = make_batch([[(VIDEO, 3)]], c, 3)
        masks = torch.rand(1, 3, c.vit.num_patches)
        out = backbone(*batch, masks)
        shifted = backbone(*batch, masks + 1)
        outputs.append((out.features - shifted.features).abs().amax(1).min())
    assert min(outputs) > 0  # every kept cell sees its mask


def test_metrics():
    config = temporal_config(topk=0.5)
    backbone = build(config, torch.float32).eval()
    out = backbone(*make_batch([[(VIDEO, 4)]], config, 6))
    assert out.metrics == {"packed_rows": 2.0, "refilled_over_kept": 0.0, "kept_fraction": 0.5}


def test_cells_that_disagree_with_the_preprocessor():
    config = temporal_config()
    backbone = build(config, torch.float32)
    images, pooling, layout = make_batch([[(VIDEO, 2)]], temporal_config(window=(2, 2)), 2)
    with pytest.raises(OLMoConfigurationError, match="9 cells per video frame.*4 cells of 3 x 3.*pooling_h/w"):
        backbone(images, pooling, layout)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"topk": 1.0}, "topk = 1.0"),
        ({"topk": -0.1}, "topk = -0.1"),
        ({"merge": True}, "merge"),
        ({"prune_at": 5}, "prune_at = 5 must lie in 0..4"),
        ({"prune_at": -1}, "prune_at = -1"),
        ({"image_model_type": "dino", "image_num_pos": 37}, "cannot prune"),
        ({"rescale_bias_min": 0.0}, "rescale_bias_min"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"prune_method": "best"}, "prune_method"),
        ({"packing": "dense"}, "packing"),
    ],
)
def test_bad_settings(fields, words):
    with pytest.raises(OLMoConfigurationError, match=words):
        temporal_config(**fields).build(LLM)
