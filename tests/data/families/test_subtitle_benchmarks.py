"""Video-MME and LongVideoBench: with and without what is said, and how its times are written."""

import pytest

from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.video import VideoPreprocessor, VideoPreprocessorConfig
from olmo.tokenizer import TokenizerConfig, build_tokenizer
from tests.data.families.asking import asked, raises, told
from tests.data.families.fixtures import example, open_split

S1 = "video_eval_multiple_choice"
S2 = f"{S1}_w_subtitle"


def shown(subtitle, times):
    """The subtitle block below the frames at `times`."""
    tokenizer = build_tokenizer(TokenizerConfig("tiny"), 1024)
    video = VideoPreprocessor(VideoPreprocessorConfig(), PixelConfig((28, 42)), tokenizer)
    return tokenizer.decode(video.subtitle_tokens(subtitle, times))


# -- Video-MME

OPTIONS = ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are equal."]
MME = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter (A, B, C, or D) "
    "of the correct option.\nWhich is the most popular?\nA. Apples.\nB. Candles.\nC. Berries.\nD. The three kinds are equal.\n"
    "The best answer is:"
)
SAID = {"0": {"start": 0.0, "end": 2.5, "text": "hello"}, "1": {"start": "00:00:04,500", "end": "00:01:05,000", "text": "world"}}


def video_mme(files, subtitles=True, **changes):
    row = {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
        "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
        "videoID": "fFjv93ACGo8",
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "Which is the most popular?",
        "options": OPTIONS,
        "answer": "C",
    }
    others = [row | {"question_id": f"{i}-1", "duration": d, "videoID": d} for i, d in enumerate(("medium", "long", "long"))]
    files.parquet("videomme/test-00000-of-00001.parquet", [row | changes, *others])
    if subtitles:
        files.json("subtitles.json", {"fFjv93ACGo8": SAID, "long": {}})


def test_video_mme(miniature):
    """Needs no file of subtitles."""
    video_mme(miniature("Video-MME"), subtitles=False)
    assert example("video_mme", "validation") == {
        "video": "data/fFjv93ACGo8.mp4",
        "question": MME,
        "answer": "C",
        "style": S1,
        "metadata": {
            "example_id": "001-1",
            "video_id": "001",
            "question_id": "001-1",
            "duration": "short",
            "domain": "Knowledge",
            "sub_category": "Humanity & History",
            "task_type": "Counting Problem",
        },
    }
    assert asked("video_mme", "validation") == MME and told("video_mme", "validation")["answer"] == "C"
    raises("subtitles.json is not in", "video_mme_w_subtitle", "validation")


def test_video_mme_by_duration(miniature):
    """Seen to fail when the filter reads a column that is not there."""
    video_mme(miniature("Video-MME"), subtitles=False)
    names = ("video_mme", "video_mme_short", "video_mme_medium", "video_mme_long")
    assert [len(open_split(name, "validation")) for name in names] == [4, 1, 1, 2]
    assert example("video_mme_long", "validation", 1)["metadata"]["question_id"] == "2-1"


def test_video_mme_with_subtitles(miniature):
    """Videos without any are asked in the plain style."""
    video_mme(miniature("Video-MME"))
    found = example("video_mme_w_subtitle", "validation")
    assert found["subtitle"] == {(0.0, 2.5): "hello", (4.5, 65.0): "world"} and found["style"] == S2
    assert asked("video_mme_w_subtitle", "validation") == MME
    assert shown(found["subtitle"], [0.0, 1.0]) == "subtitle\n0.0 - 2.5 hello\n"
    for silent in (1, 2):  # one that is not in the file, one with nothing in it
        found = example("video_mme_w_subtitle", "validation", silent)
        assert "subtitle" not in found and found["style"] == S1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "E"}, "row 0: 'answer' should be one of the letters A to D, but is 'E'"),
        ({"duration": "huge"}, "row 0: 'duration' should be one of short, medium, long, but is 'huge'"),
        ({"question_id": "1-1"}, "row 2: the question_id '1-1' stands already at .*row 0"),
        ({"domain": None}, "videomme/test-00000-of-00001.parquet, row 0: the key 'domain' is missing"),
    ],
)
def test_video_mme_mistakes(miniature, changes, sentence):
    video_mme(miniature("Video-MME"), **changes)
    raises(sentence, "video_mme", "validation")


@pytest.mark.parametrize(
    ("subtitles", "sentence"),
    [
        ({"a": {"0": {"start": "soon", "end": 1, "text": "t"}}}, "subtitles.json, a, 0: 'start': 'soon' is no time; write seconds"),
        ({"a": {"0": {"start": 0, "end": 1}}}, "subtitles.json, a, 0: the key 'text' is missing; there is start, end"),
        ({"a": ["t"]}, "subtitles.json: 'a' should be a mapping"),
        (["t"], "subtitles.json should be a mapping from videos to subtitles"),
    ],
)
def test_video_mme_mistakes_in_subtitles(miniature, subtitles, sentence):
    files = miniature("Video-MME")
    video_mme(files)
    files.json("subtitles.json", subtitles)
    raises(sentence, "video_mme_w_subtitle", "validation")


