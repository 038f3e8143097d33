"""The connector against a version written with loops over cells and patches, and the backbone's contract.

Seen to fail with: clamped -1 indices left in, the offset of batch rows forgotten, the mean taken over missing patches
with the mask on (and without them with the mask off), vit_layers sorted.
"""

from types import SimpleNamespace

import pytest
import torch

from olmo.batch import RowLayout
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig, gather_cells

LLM = SimpleNamespace(d_model=24, hidden_size=40, initializer_range=0.02)
VIT = dict(
    image_model_type="siglip", image_default_input_size=[42, 42], image_emb_dim=32, image_num_heads=2, image_num_key_value_heads=2,
    image_head_dim=16, image_mlp_dim=48, image_num_layers=4, image_num_pos=9, normalize="siglip",
)  # fmt: skip


def build(**fields):
    torch.manual_seed(0)
    backbone = MolmoVisionBackboneConfig.from_dict({"vit": VIT, "vit_layers": [-1, -3]} | fields).build(LLM)
    backbone.reset_parameters()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone.eval()


def batch(rows=2, frames=2, group=4, cells=7):
    """Random pictures; cells with missing patches, and empty cells at the end of every row."""
    torch.manual_seed(1)
    images = torch.randint(0, 256, (rows, frames, 9, 588), dtype=torch.uint8)
    pooling = torch.randint(0, frames * 9, (rows, cells, group))
    pooling[torch.rand(pooling.shape) < 0.3] = -1
    pooling[:, :, 1] = torch.randint(0, frames * 9, (rows, cells))
    for r in range(rows):
        pooling[r, cells - 1 - r :] = -1
    layout = tuple(RowLayout((), 0, int((row >= 0).any(-1).sum())) for row in pooling)
    return images, pooling, layout


def slow_connector(backbone, images, pooling, image_masks=None):
    """Every cell on its own; returns the features of all cells that hold a patch, row by row."""
    config = backbone.config
    pixels = images.float() / 255 * 2 - 1
    features = []
    for b in range(len(images)):
        hidden = backbone.image_vit(pixels[b])
        patches = torch.cat([hidden[i % config.vit.image_num_layers] for i in config.vit_layers], dim=-1)
        patches = patches[:, 1:].flatten(0, 1) if backbone.image_vit.class_embedding is not None else patches.flatten(0, 1)
        if image_masks is not None:
            rows = []
            for patch, share in zip(patches, image_masks[b].flatten(), strict=True):
                if config.image_padding_embed == "pad_embed":
                    patch = patch + backbone.pad_embed if share == 0 else patch
                elif config.image_padding_embed == "regress":
                    patch = patch + backbone.pad_embed * max(share, 0)
                elif share < 1:
                    patch = patch + backbone.pad_embed[0 if share == 0 else 1]
                rows.append(patch)
            patches = torch.stack(rows)
        for cell in pooling[b].tolist():
            if max(cell) < 0:
                continue
            members = [patches[i] for i in cell if i >= 0]
            if not config.pooling_attention_mask and config.image_pooling_2d != "mean":
                members = [patches[i] if i >= 0 else torch.zeros_like(patches[0]) for i in cell]
            members = torch.stack(members)
            pooled = members.mean(0)
            if (pooler := backbone.image_pooling_2d) is not None:
                query = pooled if "meanq" in config.image_pooling_2d else patches[cell[0]] if cell[0] >= 0 else torch.zeros_like(pooled)
                q, k, v = (
                    linear(x).unflatten(-1, (2, -1)) for linear, x in ((pooler.wq, query), (pooler.wk, members), (pooler.wv, members))
                )
                weights = torch.einsum("hd,ghd->hg", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
                pooled = pooler.wo(torch.einsum("hg,ghd->hd", weights, v).flatten())
            projector = backbone.image_projector
            if config.image_projector == "mlp":
                pooled = projector.w2(torch.nn.functional.silu(projector.w1(pooled)) * projector.w3(pooled))
            else:
                pooled = projector(pooled)
            features.append(pooled)
    return torch.stack(features)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "pooling_2d", ["attention_meanq", "attention", "attention_2wide", "attention_meanq_2x", "attention_meanq_4x", "mean"]
)
def test_connector_equals_slow(pooling_2d, masked):
    backbone = build(image_pooling_2d=pooling_2d, pooling_attention_mask=masked)
    images, pooling, layout = batch()
    with torch.no_grad():
        out, expected = backbone(images, pooling, layout), slow_connector(backbone, images, pooling)
    torch.testing.assert_close(out.features, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)
    assert out.kept_per_row == tuple(row.num_pooled for row in layout) and out.keep_rows is None and out.aux_loss is None


def test_gradients_equal_slow():
    backbone = build(pooling_attention_mask=True)
    images, pooling, layout = batch()
    weights = torch.randn(sum(row.num_pooled for row in layout), LLM.d_model)
    gradients = []
    for features in (backbone(images, pooling, layout).features, slow_connector(backbone, images, pooling)):
        gradients.append(torch.autograd.grad((features * weights).sum(), list(backbone.parameters())))
    largest = max(g.abs().max() for g in gradients[1])  # key biases have a gradient of zero, up to rounding
    for (name, _), actual, expected in zip(backbone.named_parameters(), *gradients, strict=True):
        assert (actual - expected).abs().max() <= 2e-5 * expected.abs().max() + 1e-6 * largest, name


