"""The analytic FLOPs against the project's reference arithmetic and against what torch counts in a small model."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from olmo.batch import Batch, MultimodalType, RowLayout, VisualSegment
from olmo.config import read_yaml
from olmo.config_files import find_config
from olmo.models.model import build_model_config
from olmo.nn.flops import FlopCount, flops_for_batch, flops_for_layout, flops_for_video, format_flops

SHARES = (0.3, 0.4, 0.5, 0.7, 0.8)
# model, frames, text tokens, TFLOP of the unpruned forward pass, ideal speed-up at SHARES, ViT share of the unpruned pass
REFERENCE = [
    ("4b", 32, 200, 43, (1.37, 1.56, 1.81, 2.60, 3.31), 0.45),
    ("4b", 64, 200, 89, (1.40, 1.61, 1.88, 2.77, 3.59), 0.44),
    ("4b", 64, 2048, 110, (1.33, 1.49, 1.68, 2.25, 2.69), 0.36),
    ("4b", 128, 200, 194, (1.44, 1.67, 1.98, 3.00, 3.94), 0.41),
    ("4b", 128, 2048, 220, (1.40, 1.60, 1.85, 2.65, 3.32), 0.36),
    ("4b", 256, 200, 453, (1.50, 1.77, 2.13, 3.36, 4.53), 0.35),
    ("4b", 256, 2048, 491, (1.48, 1.73, 2.05, 3.13, 4.10), 0.32),
    ("4b", 384, 200, 779, (1.55, 1.86, 2.26, 3.68, 5.05), 0.30),
    ("8b", 64, 2048, 159, (1.31, 1.46, 1.64, 2.16, 2.56), 0.25),
    ("8b", 128, 200, 266, (1.43, 1.66, 1.96, 3.01, 4.03), 0.30),
]
# ViT and scorer alone: flat packing, and perfectly filled rows that pay attention for all their patches.
REFERENCE_VIT = {"varlen": (1.32, 1.48, 1.68, 2.28, 2.76), "first_fit": (1.29, 1.44, 1.63, 2.20, 2.67)}


def stts(size: str = "4b", **vit):
    """The model of a named config with the pruning fields of the published recipe."""
    raw = read_yaml(find_config(f"molmo2_{size}"))["model"] | {"model_name": "temporal_video_olmo"}
    raw["vision_backbone"]["vit"] = read_yaml(find_config("stts_50"))["model"]["vision_backbone"]["vit"]
    return build_model_config(raw, [f"vision_backbone.vit.{key}={value}" for key, value in vit.items()])


@pytest.mark.parametrize(("size", "frames", "text", "tflop", "speedups", "vit_share"), REFERENCE)
def test_ideal_speedups_of_the_reference_table(size, frames, text, tflop, speedups, vit_share):
    """Every row within 2 %. Seen to fail with the biased block counted as packed and with full instead of causal attention."""
    config = stts(size)
    base = flops_for_video(config, frames, text, topk=0.0)
    assert base.total / 1e12 == pytest.approx(tflop, rel=0.02)
    assert base.vit / base.total == pytest.approx(vit_share, abs=0.01)
    ratios = [base.total / flops_for_video(config, frames, text, topk=share).total for share in SHARES]
    assert ratios == pytest.approx(speedups, rel=0.02)


@pytest.mark.parametrize("packing", REFERENCE_VIT)
def test_ideal_speedups_of_the_vit_alone(packing):
    """Seen to fail with the scorer left out, and with `first_fit` counted as `varlen`."""
    config = stts(packing=packing)
    base = flops_for_video(config, 64, 0, topk=0.0)
    pruned = [flops_for_video(config, 64, 0, topk=share) for share in SHARES]
    assert base.vit / 64 / 1e12 == pytest.approx(0.616, rel=0.02)
    assert [base.vit / (p.vit + p.scorer) for p in pruned] == pytest.approx(REFERENCE_VIT[packing], rel=0.02)


def test_building_blocks():
    """Multiply-accumulates per frame or per token as the reference arithmetic gives them."""
    config = stts()
    dense, pruned = (flops_for_video(config, 64, 0, topk=share) for share in (0.0, 0.5))
    assert dense.connector / 2 / 64 == pytest.approx(8.0e9, rel=0.01)
    assert pruned.scorer / 2 / 64 == pytest.approx(4.45e9, rel=0.01)
    tokens = 64 * 83
    assert dense.llm_linear / 2 / tokens == pytest.approx(3.63e9, rel=0.01)
    assert dense.llm_attention == pytest.approx(2 * tokens**2 * 4096 * 36)
    assert flops_for_video(config, 1, 0, loss_tokens=10).head / 10 == pytest.approx(0.78e9, rel=0.01)
    assert flops_for_video(stts("8b"), 1, 0, loss_tokens=10).head / 10 == pytest.approx(1.24e9, rel=0.01)


@pytest.mark.parametrize(("share", "vit_side", "llm_side", "both"), [(0.5, 1.20, 1.49, 1.98), (0.8, 1.35, 1.95, 3.94)])
def test_pruning_one_side_only(share, vit_side, llm_side, both):
    """128 frames and 200 text tokens; the connector runs on kept cells only when the decoder's side is pruned."""
    base, pruned = (flops_for_video(stts(), 128, 200, topk=t) for t in (0.0, share))
    vit_only = replace(base, vit_linear=pruned.vit_linear, vit_attention=pruned.vit_attention, scorer=pruned.scorer)
    llm_only = replace(pruned, vit_linear=base.vit_linear, vit_attention=base.vit_attention, scorer=0.0)
    assert base.total / vit_only.total == pytest.approx(vit_side, rel=0.02)
    assert base.total / llm_only.total == pytest.approx(llm_side, rel=0.02)
    assert base.total / pruned.total == pytest.approx(both, rel=0.02)