# -- LongVideoBench

LVB = "Who plays with the ball?\nA. the man\nB. a dog\nC. nobody\nAnswer with the option's letter from the given choices directly."


def long_video_bench(files, **changes):
    entry = {
        "video_id": "86CxyhFV9MI",
        "question": "Who plays with the ball?",
        "question_wo_referring_query": "Who plays?",
        "candidates": ["the man", "a dog", "nobody"],
        "correct_choice": 1,
        "topic_category": "NP-News-Programs",
        "question_category": "TOS",
        "level": "L2-Relation",
        "id": "86CxyhFV9MI_0",
        "video_path": "86CxyhFV9MI.mp4",
        "subtitle_path": "86CxyhFV9MI_en.json",
        "duration_group": 600,
        "starting_timestamp_for_subtitles": 10,
        "duration": 20.0,
    }
    files.json("lvb_val.json", [entry | changes, entry | {"id": "x_0", "subtitle_path": "x.json"}])
    kept = {k: v for k, v in entry.items() if k != "correct_choice"}
    files.json("lvb_test_wo_gt.json", [kept])
    lines = [
        {"start": "00:00:08.000", "end": "00:00:09.000", "line": "before it begins"},
        {"start": "00:00:09.500", "end": "00:00:12.250", "line": "hello"},
        {"start": "00:00:31.000", "end": "00:00:32.000", "line": "after its end"},
    ]
    files.json("subtitles/86CxyhFV9MI_en.json", lines)
    files.json("subtitles/x.json", [{"timestamp": [11, 13.5], "text": "world"}, {"timestamp": [15.0, None], "text": "end"}])


def test_long_video_bench(miniature):
    files = miniature("LongVideoBench")
    long_video_bench(files)
    metadata = {
        "example_id": "86CxyhFV9MI_0",
        "question_id": "86CxyhFV9MI_0",
        "video_id": "86CxyhFV9MI",
        "level": "L2-Relation",
        "question_category": "TOS",
        "duration_group": 600,
        "options": ["the man", "a dog", "nobody"],
    }
    plain = {"video": "videos/86CxyhFV9MI.mp4", "question": LVB, "style": S1, "metadata": metadata}
    assert example("long_video_bench_no_subtitle", "validation") == plain | {"answer": "B"}
    assert example("long_video_bench", "test") == plain
    assert len(open_split("long_video_bench_no_subtitle", "validation")) == 2 and len(open_split("long_video_bench", "test")) == 1
    assert asked("long_video_bench_no_subtitle", "validation") == LVB


def test_long_video_bench_with_subtitles(miniature):
    """Times count from the beginning of the video, in both forms of the files."""
    long_video_bench(miniature("LongVideoBench"))
    name = "long_video_bench_w_subtitle"
    found = example(name, "validation")
    assert found["style"] == S2 and found["answer"] == "B" and found["subtitle"] == {(0.0, 2.25): "hello"}
    assert example(name, "validation", 1)["subtitle"] == {(1.0, 3.5): "world", (5.0, 20.0): "end"}
    assert asked(name, "validation") == LVB and asked("long_video_bench_w_subtitle_test", "test") == LVB
    assert shown(example(name, "validation", 1)["subtitle"], [4.0]) == "subtitle\n1.0 - 3.5 world\n5.0 - 20.0 end\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"correct_choice": 3}, "lvb_val.json, entry 0: 'correct_choice' is option 3, but there are 3, counted from 0"),
        ({"correct_choice": None}, "lvb_val.json, entry 0: the key 'correct_choice' is missing"),
        ({"id": "x_0"}, "lvb_val.json, entry 1: the id 'x_0' stands already at .*entry 0"),
        ({"subtitle_path": "gone.json"}, "subtitles/gone.json is missing"),
        ({"duration_group": "ten"}, "lvb_val.json, entry 0: 'duration_group' should be a whole number, but is \"ten\""),
    ],
)
def test_long_video_bench_mistakes(miniature, changes, sentence):
    long_video_bench(miniature("LongVideoBench"), **changes)
    raises(sentence, "long_video_bench_w_subtitle", "validation")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"timestamp": [1.0], "text": "t"}, r"x.json, entry 0: 'timestamp' should be a start and an end in seconds, but is \[1.0\]"),
        ({"start": "00:00:01", "end": "later", "line": "t"}, "x.json, entry 0: 'end': 'later' is no time"),
        ({"start": "00:00:01", "end": "00:00:02"}, "x.json, entry 0: the key 'line' is missing"),
    ],
)
def test_long_video_bench_mistakes_in_subtitles(miniature, line, sentence):
    files = miniature("LongVideoBench")
    long_video_bench(files)
    files.json("subtitles/x.json", [line])
    raises(sentence, "long_video_bench_w_subtitle", "validation")


def test_long_video_bench_that_is_no_json(miniature):
    files = miniature("LongVideoBench")
    long_video_bench(files)
    files.text("lvb_val.json", "[\n{]")
    raises("lvb_val.json, line 2: is no JSON", "long_video_bench_no_subtitle", "validation")