@pytest.mark.parametrize("kind", ["pad_embed", "regress", "pad_and_partial_pad"])
def test_padding_embedding(kind):
    backbone = build(image_padding_embed=kind)
    images, pooling, layout = batch()
    masks = torch.randint(0, 3, (2, 2, 9)) / 2
    with torch.no_grad():
        out, expected = backbone(images, pooling, layout, masks), slow_connector(backbone, images, pooling, masks)
        torch.testing.assert_close(out.features, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)
    with pytest.raises(OLMoConfigurationError, match="no image_masks"):
        backbone(images, pooling, layout)


@pytest.mark.parametrize("projector", ["linear", "random_linear"])
def test_linear_projectors(projector):
    backbone = build(image_projector=projector)
    images, pooling, layout = batch()
    with torch.no_grad():
        expected = slow_connector(backbone, images, pooling)
        torch.testing.assert_close(backbone(images, pooling, layout).features, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)
    assert backbone.image_projector.weight.requires_grad == (projector == "linear")
    assert "image_projector.weight" in backbone.state_dict()


@pytest.mark.parametrize("family", ["openai", "dino"])
def test_class_token_is_left_out(family):
    """Seen to fail with the class token in place of the first patch."""
    backbone = build(vit=VIT | {"image_model_type": family, "image_num_pos": 10}, pooling_attention_mask=True)
    images, pooling, layout = batch()
    seen = []
    backbone.image_vit.register_forward_hook(lambda _, args, out: seen.append(out[3]))
    with torch.no_grad():
        out, expected = backbone(images, pooling, layout), slow_connector(backbone, images, pooling)
    assert seen[0].shape == (4, 10, 32)
    torch.testing.assert_close(out.features, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)


def test_row_alone_equals_row_in_batch():
    backbone = build(pooling_attention_mask=True)
    images, pooling, layout = batch()
    with torch.no_grad():
        together = backbone(images, pooling, layout).features.split([row.num_pooled for row in layout])
        for r in range(2):
            alone = backbone(images[r : r + 1], pooling[r : r + 1], layout[r : r + 1]).features
            torch.testing.assert_close(alone, together[r], atol=2e-5, rtol=1e-5)


def test_without_images_every_parameter_takes_part():
    """A batch without pictures yields no features, and a zero gradient for every parameter."""
    backbone = build().train()
    out = backbone(None, None, (RowLayout((), 5, 0), RowLayout((), 3, 0)))
    assert out.features.shape == (0, LLM.d_model) and out.kept_per_row == (0, 0)
    assert out.aux_loss.shape == () and out.aux_loss == 0
    out.aux_loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in backbone.parameters())


def test_unused_blocks():
    trimmed = build(vit_layers=[-2, -4])
    assert len(trimmed.image_vit.blocks) == 3
    whole = build(vit_layers=[-2, -4], skip_unused_layers=False)
    assert len(whole.image_vit.blocks) == 4
    assert [block.attention.wq.weight.requires_grad for block in whole.image_vit.blocks] == [True, True, True, False]


def test_layout_that_disagrees_is_caught():
    backbone = build()
    images, pooling, layout = batch()
    with pytest.raises(OLMoDataError, match="the batch has 11 positions but 7 .*num_pooled"):
        backbone(images, pooling, (RowLayout((), 0, 2), layout[1]))


def test_gather_cells_offsets_rows():
    pooling = torch.tensor([[[0, -1], [-1, -1]], [[-1, 3], [2, 1]]])
    cells = gather_cells(pooling, (pooling >= 0).any(-1), 3, 10)
    assert cells.tolist() == [[0, -1], [-1, 13], [12, 11]]


def test_reset_after_meta():
    config = MolmoVisionBackboneConfig.from_dict({"vit": VIT, "image_padding_embed": "pad_embed"})
    with torch.device("meta"):
        backbone = config.build(LLM)
    backbone = backbone.to_empty(device="cpu")
    for parameter in backbone.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    backbone.reset_parameters()
    assert all(p.isfinite().all() for p in backbone.parameters()) and not backbone.pad_embed.any()
    assert backbone.image_projector.w1.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_state_dict_names_and_shapes():
    names = {
        n: tuple(t.shape)
        for n, t in MolmoVisionBackboneConfig.from_dict({"vit": VIT, "vit_layers": [-1, -3]}).build(LLM).state_dict().items()
    }
    connector = {n: s for n, s in names.items() if not n.startswith("image_vit.")}
    attention = {f"image_pooling_2d.w{x}.weight": (32, 64) for x in "qkv"} | {f"image_pooling_2d.w{x}.bias": (32,) for x in "qkvo"}
    assert connector == attention | {
        "image_pooling_2d.wo.weight": (32, 32), "image_projector.w1.weight": (20, 32), "image_projector.w3.weight": (20, 32),
        "image_projector.w2.weight": (24, 20),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vit_layers": [4]}, "vit_layers = \\[4\\]"),
        ({"vit_layers": [-5]}, "vit_layers"),
        ({"use_deepstack": True}, "use_deepstack"),
        ({"compile_vit": "all"}, "compile_vit"),
        ({"compile_connector": "yes"}, "compile_connector"),
        ({"debug": True}, "debug"),
        ({"image_pooling_h": 3}, "image_pooling_h"),
    ],
)
def test_bad_settings(fields, words):
    with pytest.raises(OLMoConfigurationError, match=words):
        MolmoVisionBackboneConfig.from_dict({"vit": VIT} | fields).build(LLM)


def test_legacy_keys_are_dropped():
    config = MolmoVisionBackboneConfig.from_dict(
        {"fix_image_padding": True, "image_pooling_h": 2, "debug": False, "vit": {"truncate_pos_ids": 1}}
    )
    assert config == MolmoVisionBackboneConfig()