def test_pruning_switches():
    """What each switch of the pruned ViT does to the counts."""
    base = flops_for_video(stts(), 64, 200, topk=0.0)
    off = flops_for_video(stts(prune=False), 64, 200)
    assert off == base
    bias_only = flops_for_video(stts(pruning_in_scorer=False), 64, 200)
    assert bias_only.vit == base.vit and bias_only.scorer > 0 and bias_only.llm_linear < base.llm_linear
    # The other methods have no scorer and no biased block, so one block less is dense.
    easy, later = flops_for_video(stts(prune_method="easy"), 64, 200), flops_for_video(stts(), 64, 200)
    assert easy.scorer == 0.0 and easy.vit < later.vit
    assert easy.vit == flops_for_video(stts(), 64, 200, prune_at=2).vit
    assert flops_for_video(stts(prune_method="heuristic"), 64, 200).scorer == 2 * 64**2 * 729 * 1152  # every frame with every other
    assert flops_for_video(stts(), 1, 200).scorer == 0.0  # a single frame cannot be pruned


def test_methods_that_see_less():
    """As many tokens as the others, and nothing else pruned; `topk=0` is the unpruned model, also of a layout."""
    base = flops_for_video(stts(), 64, 200, topk=0.0)
    fewer, lower = (stts(prune_method=method) for method in ("fewer_frames", "lower_resolution"))
    assert flops_for_video(fewer, 64, 200) == flops_for_video(stts(), 32, 200, topk=0.0) == flops_for_video(fewer, 64, 200, topk=0.5)
    assert lower.vision_backbone.vit.grid == (15, 24)
    small = stts(prune_method="lower_resolution", topk=0.3)
    assert flops_for_video(lower, 64, 200, topk=0.3) == flops_for_video(small, 64, 200)
    assert flops_for_video(small, 64, 200).total < flops_for_video(lower, 64, 200, topk=0.2).total
    for config, segment in (
        (fewer, VisualSegment(MultimodalType.VIDEO, 32, 81, spared=32 * 81)),
        (lower, VisualSegment(MultimodalType.VIDEO, 64, 40, spared=64 * 41)),
    ):
        assert flops_for_video(config, 64, 200, topk=0.0) == base
        cells = segment.num_frames * segment.cells_per_frame
        row = RowLayout((segment,), num_tokens=cells + 128 + 200, num_pooled=cells)  # time stamps and markers of all 64 frames
        assert flops_for_layout(config, [row], topk=0.0) == base
        assert flops_for_layout(config, [row]).total < 0.6 * base.total


def test_a_mixed_row_is_the_sum_of_its_parts_except_attention():
    """A row with an image, two videos and text: linear parts add up; images are never pruned."""
    config = stts()
    image = VisualSegment(MultimodalType.IMAGE, 2)
    videos = [VisualSegment(MultimodalType.VIDEO, n, 81) for n in (8, 5)]
    mixed = RowLayout((image, *videos), num_tokens=400 + 13 * 83 + 50, num_pooled=392 + 13 * 81)
    alone = [
        RowLayout((image,), num_tokens=400, num_pooled=392),
        RowLayout((videos[0],), num_tokens=8 * 83, num_pooled=8 * 81),
        RowLayout((videos[1],), num_tokens=5 * 83, num_pooled=5 * 81),
        RowLayout((), num_tokens=50, num_pooled=0),
    ]
    together, apart = flops_for_layout(config, [mixed]), flops_for_layout(config, alone)
    for part in ("patch_embedding", "vit_linear", "vit_attention", "scorer", "connector", "llm_linear"):
        assert getattr(together, part) == pytest.approx(getattr(apart, part)), part
    assert together.llm_attention > apart.llm_attention
    unpruned_image = flops_for_layout(config, alone[:1], topk=0.0)
    assert flops_for_layout(config, alone[:1]) == unpruned_image
    assert flops_for_layout(config, alone[3:]).vit == 0.0


