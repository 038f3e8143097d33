"""From a model config to processed examples: key spellings, media, lengths after pruning, and errors that name the example."""

import pickle

import numpy as np
import pytest
import yaml

from olmo.batch import MultimodalType
from olmo.budget import pruning_budget
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.models.molmo2.config import Molmo2Config
from olmo.models.molmo2.preprocessor import Molmo2PreprocessorConfig, build_collator, build_preprocessor
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from olmo.models.temporal_video_olmo.preprocessor import TemporalMolmo2PreprocessorConfig
from olmo.preprocessing.frame_sampling import TimeSampler
from olmo.preprocessing.message_tree import MessageWeight
from olmo.preprocessing.video import VideoFrames


@pytest.fixture
def config(repo):
    return TemporalVideoOlmoConfig.from_dict(yaml.safe_load((repo / "configs" / "tiny.yaml").read_text())["model"])


def frames(n=8, size=(60, 80), subtitle=None):
    return VideoFrames(np.random.default_rng(0).integers(0, 256, (n, *size, 3), dtype=np.uint8), np.arange(n) / 2, subtitle=subtitle)


def load_video(path, sampler, *, clip=None, transform=None):
    """A stand-in for the data side: frames of a grey level, at the times that the sampler asks for."""
    assert isinstance(sampler, TimeSampler)
    times = sampler(clip[1] - clip[0] if clip else 4.0).positions
    picture = np.full((64, 64, 3), 77, dtype=np.uint8)
    return VideoFrames(np.stack([transform(picture) for _ in times]), times, size_wh=(64, 64))


def rng(seed=0):
    return np.random.default_rng(seed)


QUESTION = {"style": "video_short_answer", "question": "What colour is the star?", "answer": "red"}


def test_flat_and_nested_keys_mean_the_same():
    nested = ["video.max_frames=64", "video.max_subtitle_tokens=null", "video.use_frame_special_tokens=False", "video.topk=0.3"]
    flat = [n.removeprefix("video.") for n in nested]
    base = TemporalMolmo2PreprocessorConfig()
    assert base.with_overrides(nested) == base.with_overrides(flat)
    assert base.with_overrides(flat).video.max_frames == 64 and base.with_overrides(flat).video.topk == 0.3
    assert base.with_overrides(["max_text_tokens=5"]).max_text_tokens == 5
    with pytest.raises(OLMoConfigurationError, match="topk"):
        Molmo2PreprocessorConfig().with_overrides(["topk=0.3"])


def test_older_flat_files_are_migrated():
    old = {
        "max_frames": 24,
        "pooling_w": 3,
        "pooling_h": 3,
        "time_sampling": True,
        "max_crops": 1,
        "image_padding_mask": False,
        "max_answer_len": 9,
    }
    new = Molmo2PreprocessorConfig.from_dict(old)
    assert (new.video.max_frames, new.video.time_sampling, new.max_answer_len) == (24, True, 9)
    assert new.video.per_frame_special_token
    assert not Molmo2PreprocessorConfig.from_dict({"video": {"per_frame_special_token": False}}).video.per_frame_special_token
    assert TemporalMolmo2PreprocessorConfig.from_dict({"topk": 0.4, "video": {"max_frames": 2}}).video.topk == 0.4
    assert TemporalMolmo2PreprocessorConfig.from_dict({"topk": 0.4, "max_frames": 2}).video.topk == 0.4
    with pytest.raises(OLMoConfigurationError, match="max_crops 4 of an older config"):
        Molmo2PreprocessorConfig.from_dict({"max_frames": 8, "max_crops": 4})


def test_default_layout_marks_every_frame():
    assert Molmo2PreprocessorConfig().video.per_frame_special_token


