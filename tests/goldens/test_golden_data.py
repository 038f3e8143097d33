"""Reference vectors of the published data side, one test per file (or kind of case).

Seen to fail with the budget computed in float64, the larger half of the padding in front of a cell grid, and pixels cut off
instead of rounded.
"""

import numpy as np
import pytest
import torch

from olmo.budget import pruning_budget
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.collator import Collator
from olmo.preprocessing.crops import ImagePreprocessor, MultiCropConfig, overlapping_tiles, select_tiling
from olmo.preprocessing.example import ProcessedExample
from olmo.preprocessing.formatter import DataFormatter, DataFormatterConfig
from olmo.preprocessing.frame_sampling import FrameSampler, TimeSampler
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.message_tree import MessageTreeBuilder, MessageWeight, TextPreprocessorConfig
from olmo.preprocessing.multimodal import ExamplePreprocessor
from olmo.preprocessing.point_parsing import parse_any, parse_frame_points, parse_points, parse_tracks
from olmo.preprocessing.points import PointFormatter, output_timestamp, parse_timestamp, seconds_to_clock
from olmo.preprocessing.pooling import pooling_index
from olmo.preprocessing.video import VideoFrames, VideoPreprocessor, VideoPreprocessorConfig
from tests.goldens.data_cases import FOLDER, TAKEN, cases, read, rle, sha256, tokenizer


@pytest.mark.parametrize("case", cases("budgets.json"))
def test_golden_budget(case):
    given = case["input"]
    budget = pruning_budget(given["num_frames"], given["cells_per_frame"], given["topk"], given["prune_from_frame"])
    assert budget == case["expected"]["capped_budget"]


@pytest.mark.parametrize("case", cases("frame_sampling.json", "time_sampler"))
def test_golden_time_sampler(case):
    given = case["input"]
    more = {"candidate_sampling_fps": given["candidate_sampling_fps"]} if "candidate_sampling_fps" in given else {}
    sample = TimeSampler(given["max_frames"], given["mode"], max_fps=given["max_fps"], **more)(given["duration_s"])
    assert sample.target_fps == case["expected"]["target_fps"]
    np.testing.assert_allclose(sample.positions, case["expected"]["times_s"], atol=1e-6)


@pytest.mark.parametrize("case", cases("frame_sampling.json", "frame_sampler"))
def test_golden_frame_sampler(case):
    given = case["input"]
    sample = FrameSampler(given["max_frames"], given["mode"], min_fps=given.get("min_fps"))(given["video_fps"], given["total_frames"])
    assert sample.target_fps == case["expected"]["target_fps"]
    assert sample.positions.tolist() == case["expected"]["indices"]


@pytest.mark.parametrize("case", cases("video_layout.json", "pool_index"))
def test_golden_pool_index(case):
    h, w = case["input"]["grid"]
    index = pooling_index(np.arange(h * w).reshape(h, w), *case["input"]["pool"])
    assert list(index.shape[:2]) == case["expected"]["out_grid"]
    assert sha256(index) == case["expected"]["sha256"]


