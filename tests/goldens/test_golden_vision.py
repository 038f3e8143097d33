"""Parity of ViT, connector and STTS with the published code on stored inputs, weights and outputs (fp32).

Seen to fail with: key order of `vit_layers` swapped, bias rescaled over the frame, refill off, 1 - similarity without 1 -.
"""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from olmo.batch import MultimodalType, RowLayout, VisualSegment
from olmo.nn.image_vit import VitConfig, normalize_pixels
from olmo.nn.llm_config import LlmConfig
from olmo.nn.temporal_vision_backbone import TemporalVisionBackboneConfig
from olmo.nn.token_packing import unpack_to_frames
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig
from tests.device import DEVICE
from tests.goldens.model_files import check_close, check_error, files, load, quantities, state_dict

SEGMENTS = {"video": MultimodalType.VIDEO, "image": MultimodalType.IMAGE, "multi_image": MultimodalType.MULTI_IMAGE}
STTS = "temporal_vision_backbone"


def backbone_of(config_class: type, path: Path, **vit):
    meta, _ = load(path)
    config = config_class.from_dict({key: meta[key] for key in ("vit_layers", "pooling_attention_mask")} | {"vit": meta["vit"] | vit})
    backbone = config.build(LlmConfig(**meta["llm"]))
    backbone.load_state_dict(state_dict(path))
    return backbone.to(DEVICE)


def num_pooled(token_pooling: torch.Tensor) -> list[int]:
    return (token_pooling >= 0).any(-1).sum(-1).tolist()


@cache
@torch.no_grad()
def vit_blocks(path: Path) -> dict[int, torch.Tensor]:
    meta, tensors = load(path)
    config = VitConfig.from_dict(meta["vit"])
    vit = config.build()
    vit.to(DEVICE).load_state_dict(state_dict(path))
    if "in.patches" in tensors:
        return vit(tensors["in.patches"])
    return vit(normalize_pixels(tensors["in.images_u8"].flatten(0, 1), config.normalize))


@pytest.mark.parametrize("path, key", quantities("vit", "out.hidden_"))
def test_golden_vit(path, key):
    """The output of every block."""
    check_close(vit_blocks(path)[int(key.removeprefix("out.hidden_"))], path, key, 5e-6)


@pytest.mark.parametrize("path, key", quantities("vision_backbone", "out.features"))
def test_golden_connector(path, key):
    """Selected layers, pooling with missing patches and the projector."""
    pooling = load(path)[1]["in.token_pooling"]
    layout = tuple(RowLayout((), 0, n) for n in num_pooled(pooling))
    with torch.no_grad():
        out = backbone_of(MolmoVisionBackboneConfig, path).eval()(load(path)[1]["in.images_u8"], pooling, layout)
    check_close(out.features, path, key, 2e-5)
    assert out.keep_rows is None


@cache
def stts(path: Path, packing: str = "first_fit", refill: bool = True):
    """Backbone and row layout of a file; tests set the mode."""
    meta, tensors = load(path)
    backbone = backbone_of(TemporalVisionBackboneConfig, path, packing=packing, refill_lone_frames=refill, **meta["temporal"])
    cells = backbone.config.vit.cells.num_cells
    segments = tuple(VisualSegment(SEGMENTS[kind], n, cells if kind == "video" else 0) for kind, n in meta["segments"])
    return backbone, tuple(RowLayout(segments, 0, n) for n in num_pooled(tensors["in.token_pooling"]))


@cache
@torch.no_grad()
def stts_forward(path: Path, packing: str = "first_fit", refill: bool = True) -> SimpleNamespace:
    """Output of the backbone in evaluation mode, with what its ViT received and returned."""
    tensors = load(path)[1]
    backbone, layout = stts(path, packing, refill)
    seen = {}
    hook = backbone.image_vit.register_forward_hook(lambda module, args, result: seen.update(vit=result, args=args))
    out = backbone.eval()(tensors["in.images_u8"], tensors["in.token_pooling"], layout)
    hook.remove()
    return SimpleNamespace(out=out, vit=seen["vit"], videos=getattr(seen["args"][2], "videos", ()) if len(seen["args"]) > 2 else ())