@pytest.mark.parametrize("topk", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_lengths_after_pruning(config, topk, n):
    """Counted with the one budget function. Seen to fail with the budget taken from `video.topk` alone (null = 0)."""
    config = config.with_overrides([f"vision_backbone.vit.topk={topk}", "mm_preprocessor.loss_token_weighting=null"])
    out = build_preprocessor(config)({"video": frames(n), **QUESTION}, rng())
    assert out.dropped_cells == pruning_budget(n, 9, topk) == out.num_tokens - out.num_tokens_after_pruning
    off = config.with_overrides(["vision_backbone.vit.prune=false"])
    assert build_preprocessor(off)({"video": frames(n), **QUESTION}, rng()).dropped_cells == 0
    late = config.with_overrides(["vision_backbone.vit.prune_from_frame=1"])
    assert build_preprocessor(late)({"video": frames(n), **QUESTION}, rng()).dropped_cells == pruning_budget(n, 9, topk, 1)


@pytest.mark.parametrize("topk", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_fewer_frames(config, topk, n):
    """No more visual tokens than pruning leaves, none of them to be dropped; first and last frame stay, at their true times."""
    words = [f"vision_backbone.vit.{word}" for word in (f"topk={topk}", "prune_method=fewer_frames")]
    pre = build_preprocessor(config.with_overrides(words))
    out = pre({"video": frames(n), **QUESTION}, rng())
    left = n * 9 - pruning_budget(n, 9, topk)
    assert out.dropped_cells == 0 and out.num_pooled == 9 * out.num_frames == 9 * max(1, left // 9)
    assert out.num_pooled + out.num_spared == 9 * n and out.segments[0].num_frames == len(out.metadata["frame_times"])
    times = out.metadata["frame_times"]
    assert times[0] == 0 and set(times) <= set(np.arange(n) / 2) and (len(times) == 1 or times[-1] == (n - 1) / 2)
    assert pre.video.max_frames == max(1, (72 - pruning_budget(8, 9, topk)) // 9)
    full = frames(n)
    expected = pre.video.pixels.to_patches(pre.video.pixels.resize_frames(full.frames))
    assert np.array_equal(out.images, expected[[int(2 * t) for t in times]])


@pytest.mark.parametrize("late", [False, True], ids=["sampled", "fake rate"])
def test_fewer_frames_are_chosen_before_decoding(config, late):
    """Only the frames that the model sees are decoded, except where their rate must be told first. Seen to fail with frames thinned
    twice, and with the fake rate told from the few frames that are left."""
    decoded = []

    def load(path, sampler, **kwargs):
        video = load_video(path, sampler, **kwargs)
        decoded.append(len(video))
        return video

    pre = build_preprocessor(config.with_overrides(["vision_backbone.vit.prune_method=fewer_frames"]), load_video=load)
    metadata = {"clip_start_time": 0, "clip_end_time": 3.5, **({"fake_timestamp_fps": 1.0} if late else {})}
    out = pre({"video": "x.mp4", **QUESTION, "metadata": metadata}, rng())
    assert decoded == [8 if late else 4] and out.num_frames == 4
    assert out.metadata["frame_times"] == ([0.0, 2.0, 5.0, 7.0] if late else [0.0, 1.0, 2.5, 3.5])


@pytest.mark.parametrize(("topk", "side"), [(0.0, 9), (0.5, 6), (0.8, 3)])
def test_lower_resolution(config, topk, side):
    """Frames and images of the largest grid that has few enough cells; before pruning means at full size."""
    words = [f"vision_backbone.vit.{word}" for word in (f"topk={topk}", "prune_method=lower_resolution")]
    config = config.with_overrides(words)
    assert config.vision_backbone.vit.grid == (side, side)
    pre = build_preprocessor(config)
    out = pre({"video": frames(8), **QUESTION}, rng())
    cells = (side // 3) ** 2
    assert out.images.shape == (8, side**2, 588) and out.dropped_cells == 0
    assert out.num_pooled == 8 * cells == 72 - out.num_spared and out.segments[0].cells_per_frame == cells
    picture = pre({"image": np.zeros((90, 90, 3), np.uint8), **QUESTION, "style": "user_qa"}, rng())
    assert picture.images.shape[1] == side**2 and picture.num_spared == 0


def test_most_frames_of_an_example(config):
    """A video, an image with its overview, or a list of such images: whichever is most."""
    sizes = {"max_frames=8": 8, "image.max_crops=9": 10, "image.max_images=3": 15}
    for word, most in sizes.items():
        assert build_preprocessor(config.with_overrides([f"mm_preprocessor.{word}"])).max_frames == most
    preprocessor = build_preprocessor(config)
    preprocessor.video = preprocessor.image = None
    assert preprocessor.max_frames == 1


def test_two_values_of_topk_are_refused(config):
    with pytest.raises(OLMoConfigurationError, match="video.topk is 0.3 but vision_backbone.vit.topk is 0.5"):
        build_preprocessor(config.with_overrides(["mm_preprocessor.topk=0.3"]))
    assert build_preprocessor(config.with_overrides(["mm_preprocessor.topk=0.5"])).topk == 0.5


def test_plain_molmo2_prunes_nothing(config):
    raw = config.asdict()
    for key in ("topk", "prune", "prune_method", "prune_at"):
        raw["vision_backbone"]["vit"].pop(key)
    plain = Molmo2Config(llm=config.llm, data_formatter=config.data_formatter)
    plain.vision_backbone.vit.image_default_input_size = [28, 28]
    plain.vision_backbone.vit.resize_mode = config.vision_backbone.vit.resize_mode
    plain.vision_backbone.vit.normalize = config.vision_backbone.vit.normalize
    out = build_preprocessor(plain)({"video": frames(4), **QUESTION}, rng())
    assert out.dropped_cells == 0 and out.images.dtype == np.float32 and out.images.shape == (4, 4, 588)


def test_video_file(config):
    pre = build_preprocessor(config, for_inference=True, load_video=load_video, seq_len=512)
    example = {"video": "clip.mp4", **QUESTION, "metadata": {"example_id": "x1", "clip_start_time": 1.0, "clip_end_time": 3.0}}
    before = repr(example)
    out = pre(example, rng())
    assert out.metadata["frame_times"] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert out.metadata["image_size"] == (64, 64) and out.metadata["answer"] == "red" and out.metadata["example_id"] == "x1"
    assert out.images.shape == (5, 81, 588) and (out.images == 77).all()
    assert out.segments[0].kind == MultimodalType.VIDEO and out.segments[0].cells_per_frame == 9
    assert out.num_loss_tokens == 0
    assert pre.tokenizer.decode(out.input_tokens).endswith("<|im_start|>user\nWhat colour is the star?<|im_end|>\n<|im_start|>assistant\n")
    assert repr(example) == before  # data sets hand out shared records
    fewer = pre({**example, "metadata": {"sampler_overrides": {"max_frames": 3}}}, rng())
    assert len(fewer.images) == 3


def test_message_tree_in_a_batch(config):
    branches = [{"question": f"How many {c} shapes?", "answer": str(i)} for i, c in enumerate(("red", "green", "blue"))]
    pre = build_preprocessor(config, is_training=True, seq_len=512)
    tree = {"video": frames(), "message_list": branches, "metadata": {"example_id": "t"}}
    orders = {pre.tokenizer.decode(pre(tree, rng(s)).input_tokens[-30:]) for s in range(20)}
    assert len(orders) > 2  # branches are shuffled by the example's generator
    assert np.array_equal(pre(tree, rng(3)).input_tokens, pre(tree, rng(3)).input_tokens)
    batch = build_collator(pre, pad_to="to_max")([pre(tree, rng(1)), pre({"question": "q?", "answer": "a"}, rng(1))])
    assert batch.input_ids.shape == (2, 512 + 36)
    assert batch.images.shape == (2, 8, 81, 588) and not batch.images[1].any()
    assert [row.num_pooled for row in batch.layout] == [72, 0]
    assert [len(row.segments) for row in batch.layout] == [1, 0]
    assert (batch.input_ids[0] == pre.tokenizer.image_patch_id).sum() == 72


def test_weights_follow_their_branches(config):
    branches = [{"question": "q?", "answer": f"{n}"} for n in (1, 2, 3)]
    weights = [MessageWeight(w, False, False) for w in (1.0, 2.0, 3.0)]
    pre = build_preprocessor(config, is_training=True)
    for seed in range(5):
        out = pre({"video": frames(1), "message_list": branches, "weight": weights}, rng(seed))
        digits = {pre.tokenizer.encode(str(n))[0]: float(n) for n in (1, 2, 3)}
        found = {t: w for t, w in zip(out.target_tokens.tolist(), out.loss_masks.tolist(), strict=True) if t in digits and w > 0}
        assert found == digits


def test_images_and_text(config):
    pre = build_preprocessor(config.with_overrides(["mm_preprocessor.image.max_images=4"]))
    picture = np.full((50, 70, 3), 9, dtype=np.uint8)
    one = pre({"image": picture, "style": "demo", "question": "q?", "answer": "a"}, rng())
    assert one.segments[0].kind == MultimodalType.IMAGE and one.dropped_cells == 0 and one.metadata["image_size"] == (70, 50)
    many = pre({"image": [picture, picture], "question": "q?", "answer": "a"}, rng())
    assert many.segments[0].kind == MultimodalType.MULTI_IMAGE and many.metadata["image_group_size"] == [(70, 50)] * 2
    text = pre({"question": "q?", "answer": "a"}, rng())
    assert text.images is None and text.segments == ()


def test_subtitles_make_room_for_the_question(config):
    """With any sequence length the question survives whole. Seen to fail with the room computed without the frames."""
    spoken = {(0.5 * i, 0.5 * i + 0.5): "and then the red star moves to the left" for i in range(20)}
    example = {"video": frames(), "subtitle": spoken, **QUESTION}
    free = build_preprocessor(config)(example, rng())
    for seq_len in (140, 200, 260):
        out = build_preprocessor(config, seq_len=seq_len)(example, rng())
        assert out.num_tokens_after_pruning == seq_len - 1  # the last answer token is no input
        assert out.num_loss_tokens == free.num_loss_tokens
    assert build_preprocessor(config, seq_len=2000)(example, rng()).num_tokens == free.num_tokens > 300


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ({**QUESTION, "metadata": {"example_id": 7}}, "example 7: its style video_short_answer asks about a video, but it has no video"),
        ({"message_list": [QUESTION]}, "'What colour is the star\\?': its style"),
        ({"video": frames(2), "image": np.zeros((9, 9, 3), np.uint8), **QUESTION}, "both a video and an image"),
        ({"video": frames(2), "question": "q?", "metadata": {"example_id": 8}}, "example 8: it has no answer"),
        ({"video": frames(2), "question": "<im_patch>?", "answer": "a"}, "reserved token <im_patch>"),
    ],
)
def test_errors_name_the_example(config, example, reason):
    with pytest.raises(OLMoDataError, match=reason):
        build_preprocessor(config)(example, rng())


def test_settings_that_cannot_fit_are_refused_early(config):
    with pytest.raises(OLMoConfigurationError, match="max_frames 8 takes at least .* seq_len 60"):
        build_preprocessor(config, seq_len=60)
    with pytest.raises(OLMoConfigurationError, match="no video reader"):
        build_preprocessor(config)({"video": "clip.mp4", **QUESTION}, rng())
    with pytest.raises(OLMoDataError, match="unknown key speed"):
        build_preprocessor(config, load_video=load_video)(
            {"video": "x", **QUESTION, "metadata": {"sampler_overrides": {"speed": 2}}}, rng()
        )


def test_workers_can_take_it_along(config):
    pre = build_preprocessor(config, load_video=load_video)
    again = pickle.loads(pickle.dumps(pre))
    example = {"video": "x.mp4", **QUESTION}
    assert np.array_equal(pre(example, rng()).input_tokens, again(example, rng()).input_tokens)