def _subtitle(value):
    return [tuple(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", cases("video_layout.json", "video_tokens"))
def test_golden_video_tokens(case):
    given, want = case["input"], case["expected"]
    keys = ("per_frame_special_token", "use_frame_special_tokens", "time_mode", "subtitle_mode", "max_subtitle_tokens")
    config = VideoPreprocessorConfig(pooling_w=given["pool"], pooling_h=given["pool"], **{k: given[k] for k in keys})
    height, width = given["grid"]
    pixels = PixelConfig((2 * height, 2 * width), 2)
    tok = tokenizer(given["tokenizer"])
    frames = np.zeros((len(given["timestamps_s"]), *pixels.size, 3), dtype=np.uint8)
    out = VideoPreprocessor(config, pixels, tok)(
        VideoFrames(frames, np.asarray(given["timestamps_s"]), subtitle=_subtitle(given["subtitle"]))
    )
    tokens = out.blocks[0]
    assert "tokens_rle" not in want or rle(tokens.tolist()) == want["tokens_rle"]
    assert sha256(tokens) == want["tokens_sha256"]
    assert (tokens == tok.image_patch_id).sum() == want["num_image_patch_tokens"] == len(out.token_pooling)
    assert list(out.images.shape[:2]) == want["images_shape"]
    assert list(out.token_pooling.shape) == want["token_pooling_shape"]
    assert sha256(out.token_pooling) == want["token_pooling_sha256"]
    if "token_pooling" in want:
        assert out.token_pooling.tolist() == want["token_pooling"]
    cells = out.segments[0].cells_per_frame
    assert cells * len(frames) == len(out.token_pooling)
    assert tok.decode(tokens, truncate_at_eos=False).replace("<im_patch>" * cells, f"<im_patch>*{cells}") == want["text"]


def _crops(config, max_images=None):
    pixels = PixelConfig((config["crop_side_patches"] * config["patch_px"],) * 2, config["patch_px"])
    pool = {k: config["pool"] for k in ("pooling_w", "pooling_h", "multi_image_pooling_w", "multi_image_pooling_h")}
    keys = ("crop_mode", "max_crops", "use_col_tokens", "use_single_crop_col_tokens", "use_single_crop_start_token")
    given = {k: config[k] for k in keys}
    multi = MultiCropConfig(
        **given, **pool, overlap_margins=config["overlap_margins"], max_multi_image_crops=config["max_crops"], max_images=max_images
    )
    return ImagePreprocessor(multi, pixels, tokenizer("tiny"))


@pytest.mark.parametrize("case", cases("image_layout.json", "image"))
def test_golden_image(case):
    given, want = case["input"], case["expected"]
    pre = _crops(given["config"])
    image = np.zeros((given["height"], given["width"], 3), dtype=np.uint8)
    out = pre(image)
    tokens = out.blocks[0]
    assert len(out.images) == want["num_crops"] == out.segments[0].num_frames
    assert "tokens_rle" not in want or rle(tokens.tolist()) == want["tokens_rle"]
    assert sha256(tokens) == want["tokens_sha256"]
    assert list(out.token_pooling.shape) == want["token_pooling_shape"]
    assert sha256(out.token_pooling) == want["token_pooling_sha256"]
    if want.get("tiling"):
        _, canvas = overlapping_tiles(image, pre.pixels, pre.config.overlap_margins, pre.config.max_crops)
        canvas = canvas + pre.pixels.num_patches
        assert list(canvas.shape) == want["canvas_patches"]
        if "canvas_to_patch_id" in want:
            assert canvas.tolist() == want["canvas_to_patch_id"]


@pytest.mark.parametrize("case", cases("image_layout.json", "select_tiling"))
def test_golden_tiling(case):
    given = case["input"]
    assert list(select_tiling(given["height"], given["width"], given["window"], given["max_crops"])) == case["expected"]["tiling"]


@pytest.mark.parametrize("case", cases("image_layout.json", "multi_image"))
def test_golden_multi_image(case):
    given, want = case["input"], case["expected"]
    pre = _crops(given["config"], given["max_images"])
    out = pre.many([np.zeros((h, w, 3), dtype=np.uint8) for w, h in given["sizes_wh"]])
    assert [len(b) for b in out.blocks] == want["per_image_num_tokens"]
    assert len(out.images) == want["num_crops"]
    assert sha256(out.token_pooling) == want["token_pooling_sha256"]
    text = MessageTreeBuilder(TextPreprocessorConfig(loss_token_weighting="root_subsegments_root_tokens"), pre.tokenizer)
    sequence = text(given["messages"], out.blocks)
    assert sha256(sequence.input_tokens) == want["input_tokens_sha256"]
    for name in ("target_tokens", "loss_masks", "position_ids", "subsegment_ids"):
        if want.get(name) is not None:
            np.testing.assert_allclose(getattr(sequence, name), want[name], atol=1e-6)


def _weight(value):
    if isinstance(value, list):
        return [_weight(v) for v in value]
    return MessageWeight(**value) if isinstance(value, dict) else value


@pytest.mark.parametrize("case", cases("message_tree.json"))
def test_golden_message_tree(case):
    given, want = case["input"], case["expected"]
    config = TextPreprocessorConfig(
        given["max_answer_len"], given["last_message_loss_only"], given["max_text_tokens"], given["loss_token_weighting"]
    )
    build = MessageTreeBuilder(config, tokenizer(given["tokenizer"]))
    blocks = [np.asarray(b) for b in given["vision_blocks"]]
    sequence = build(given["messages"], blocks, _weight(given["weight"]), given["max_sequence_length"])
    for name in ("input_tokens", "target_tokens", "position_ids"):
        assert getattr(sequence, name).tolist() == want[name], name
    if want["loss_masks"] is not None:
        np.testing.assert_allclose(sequence.loss_masks, want["loss_masks"], atol=1e-6)
    assert (None if sequence.subsegment_ids is None else sequence.subsegment_ids.tolist()) == want["subsegment_ids"]


def _same_pixels(actual, expected):
    """Equal but for the rounding of exact halves, which depends on the processor."""
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("case", cases("pixels.json", "resize_patches"))
def test_golden_resize(case):
    given, want = case["input"], case["expected"]
    arrays = np.load(FOLDER / "pixels.npz")
    source, expected = arrays[given["array"]], arrays[want["array"]]
    pixels = PixelConfig((given["target_px"],) * 2, given["patch_px"], uint8=given["normalize_on_gpu"])
    patches = pixels.to_patches(pixels.resize_frames(source if source.ndim == 4 else source[None]))
    assert patches.dtype == expected.dtype and patches.shape == expected.shape
    if given["normalize_on_gpu"]:
        _same_pixels(patches, expected)
    else:
        np.testing.assert_allclose(patches, expected, atol=0.008)


@pytest.mark.parametrize("case", cases("pixels.json", "overlap_tiles"))
def test_golden_tiles(case):
    given, want = case["input"], case["expected"]
    arrays = np.load(FOLDER / "pixels.npz")
    pixels = PixelConfig((given["crop_px"],) * 2, given["patch_px"])
    tiles, canvas = overlapping_tiles(arrays[given["array"]], pixels, given["overlap_margins"], given["max_crops"])
    _same_pixels(pixels.to_patches(tiles), arrays[want["array"]])
    assert canvas.tolist() == want["canvas_to_patch_id"]


@pytest.mark.parametrize("case", cases("collate.json"))
def test_golden_collate(case):
    """One difference: a batch without any picture carries no picture tensors here, where the published one is all padding and sends
    it through the ViT."""
    given, want = case["input"], case["expected"]
    examples = []
    for raw in given["examples"]:
        more = {}
        if "images" in raw:
            more = {"images": np.asarray(raw["images"], dtype=given["image_dtype"]), "token_pooling": np.asarray(raw["token_pooling"])}
        if "subsegment_ids" in raw:
            more["subsegment_ids"] = np.asarray(raw["subsegment_ids"])
        text = {k: np.asarray(raw[k]) for k in ("input_tokens", "target_tokens", "loss_masks", "position_ids")}
        examples.append(ProcessedExample(**text, **more))
    collate = Collator(
        tokenizer("tiny").image_token_ids(),
        pad_to=given["pad"],
        seq_len=given["sequence_length"],
        max_frames=given["max_crops"],
        max_pooled=None if given["variable_pooling_rows"] else given["max_pooling_rows"],
    )
    if "error" in want:
        reason = {
            "image_truncated": "visual part would be cut",
            "all_loss_truncated": "whole answer would be cut",
            "too_many_rows": "more than",
        }
        with pytest.raises(OLMoDataError, match=reason[want["error"]]):
            collate(examples)
        return
    batch = collate(examples)
    if not any("images" in raw for raw in given["examples"]):
        padding = [want["tensors"].pop(name, {"values": -1})["values"] for name in ("images", "token_pooling")]
        assert all((np.asarray(values) == -1).all() for values in padding)
    for name, expected in want["tensors"].items():
        tensor = getattr(batch, name)
        assert tensor.dtype == getattr(torch, expected["dtype"]), name
        assert tensor.tolist() == expected["values"], name
    assert {n for n in batch.TENSORS if getattr(batch, n) is not None} == set(want["tensors"])


@pytest.mark.parametrize("case", cases("prompts.json"))
def test_golden_prompts(case):
    given, want = case["input"], case["expected"]
    formatter = DataFormatter(DataFormatterConfig(**(read("prompts.json")["base_config"] | given["config"])))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        messages, metadata = formatter(given["example"], rng, is_training=given["is_training"], for_inference=given["for_inference"])
        assert messages == want["messages"]
        assert metadata == want["metadata"]


_MODES = {"pointing": None, "point": None, None: None, "point_count": "point_then_count", "count_point": "count_then_point"}


def _mode(given):
    return _MODES.get(given["mode"], given["mode"])


@pytest.mark.parametrize("case", cases("points.json", "format_image_points"))
def test_golden_image_points(case):
    given = case["input"]
    text = PointFormatter(given["format"]).image(given["points"], given["label"], given["scale"], _mode(given), given.get("alt_text"))
    assert text == case["expected"]["result"]


@pytest.mark.parametrize("case", cases("points.json", "format_multi_image_points"))
def test_golden_points_of_several_images(case):
    given = case["input"]
    text = PointFormatter(given["format"]).images(given["points"], given["image_indices"], given["label"], given["scale"], _mode(given))
    assert text == case["expected"]["result"]


@pytest.mark.parametrize("case", cases("points.json", "format_video_tracks"))
def test_golden_tracks(case):
    given = case["input"]
    text = PointFormatter(given["format"]).tracks(given["frames"], given["label"], given["scale"], given["start_end_only"])
    assert text == case["expected"]["result"]


@pytest.mark.parametrize("case", cases("points.json", "parse_points", "parse_frame_points", "parse_any"))
def test_golden_parsed_points(case):
    given = case["input"]
    if case["kind"] == "parse_any":
        found = parse_any(given["text"], given["metadata"])
    else:
        found = {"parse_points": parse_points, "parse_frame_points": parse_frame_points}[case["kind"]](**given)
    want = case["expected"]["result"]
    assert len(found) == len(want)
    for got, expected in zip(found, want, strict=True):
        assert got == pytest.approx(tuple(expected))


@pytest.mark.parametrize("case", cases("points.json", "parse_tracks"))
def test_golden_parsed_tracks(case):
    """Equal to the last digit: both compute thousandths first."""
    assert parse_tracks(**case["input"]) == case["expected"]["result"]


@pytest.mark.parametrize("case", cases("points.json", "format_video_points"))
def test_golden_video_points(case):
    given = case["input"]
    text = PointFormatter(given["format"]).video(given["points"], given["timestamps"], given["label"], given["scale"], _mode(given))
    assert text == case["expected"]["result"]


@pytest.mark.parametrize("case", cases("points.json", "seconds_to_clock", "clock_to_seconds", "output_timestamp"))
def test_golden_times(case):
    given, want = case["input"], case["expected"]["result"]
    if case["kind"] == "clock_to_seconds":
        assert parse_timestamp(given["text"]) == pytest.approx(want)
    elif case["kind"] == "output_timestamp":
        assert output_timestamp(given["seconds"]) == want
    else:
        assert seconds_to_clock(given["seconds"], given["decimals"]) == want


@pytest.mark.parametrize("case", cases("examples.json"))
def test_golden_example(case):
    """The whole pipeline in the geometry of the released models."""
    given, want = case["input"], case["expected"]
    tok, pixels = tokenizer(given["tokenizer"]), PixelConfig()
    video = VideoPreprocessorConfig(per_frame_special_token=given["per_frame_special_token"])
    image = MultiCropConfig(
        "overlap-and-resize-c2",
        max_crops=8,
        max_multi_image_crops=8,
        max_images=5,
        use_single_crop_col_tokens=False,
        use_single_crop_start_token=True,
    )
    process = ExamplePreprocessor(
        formatter=DataFormatter(DataFormatterConfig(**read("prompts.json")["base_config"])),
        text=MessageTreeBuilder(TextPreprocessorConfig(loss_token_weighting=given["loss_token_weighting"]), tok),
        video=VideoPreprocessor(video, pixels, tok),
        image=ImagePreprocessor(image, pixels, tok),
        tokenizer=tok,
        is_training=False,  # the branches of the training case keep their order
        for_inference=given["for_inference"],
    )
    example = dict(given["example"])
    if "weight" in given:
        example["weight"] = _weight(given["weight"])
    if "video" in given:
        w, h = given["video"]["frame_wh"]
        times = np.asarray(given["video"]["timestamps_s"])
        frames = np.zeros((len(times), h, w, 3), dtype=np.uint8)
        example["video"] = VideoFrames(frames, times, subtitle=_subtitle(given["video"]["subtitle"]))
    if "image_sizes_wh" in given:
        images = [np.zeros((h, w, 3), dtype=np.uint8) for w, h in given["image_sizes_wh"]]
        example["image"] = images if given["image_is_list"] else images[0]
    out = process(example, np.random.default_rng(0))
    assert out.num_tokens == want["num_tokens"]
    assert rle(out.input_tokens.tolist()) == want["input_tokens_rle"]
    assert rle(out.target_tokens.tolist()) == want["target_tokens_rle"]
    if want["loss_masks_rle"] is not None:
        np.testing.assert_allclose(out.loss_masks, np.repeat(*np.asarray(want["loss_masks_rle"]).T.tolist()), atol=1e-6)
    assert sha256(out.position_ids) == want["position_ids_sha256"]
    assert (None if out.subsegment_ids is None else rle(out.subsegment_ids.tolist())) == want["subsegment_ids_rle"]
    if "images_shape" in want:
        assert list(out.images.shape) == want["images_shape"] and str(out.images.dtype) == want["images_dtype"]
        assert sha256(out.token_pooling) == want["token_pooling_sha256"]
    for key, value in want["metadata"].items():
        got = out.metadata[key]
        assert (list(map(list, got)) if key == "image_group_size" else list(got) if key == "image_size" else got) == value


def test_golden_data_kinds_are_known():
    """A kind of case without a test fails by name."""
    import tests.goldens.test_golden_packing
    import tests.goldens.test_golden_scores
    import tests.goldens.test_golden_video_frames  # noqa: F401

    stored = {(path.name, case.get("kind")) for path in FOLDER.glob("*.json") for case in read(path.name)["cases"]}
    assert stored <= TAKEN