@cache
def stts_training(path: Path) -> SimpleNamespace:
    """Features, auxiliary loss and gradients in training mode, of the loss that the metadata names."""
    tensors = load(path)[1]
    backbone, layout = stts(path)
    backbone.train().zero_grad()
    out = backbone(tensors["in.images_u8"], tensors["in.token_pooling"], layout)
    loss = (out.features * torch.linspace(-1, 1, out.features.numel(), device=DEVICE).view_as(out.features)).mean()
    (loss if out.aux_loss is None else loss + out.aux_loss).backward()
    gradients = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
    aux_loss = 0.0 if out.aux_loss is None else out.aux_loss.item()
    return SimpleNamespace(features=out.features.detach(), aux_loss=aux_loss, gradients=gradients)


@pytest.mark.parametrize("path, key", quantities(STTS, "out.features"))
def test_golden_stts_features(path, key):
    out = stts_forward(path).out
    check_close(out.features, path, key, 2e-5)
    assert sum(out.kept_per_row) == len(out.features)


def _read_by_connector(meta: dict, key: str) -> bool:
    layers = [layer % meta["vit"]["image_num_layers"] for layer in meta["vit_layers"]]
    return meta["temporal"].get("prune", True) and int(key.removeprefix("out.hidden_")) in layers


@pytest.mark.parametrize("path, key", quantities(STTS, "out.hidden_", _read_by_connector))
def test_golden_stts_block(path, key):
    """Biased and packed blocks. The published biased block lists dropped patches too; ours is read at kept ones only."""
    tensors, result, backbone = load(path)[1], stts_forward(path).vit, stts(path)[0]
    width, place = backbone.config.vit.image_emb_dim, backbone.layers.index(int(key.removeprefix("out.hidden_")))
    x = result.patches[:, place * width : (place + 1) * width]
    if result.kept is None:
        return check_close(x.view_as(tensors[key]), path, key, 5e-6)
    expected = tensors[key] * result.keep[..., None]
    error = (unpack_to_frames(x, result.keep) - expected).abs().max().item()
    check_error(path, key, error, 5e-6 * expected.abs().max().item())


def frames_with_defined_scores(meta: dict) -> list[int]:
    """Frames 1.. of every video, and frame 0 of a video that is alone in the file: the rest mix unrelated frames."""
    frames, start = [], 0
    for kind, n in meta["segments"]:
        if kind == "video":
            frames += range(start + (len(meta["segments"]) > 1), start + n)
        start += n
    return frames


def has_video(meta: dict, key: str) -> bool:
    return any(kind == "video" for kind, _ in meta["segments"])


@pytest.mark.parametrize("path, key", quantities(STTS, "out.scores", has_video))
def test_golden_stts_scores(path, key):
    meta, tensors = load(path)
    frames = frames_with_defined_scores(meta)
    check_error(path, key, (stts_forward(path).out.scores[frames] - tensors[key][frames]).abs().max().item(), 2e-5)


@pytest.mark.parametrize("path, key", quantities(STTS, "out.keep_patches", has_video))
def test_golden_stts_keep_patches(path, key):
    expected, seen = load(path)[1][key], stts_forward(path)
    prunable = [frame for video in seen.videos for frame in range(video.start, video.start + video.num_frames)]
    if len(expected) == load(path)[1]["in.images_u8"].shape[1] != len(prunable):  # listed for all frames of the batch
        expected = expected[prunable]
    assert torch.equal(seen.vit.keep[prunable], expected)


