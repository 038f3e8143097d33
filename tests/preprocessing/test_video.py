"""Frame sampling and the layout of videos beyond the reference vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.frame_sampling import FrameSampler, TimeSampler
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.video import VideoFrames, VideoPreprocessor, VideoPreprocessorConfig
from olmo.tokenizer import TokenizerConfig, build_tokenizer

TOK = build_tokenizer(TokenizerConfig("tiny"), 1024)
PIXELS = PixelConfig((28, 42))


def video(times, subtitle=None):
    return VideoFrames(np.zeros((len(times), 28, 42, 3), dtype=np.uint8), np.asarray(times, dtype=float), subtitle=subtitle)


@given(st.floats(0.01, 5000), st.integers(1, 200), st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0]))
def test_last_frame_sampling(duration, n, fps):
    """At most n times, ascending, from 0 to the end, and no faster than fps (but for the last)."""
    times = TimeSampler(n, "uniform_last_frame", max_fps=[fps])(duration).positions
    assert 1 <= len(times) <= n and times[0] == 0
    if n > 1:
        assert times[-1] == duration and (np.diff(times) > 0).all()
        assert (np.diff(times)[:-1] >= 1 / fps - 1e-9).all()


@given(st.sampled_from([10.0, 23.976, 30.0, 60.0]), st.integers(1, 2000), st.integers(1, 64), st.sampled_from([None, 1.0, 2.0]))
def test_frame_indices_stay_inside(video_fps, total, n, min_fps):
    for mode in ("uniform", "uniform_last_frame", "uniform_randomized", "fps", "fps_uniform"):
        for training in (False, True):
            sampler = FrameSampler(n, mode, min_fps=min_fps, is_training=training, rng=np.random.default_rng(0))
            index = sampler(video_fps, total).positions
            assert 1 <= len(index) <= n + 1 and index[0] == 0 and index[-1] < total, (mode, index)
            assert (np.diff(index) >= 0).all()


def test_training_draws_the_rate_from_the_examples_generator():
    def rates(seed):
        sampler = TimeSampler(64, "uniform_last_frame", max_fps=[1.0, 2.0, 4.0], is_training=True, rng=np.random.default_rng(seed))
        return len(sampler(8.0).positions)

    assert {rates(s) for s in range(30)} == {9, 17, 33}
    assert [rates(s) for s in range(30)] == [rates(s) for s in range(30)]
    drawn = TimeSampler(64, "uniform_last_frame_sample_fps", max_fps=[1.0, 4.0], is_training=True, rng=np.random.default_rng(1))
    assert len({len(drawn(8.0).positions) for _ in range(30)}) > 5


@pytest.mark.parametrize(
    ("sampler", "call", "reason"),
    [
        (TimeSampler(8, "uniform", max_fps=[2.0]), (3.0,), "takes no max_fps"),
        (TimeSampler(8, "sometimes"), (3.0,), "unknown frame_sample_mode 'sometimes'"),
        (TimeSampler(8, "uniform_last_frame_sample_fps", max_fps=[2.0]), (3.0,), "two rates"),
        (TimeSampler(8, "uniform_last_frame", max_fps=[1.0, 2.0], is_training=True), (3.0,), "random generator"),
        (FrameSampler(8, "uniform_last_frame_often"), (30.0, 90), "unknown frame_sample_mode"),
    ],
)
def test_bad_sampling_is_refused(sampler, call, reason):
    with pytest.raises(OLMoConfigurationError, match=reason):
        sampler(*call)


def test_window_that_does_not_divide_the_grid():
    """2 x 3 patches in windows of 2: 1 x 2 cells, one of them with missing patches."""
    out = VideoPreprocessor(VideoPreprocessorConfig(pooling_w=2, pooling_h=2), PIXELS, TOK)(video([0, 0.5]))
    assert out.segments[0].cells_per_frame == 2
    assert out.token_pooling.tolist() == [[0, 1, 3, 4], [2, -1, 5, -1], [6, 7, 9, 10], [8, -1, 11, -1]]


def test_subtitles_leave_room():
    pre = VideoPreprocessor(VideoPreprocessorConfig(subtitle_mode="all"), PIXELS, TOK)
    spoken = {(0.0, 1.0): "one two three", (5.0, 6.0): "four"}
    plain, whole = pre(video([0])).num_tokens, pre(video([0], spoken)).num_tokens
    assert whole > plain + 10
    assert pre(video([0], spoken), max_subtitle_tokens=4).num_tokens == plain + 4
    assert pre(video([0], spoken), max_subtitle_tokens=-3).num_tokens == plain
    assert TOK.decode(pre(video([0], spoken)).blocks[0]).endswith("subtitle\n0.0 - 1.0 one two three\n5.0 - 6.0 four\n")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"pooling_w": 2}, "must be equal"),
        ({"time_mode": "clock"}, "time_mode 'clock'"),
        ({"subtitle_mode": "some"}, "subtitle_mode 'some'"),
        ({"subtitle_mode": "truncate_5", "max_subtitle_tokens": 3}, "exclude each other"),
        ({"loading_method": "vlc"}, "loading_method 'vlc'"),
        ({"cache_videos": False}, "cache_videos"),
        ({"max_frames": 0}, "at least 1"),
    ],
)
def test_settings_are_checked(config, reason):
    with pytest.raises(OLMoConfigurationError, match=reason):
        VideoPreprocessor(VideoPreprocessorConfig(**config), PIXELS, TOK)


def test_published_reader_names():
    names = {"torchcodec_exact": "torchcodec", "decord_with_av_fallback": "auto", "av": "pyav", "decord": "decord"}
    assert {n: VideoPreprocessorConfig(loading_method=n).reader_backend for n in names} == names


def test_frames_and_times_must_match():
    with pytest.raises(OLMoDataError, match="3 frames but 2 time stamps"):
        VideoFrames(np.zeros((3, 2, 2, 3), dtype=np.uint8), np.zeros(2))
    with pytest.raises(OLMoDataError, match="no frames"):
        VideoPreprocessor(VideoPreprocessorConfig(), PIXELS, TOK)(video([]))


def test_fake_rates():
    slow = video(np.append(np.arange(0, 5, 0.5), 4.7)).with_fake_fps(1)
    np.testing.assert_allclose(slow.timestamps, np.arange(11))
    assert slow.target_fps == 1.0
    with pytest.raises(OLMoDataError, match="about 2 per second"):
        video(np.arange(0, 5, 0.1)).with_fake_fps(1)