@pytest.mark.parametrize(("name", "same"), [("tiny", True), ("molmo2_4b", False)])
def test_every_cell_costs_its_own_window(name, same):
    """tiny pools images as videos, 3 x 3; the released models pool them 2 x 2. Seen to fail with 2 x 2 for all images."""
    config = build_model_config(read_yaml(find_config(name))["model"])
    image, video = (
        flops_for_layout(config, [RowLayout((VisualSegment(kind, 1, 9),), num_tokens=9, num_pooled=9)]).connector
        for kind in (MultimodalType.IMAGE, MultimodalType.VIDEO)
    )
    assert (image == video) == same and image <= video


def test_slow_and_fast_frames_are_the_sum_of_their_kinds():
    """8 frames, 2 of them slow: pruned by the budgets of both kinds, 9 x 9 patches in a cell of the connector, and two passes of the
    scorer over all frames. Seen to fail with fast cells counted as small ones."""
    config = stts(topk=0.5)
    fast = (1, 2, 3, 5, 6, 7)
    video = VisualSegment(MultimodalType.VIDEO, 8, 81, fast=fast, fast_cells=9)
    row = RowLayout((video,), num_tokens=216 + 16, num_pooled=216)

    def of(segment, **options):
        return flops_for_layout(config, [RowLayout((segment,), segment.num_cells, segment.num_cells)], **options)

    found, unpruned = flops_for_layout(config, [row]), flops_for_layout(config, [row], topk=0.0)
    plain = of(VisualSegment(MultimodalType.VIDEO, 8, 81))
    assert unpruned.vit == of(VisualSegment(MultimodalType.VIDEO, 8, 81), topk=0.0).vit and unpruned.scorer == 0
    # slow: int(81 * .5 * 2) = 81 of the second slow frame's 81; fast: int(9 * .5 * 6) = 27 of 54
    per_token = flops_for_layout(config, [RowLayout((), 1, 0)]).llm_linear
    assert found.llm_linear == pytest.approx(per_token * (216 + 16 - 81 - 27))
    small = of(VisualSegment(MultimodalType.VIDEO, 1, 81), topk=0.0).connector / 81
    large = (unpruned.connector - 162 * small) / 54
    assert found.connector == pytest.approx(81 * small + 27 * large) and 3 * small < large < 9 * small
    assert plain.scorer < found.scorer < 2 * plain.scorer  # the large cells pool as many patches, but are fewer for the MLP


def test_attention_under_the_real_mask():
    """A batch on the host: pictures see each other both ways, packed examples and branches do not see each other; after pruning
    with the mask of what is left. Seen to fail with the causal count, and with the share of one video given to another."""
    config = stts()
    special = config.special_token_ids()
    frame = [special["frame_start"], *[special["image_patch"]] * 81, special["frame_end"]]
    lengths = (4, 2)
    ids = torch.tensor([[t for n in lengths for t in frame * n + [5] * 10]])
    subsegments = torch.tensor([[e * 100_000 for e, n in enumerate(lengths) for _ in range(n * 83 + 10)]])
    layout = RowLayout(tuple(VisualSegment(MultimodalType.VIDEO, n, 81) for n in lengths), ids.shape[1], 6 * 81, 3)
    batch = Batch(input_ids=ids, position_ids=ids, layout=(layout,), subsegment_ids=subsegments)
    for topk in (0.0, 0.5):
        together = flops_for_batch(config, batch, topk=topk)
        alone = [flops_for_video(config, n, 10, topk=topk, real_mask=True) for n in lengths]
        assert together.llm_attention == pytest.approx(sum(a.llm_attention for a in alone), rel=1e-9)
    kept = [83 + 3 * 2 + 81 * 3 - 162, 83 + 2 + 81 - 81]  # tokens of the frames: the first one whole, 40.5 cells a frame dropped
    pairs = sum(v**2 + v * 10 + 10 * 11 / 2 for v in kept)  # pictures in full, text sees all before it
    assert together.llm_attention == pytest.approx(4 * 4096 * 36 * pairs)
    assert flops_for_layout(config, batch.layout).llm_attention != pytest.approx(together.llm_attention, rel=0.01)
    text_only = Batch(input_ids=torch.full((1, 7), 5), position_ids=ids, layout=(RowLayout((), 7, 0),))
    assert flops_for_batch(config, text_only).llm_attention == 4 * 4096 * 36 * 28


