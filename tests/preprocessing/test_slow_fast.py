"""Which frames are slow, and which tokens and windows a video with slow and fast frames becomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.slow_fast import SlowFastConfig, by_score, choose_period, num_slow, periodic, sampling_rate, slow_frames
from olmo.preprocessing.video import VideoFrames, VideoPreprocessor, VideoPreprocessorConfig
from olmo.tokenizer import TokenizerConfig, build_tokenizer

TOK = build_tokenizer(TokenizerConfig("tiny"), 1024)
LIMITS = (128, 224, 300, 368)


def preprocessor(grid=27, **slow_fast) -> VideoPreprocessor:
    raw = {"max_frames": 368, "time_mode": "none", "slow_fast": {"mode": "periodic"} | slow_fast}
    return VideoPreprocessor(VideoPreprocessorConfig.from_dict(raw), PixelConfig((grid * 14, grid * 14)), TOK)


@pytest.mark.parametrize(("num_frames", "period", "tokens"), [(128, 1, 10_624), (224, 2, 10_528), (300, 3, 10_500), (368, 4, 10_672)])
def test_published_token_budgets(num_frames, period, tokens):
    """81 + 2 tokens of a slow frame, 9 + 2 of a fast one, on the 27 x 27 grid, without time stamps."""
    pre = preprocessor()
    slow = pre.evenly(num_frames)
    assert choose_period(num_frames, LIMITS) == period and slow.sum() == num_slow(num_frames, period)
    assert len(pre.frame_tokens(np.arange(num_frames), slow)) == tokens
    assert pre.segment(num_frames, slow=slow).num_cells == tokens - 2 * num_frames


def test_period_at_its_borders():
    assert [choose_period(n, LIMITS) for n in (1, 128, 129, 224, 225, 300, 301, 368)] == [1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(OLMoDataError, match="369 frames, but SlowFast encoding allows 368"):
        choose_period(369, LIMITS)


def slow_selection(scores, period):
    """Written from the rule: the best of each of floor(F_s / 2) groups in order, then the best of the rest; earlier wins ties."""
    n = len(scores)
    count = (n + period - 1) // period
    groups, chosen = count // 2, set()
    for g in range(groups):
        frames = [f for f in range(n) if g * n // groups <= f < (g + 1) * n // groups]
        best = frames[0]
        for f in frames:
            best = f if scores[f] > scores[best] else best
        chosen.add(best)
    while len(chosen) < count:
        rest = [f for f in range(n) if f not in chosen]
        chosen.add(max(rest, key=lambda f: (scores[f], -f)))
    return sorted(chosen)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5), st.sampled_from([2, 6, 1000]))
def test_selection_by_score_equals_brute_force(seed, num_frames, period, values):
    """With two values ties are everywhere. Seen to fail with the later of equal frames, with groups of equal length that leave
    the last frames out, and with one group more."""
    scores = np.random.default_rng(seed).integers(0, values, num_frames) / values
    slow = by_score(scores, period)
    assert np.flatnonzero(slow).tolist() == slow_selection(scores, period)
    assert slow.sum() == num_slow(len(scores), period) == periodic(len(scores), period).sum()


def test_halves_of_the_selection():
    """12 frames, p = 3, 4 slow: two from the groups of six, and the two best of what remains, both in the first group."""
    scores = np.array([0, 9, 8, 7, 0, 0, 1, 0, 0, 2, 0, 0.0])
    assert np.flatnonzero(by_score(scores, 3)).tolist() == [1, 2, 3, 9]
    assert np.flatnonzero(by_score(np.zeros(12), 3)).tolist() == [0, 1, 2, 6]  # all equal: the first of each group, then the first


def config(mode, limits=(2, 4, 6, 8)):
    return SlowFastConfig.from_dict({"mode": mode, "limits": list(limits), "encoder": "here"})


def test_scores_decide_only_where_frames_are_sparse():
    """From 2 frames a second on, and where every frame is slow, nothing is scored."""
    frames, asked = np.zeros((8, 4, 4, 3), dtype=np.uint8), []

    def scorer(seen, queries):
        asked.append((seen is frames, queries))
        return np.array([0, 0, 0, 0, 0, 0, 5, 4.0])

    for mode, times, expected in (
        ("query", np.arange(8) / 1.9, [6, 7]),
        ("difference", np.arange(8) / 1.9, [6, 7]),
        ("query", np.arange(8) / 2, [0, 4]),
        ("periodic", np.arange(8) / 1.9, [0, 4]),
        ("query", np.zeros(8), [0, 4]),
    ):
        assert np.flatnonzero(slow_frames(config(mode), frames, times, ["what?"], scorer)).tolist() == expected, (mode, times)
    assert asked == [(True, ["what?"])] * 2
    assert slow_frames(config("query"), frames[:2], [0.0, 9.0], [], None).all()
    with pytest.raises(OLMoConfigurationError, match="mode query needs a frame scorer"):
        slow_frames(config("query"), frames, np.arange(8), ["what?"], None)


def test_rate_of_a_sample_rounded_to_frames_of_the_file():
    """Two frames a second of a 25 fps file alternate between 12 and 13 frames; the last one need not be on the beat."""
    times = np.append(np.round(np.arange(0, 1600, 12.5)), 1600) / 25
    assert sampling_rate(times) == pytest.approx(2.0, rel=0.005) and sampling_rate([3.0]) == np.inf


@pytest.mark.parametrize("token", ["image_patch", "image_low_res"])
def test_layout_of_slow_and_fast_frames(token):
    """9 x 9 patches: a slow frame has nine cells of nine, a fast one a single cell of 81, each fed by its own patches."""
    pre = preprocessor(9, fast_token=token)
    frames = np.zeros((3, 126, 126, 3), dtype=np.uint8)
    out = pre(VideoFrames(frames, np.arange(3.0), slow=np.array([True, False, True])))
    patch, low, start, end = TOK.image_patch_id, TOK.image_low_res_id, TOK.frame_start_id, TOK.frame_end_id
    fast = patch if token == "image_patch" else low
    assert out.blocks[0].tolist() == [start, *[patch] * 9, end, start, fast, end, start, *[patch] * 9, end]
    assert pre.placeholders == ((patch,) if token == "image_patch" else (patch, low))
    assert out.token_pooling.shape == (19, 9) and out.fast_rows.tolist() == [9]
    assert out.token_pooling[0].tolist() == [0, 1, 2, 9, 10, 11, 18, 19, 20] and out.token_pooling[10, 0] == 162
    assert out.fast_pooling.tolist() == [list(range(81, 162))]
    assert out.token_pooling[9].tolist() == [161] + [-1] * 8  # one of its patches stands for it
    (segment,) = out.segments
    assert (segment.fast, segment.fast_cells, segment.num_cells, segment.frame_cells) == ((1,), 1, 19, [9, 1, 9])


def test_all_slow_is_the_plain_layout():
    video = VideoFrames(np.zeros((3, 126, 126, 3), dtype=np.uint8), np.arange(3.0), slow=np.ones(3, dtype=bool))
    plain = VideoPreprocessor(VideoPreprocessorConfig(time_mode="none"), PixelConfig((126, 126)), TOK)
    a, b = preprocessor(9)(video), plain(video)
    assert a.blocks[0].tolist() == b.blocks[0].tolist() and a.segments == b.segments
    assert np.array_equal(a.token_pooling, b.token_pooling) and a.fast_pooling is a.fast_rows is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["slow_fast.mode=sometimes"], "periodic, query, difference"),
        (["slow_fast.mode=query"], "mode query needs video.slow_fast.encoder"),
        (["slow_fast.mode=periodic", "max_frames=369"], "max_frames 369 is more than the last of video.slow_fast.limits"),
        (["slow_fast.mode=periodic", "slow_fast.limits=[128,100]"], "that rise"),
        (["slow_fast.mode=periodic", "slow_fast.limits=[]"], "that rise"),
        (["slow_fast.mode=periodic", "slow_fast.fast_window=3"], "fast_window 3 must be larger than video.pooling_w 3"),
        (["slow_fast.period=2"], "unknown config key 'slow_fast.period'"),
    ],
)
def test_bad_settings_are_refused(words, reason):
    with pytest.raises(OLMoConfigurationError, match=reason):
        VideoPreprocessorConfig(max_frames=100).with_overrides(words).check()


def test_off_by_default_whatever_else_is_set():
    VideoPreprocessorConfig(max_frames=384).with_overrides(["slow_fast.limits=[1]"]).check()
