"""Wordings that are drawn at random: what holds for every draw."""

from collections import Counter

import numpy as np
import pytest

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.formatter import DataFormatter, DataFormatterConfig
from olmo.preprocessing.multiple_choice import randomised_form, standard_form
from olmo.preprocessing.points import seconds_to_clock
from olmo.preprocessing.prompts import fill, load_templates

SFT = {"prompt_templates": "uber_model_v2", "message_format": "qwen3", "system_prompt": "demo_or_style_v2", "pointing_format": "html-v2"}


def formatter(**config):
    return DataFormatter(DataFormatterConfig(**(SFT | config)))


def turns(example, seed=0, **config):
    return formatter(**config)(example, np.random.default_rng(seed), is_training=True)[0]


def test_the_same_generator_gives_the_same_words():
    example = {"style": "video_multiple_choice", "question": "What moves?", "options": ["a cat", "a dog"], "answer_idx": 1}
    assert [turns(example, s) for s in range(20)] == [turns(example, s) for s in range(20)]
    assert len({turns(example, s)[0] for s in range(40)}) > 20


@pytest.mark.parametrize("seed", range(200))
def test_random_multiple_choice_can_be_answered(seed):
    """Every option is visible, the answers differ, and each answer can be found in the prompt."""
    rng = np.random.default_rng(seed)
    options = ["red {q} star", "blue;", "10 green"][: int(rng.integers(2, 4))] + ["a ||| b"] * int(rng.random() < 0.5)
    form = randomised_form("Which {o} one moves?", options, rng, answer_idx=0)
    assert "Which {o} one moves?" in form.prompt
    assert all(o in form.prompt for o in options)
    assert len(set(form.answers)) == len(options) == len(form.names)
    assert all(a in form.prompt for a in form.answers)


def test_shares_of_the_randomiser():
    forms = [randomised_form("q?", ["x1", "x2"], np.random.default_rng(s)) for s in range(2000)]
    bare = np.mean([f.answers[0] != "x1" and "x1" not in f.answers[0] for f in forms])
    unlabelled = np.mean([f.answers[0] == "x1" for f in forms])
    assert bare == pytest.approx(0.25, abs=0.04)
    assert unlabelled == pytest.approx(0.75 * 0.2, abs=0.03)


def test_blank_options_are_labelled_and_unlabelled_ones_stay_so():
    for seed in range(100):
        assert randomised_form("q?", ["", "x"], np.random.default_rng(seed), answer_idx=0).answers[0].strip()
        form = randomised_form("q?", ["y", "x"], np.random.default_rng(seed), may_label=False)
        assert form.answers == ["y", "x"]


def test_many_options_keep_their_labels():
    options = [f"option number {i}." for i in range(40)]
    assert len(set(standard_form("q?", options).names)) == 40
    for seed in range(50):
        form = randomised_form("q?", options, np.random.default_rng(seed))
        assert len(set(form.answers)) == 40 and all(o in form.prompt for o in options)


def test_families_fill_their_slots():
    assert fill("{a} and {b} and {a}", a="{b}", b="x") == "{b} and x and {b}"
    slots = {"question", "object", "timestamp", "start_time", "end_time", "label"}
    for wordings in load_templates("prompts").values():
        assert len(set(wordings)) == len(wordings)
        for text in wordings:
            assert "{" not in fill(text, **dict.fromkeys(slots, "x")), text


@pytest.mark.parametrize(
    ("style", "fields"),
    [
        ("video_long_caption", {"text": "t"}),
        ("video_short_caption", {"text": "t"}),
        ("video_transcript", {"text": "t"}),
        ("video_motion_caption", {"text": "t"}),
        ("video_object_caption", {"text": "t", "object": "the red car"}),
        ("video_frame_caption_timestamp", {"text": "t", "timestamp": 63.25}),
        ("video_clip_caption_start_end", {"text": "t", "start_time": "00:01", "end_time": "01:02.5"}),
        ("video_clip_transcript_start_end", {"text": "t", "start_time": 1, "end_time": 2}),
        ("video_clip_short_caption_start_end", {"text": "t", "start_time": 1, "end_time": 2}),
        ("video_short_answer", {"answer": "t", "question": "What is {it}?"}),
        ("video_point", {"label": "Red Car", "points": [[[10, 20]]], "timestamps": [0.5]}),
        ("video_count", {"label": "red car", "points": [[[10, 20]]], "timestamps": [0.5]}),
        ("pointing", {"label": "red car", "points": [[10, 20]], "point_scale": 100}),
        ("count_then_point", {"label": "red car", "points": [[10, 20]], "point_scale": 100}),
    ],
)
def test_styles(style, fields):
    """Each style words its request in many ways, mentions what is asked about, and never speaks of images for a video."""
    asked = [turns({"style": style, **fields}, s) for s in range(60)]
    assert len({a[0] for a in asked}) >= 3
    for prompt, answer in asked:
        assert answer
        wording = prompt.removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n<|im_start|>assistant\n")
        assert wording and "{" not in wording.replace("{it}", "")
        if style.startswith("video_"):
            assert not any(w in wording for w in ("image", "picture", "photo"))
        for key, words in (("question", "What is {it}?"), ("object", "the red car"), ("label", "red car")):
            assert key not in fields or words in wording
        if "start_time" in fields or "timestamp" in fields:
            assert any(c.isdigit() for c in wording)