def test_totals_and_text():
    count = FlopCount(vit_linear=1e12, head=5e8)
    assert count.total == 1.0005e12 == count.part("all")
    assert (count.part("vit"), count.part("vision"), count.part("llm")) == (1e12, 1e12, 5e8)
    assert (count + count).total == 2 * count.total
    assert str(count) == "1 TFLOP (vit_linear 1 TFLOP, head 500 MFLOP)"
    assert [format_flops(x) for x in (2.5e15, 1.234e9, 12e6)] == ["2.5 PFLOP", "1.23 GFLOP", "12 MFLOP"]


def video_batch(config, num_frames: int, text: int, loss: int) -> Batch:
    """One row with one video of the tiny model's grid (9 x 9 patches, or fewer, in cells of 3 x 3) and some text."""
    special = config.special_token_ids()
    side = config.vision_backbone.vit.cells.shape[0]
    patches = 9 * side**2
    frame = [special["frame_start"], *[special["image_patch"]] * side**2, special["frame_end"]]
    ids = torch.tensor([frame * num_frames + [5] * text])
    cells = torch.arange(patches).view(side, 3, side, 3).permute(0, 2, 1, 3).reshape(side**2, 9)
    weights = torch.zeros(ids.shape)
    weights[:, -loss:] = 1
    segment = VisualSegment(MultimodalType.VIDEO, num_frames, side**2)
    return Batch(
        input_ids=ids,
        position_ids=torch.arange(ids.shape[1])[None],
        layout=(RowLayout((segment,), ids.shape[1], side**2 * num_frames, loss),),
        labels=torch.full_like(ids, 7),
        loss_masks=weights,
        images=torch.randint(0, 256, (1, num_frames, patches, 588), dtype=torch.uint8),
        token_pooling=torch.cat([cells + patches * i for i in range(num_frames)])[None],
    )


WIDE = (
    *("image_num_layers=8", "image_mlp_dim=1024", "image_num_heads=1", "image_num_key_value_heads=1", "image_head_dim=64"),
    "positional_embedding_init_std=null",
)
"""A wide MLP makes little of attention. Quiet positions: every frame after the first keeps about the same share, so that
first-fit rows are filled as the formula assumes."""


@pytest.mark.parametrize(
    "settings",
    [
        ["prune=false"],
        ["topk=0.5"],
        ["topk=0.7", "prune_at=3"],
        ["prune_method=random"],
        ["prune_method=evs"],
        ["prune_method=tome"],
        ["prune_method=fewer_frames"],
        ["prune_method=lower_resolution"],
        ["prune_method=easy"],
        ["prune_method=heuristic"],
        ["pruning_in_scorer=false"],
        ["packing=first_fit", "refill_lone_frames=false"],
    ],
    ids=" ".join,
)
def test_against_the_counter_of_torch(settings):
    """Within 1 % of the matrix products that really ran, part by part (attention computed in full: twice the causal half).

    What is left over: scores keep more of one frame than of another, and the bias widens the heads of its block. Both are
    small at this size. Seen to fail with `evs` counted as packed and with the scorer counted without its
    keys and values.
    """
    raw = read_yaml(find_config("tiny"))["model"]
    config = build_model_config(raw, [f"vision_backbone.vit.{item}" for item in (*WIDE, *settings)])
    model = config.build_model("cpu").eval()
    model.reset_parameters()
    batch = video_batch(config, num_frames=8, text=40, loss=10)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False, depth=4) as counter:
        output = model(batch)
    modules = {name.partition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    expected = flops_for_layout(config, batch.layout)
    assert output.logits.shape[0] == 10
    assert modules["vision_backbone.image_vit"] == pytest.approx(expected.vit + expected.scorer, rel=0.01)
    connector = modules["vision_backbone.image_pooling_2d"] + modules["vision_backbone.image_projector"]
    assert connector == pytest.approx(expected.connector, rel=0.01)
    assert modules["transformer"] == expected.llm_linear + 2 * expected.llm_attention
    outside_of_modules = counter.get_total_flops() - modules["transformer"] - modules["vision_backbone"]
    assert outside_of_modules == expected.head
    assert counter.get_total_flops() == pytest.approx(expected.total + expected.llm_attention, rel=0.01)