@pytest.mark.parametrize("path, key", quantities(STTS, "out.keep_cells_of_prunable_frames"))
def test_golden_stts_keep_cells(path, key):
    """The keep mask over the cells of videos, frame-major, from the mask over the rows of `token_pooling`."""
    meta, tensors = load(path)
    keep, some_patch = stts_forward(path).out.keep_rows[0], tensors["in.token_pooling"][0].amax(-1)
    per_frame, start, kept = tensors["in.images_u8"].shape[2], 0, []
    for kind, n in meta["segments"]:
        if kind == "video":
            kept.append(keep[(some_patch >= start * per_frame) & (some_patch < (start + n) * per_frame)])
        start += n
    assert torch.equal(torch.cat(kept), tensors[key])


def _prunes(meta: dict, key: str) -> bool:
    return meta["temporal"].get("prune", True)


@pytest.mark.parametrize("path, key", quantities(STTS, "out.new_batch_size", _prunes))
def test_golden_stts_packed_rows(path, key):
    assert stts_forward(path).out.metrics["packed_rows"] == int(load(path)[1][key])


@pytest.mark.parametrize("path, key", quantities(STTS, "out.refill_over_kept", _prunes))
def test_golden_stts_refill(path, key):
    assert float(stts_forward(path).out.metrics["refilled_over_kept"]) == pytest.approx(float(load(path)[1][key]), abs=1e-6)


@pytest.mark.parametrize("path, key", quantities(STTS, "out.train_features"))
def test_golden_stts_train_features(path, key):
    check_close(stts_training(path).features, path, key, 2e-5)


def pairs_cross_videos(meta: dict) -> bool:
    """With several segments in a row the published auxiliary loss also pairs frames of different videos and images."""
    kinds = [kind for kind, _ in meta["segments"]]
    return kinds.count("video") > 1 or len(set(kinds)) > 1


@pytest.mark.parametrize("path, key", quantities(STTS, "out.train_aux_loss", lambda meta, key: not pairs_cross_videos(meta)))
def test_golden_stts_aux_loss(path, key):
    check_error(path, key, abs(stts_training(path).aux_loss - float(load(path)[1][key])), 1e-6)


def _gradient_is_comparable(meta: dict, key: str) -> bool:
    """Where pairs cross videos, only what the auxiliary loss does not reach: later blocks and the connector."""
    if not pairs_cross_videos(meta):
        return True
    if "resblocks." in key:
        return int(key.split("resblocks.")[1].split(".")[0]) > meta["temporal"]["prune_at"]
    return not key.startswith("out.grad.image_vit.")


@pytest.mark.parametrize("path, key", quantities(STTS, "out.grad.", _gradient_is_comparable))
def test_golden_stts_gradient(path, key):
    check_close(stts_training(path).gradients[key.removeprefix("out.grad.")], path, key, 1e-4)


@pytest.mark.parametrize("path", files(STTS))
def test_golden_stts_varlen_agrees_with_first_fit(path):
    """Without refill both packings keep the same and compute the same; the published numbers too where nothing was refilled."""
    rows, varlen = stts_forward(path, "first_fit", False).out, stts_forward(path, "varlen", False).out
    largest = rows.features.abs().max().item()
    check_error(path, "varlen against first_fit", (varlen.features - rows.features).abs().max().item(), 2e-5 * largest)
    assert rows.keep_rows is varlen.keep_rows is None or torch.equal(rows.keep_rows, varlen.keep_rows)
    if float(load(path)[1]["out.refill_over_kept"]) == 0:
        check_close(varlen.features, path, "out.features", 2e-5)


@pytest.mark.parametrize("path", files(STTS))
def test_golden_stts_quantities_all_have_a_test(path):
    """A stored quantity without a test here fails by name."""
    tested = ("features", "hidden_", "scores", "keep_patches", "keep_cells_of_prunable_frames", "new_batch_size", "refill_over_kept")
    tested += ("train_features", "train_aux_loss", "grad.")
    assert not [key for key in load(path)[1] if key.startswith("out.") and not key.removeprefix("out.").startswith(tested)]