def test_prefixes_with_lengths():
    example = {"style": "video_qa", "question": "q?", "answer": "a" * 300}
    prompts = [turns(example, s, system_prompt="style_and_length_v2", message_format="none")[0] for s in range(200)]
    numbers = [int(p.split(" ")[1][:-1]) for p in prompts if not p.startswith("video_qa:")]
    assert 150 < len(numbers) < 200 and np.mean(numbers) == pytest.approx(300 / 15, abs=1)
    v3 = turns(example, 0, system_prompt="style_and_length_v3", message_format="none")[0]
    assert v3.split(" ")[1] in {f"{n}:" for n in range(9, 16)}


def test_majority_answer_and_ties():
    votes = {"style": "demo", "question": "q?", "answers": ["b", "a", "b", "a", "c"]}
    drawn = Counter(turns(votes, s)[1] for s in range(100))
    assert set(drawn) == {"a", "b"} and min(drawn.values()) > 25
    assert {turns(votes, s, select_answer="first")[1] for s in range(20)} == {"a"}


def test_chained_turns_and_numbered_lists():
    chain = {
        "multi_turn_messages": [{"style": "demo", "question": "q1", "answer": "a1"}, {"style": "demo", "question": "q2", "answer": "a2"}]
    }
    assert turns(chain, message_format="none", system_prompt=None) == ["q1", " a1", " q2", " a2"]
    asked, _ = formatter(message_format="none", system_prompt=None)(chain, np.random.default_rng(0), for_inference=True)
    assert asked == ["q1", " a1", " q2"]
    numbered = {"message_list": [{"question": "x", "answer": "y"}, {"question": "z", "answer": "w"}]}
    assert turns(numbered, message_format="none", system_prompt=None, format_message_list="numbered_qa")[1] == [" Q2: z", " A2: w"]
    assert len(turns(numbered, p_one_message=1.0)) == 1


def test_examples_without_a_style_have_no_prefix():
    assert turns({"question": "q?", "answer": "a"}, message_format="none")[0] == "q?"
    assert turns({"messages": ["q?", "a"]}, message_format="none")[0] == "q?"


def test_clock_times_are_rounded_before_they_are_split():
    assert seconds_to_clock(59.96) == "00:01:00.0" and seconds_to_clock(3599.99, 1) == "01:00:00.0"


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ({"style": "demo", "question": "q?"}, "no answer"),
        ({"style": "video_point_track_per_frame", "label": "x"}, "not supported yet"),
        ({"style": "video_object_caption", "text": "t"}, "needs the field object"),
        ({"style": "video_clip_caption_start_end", "text": "t", "start_time": 1}, "needs the field end_time"),
        ({"style": "a_okvqa_mc", "question": "q?", "options": ["a"], "answer_idx": 3}, "answer_idx 3 is none of its 1 options"),
        ({"message_list": []}, "message_list is empty"),
        ({"style": "pointing", "label": "x", "points": [[1, 2]]}, "size of its image is not known"),
        ({"style": "video_frame_caption_timestamp", "text": "t", "timestamp": "soon"}, "'soon' is no time"),
    ],
)
def test_bad_examples_are_refused(example, reason):
    with pytest.raises(OLMoDataError, match=reason):
        turns(example)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"prompt_templates": "uber_model"}, "prompt_templates 'uber_model'"),
        ({"message_format": "chatml"}, "message_format"),
        ({"system_prompt": "demo_or_style"}, "demo_or_style_v2"),
        ({"debug": True}, "debug"),
        ({"p_choice_content_in_mc": 0.5}, "p_choice_content_in_mc"),
    ],
)
def test_settings_that_nothing_implements_are_refused(config, reason):
    with pytest.raises(OLMoConfigurationError, match=reason):
        formatter(**config)


def test_published_point_formatter_block_is_dropped():
    raw = {"_point_formatter": {"pointing_format": "default"}, "message_format": "qwen3"}
    assert DataFormatterConfig.from_dict(raw).message_format == "qwen3"


@pytest.mark.parametrize("message_format", ["none", "role", "qwen3"])
def test_first_requests_are_without_marks(message_format):
    """Of one conversation, and of several."""
    formatter = DataFormatter(DataFormatterConfig(message_format=message_format))
    rng = np.random.default_rng(0)
    messages, _ = formatter({"question": "One?", "style": "user_qa"}, rng, for_inference=True)
    several, _ = formatter({"message_list": [{"question": q, "answer": "a", "style": "user_qa"} for q in ("One?", "Two?")]}, rng)
    assert formatter.first_requests(messages) == ["One?"] and formatter.first_requests(several) == ["One?", "Two?"]
