"""Television, films and news: the first example of every split, from miniatures in the published formats."""

import pytest

from olmo.exceptions import OLMoDataError
from tests.data.families.fixtures import example, mc, oe, open_split

SUBTITLED = "video_multiple_choice_w_subtitle"
ANSWERS = {f"a{i}": f"answer {i}" for i in range(5)}
OPTIONS = list(ANSWERS.values())
TVQA = {
    **ANSWERS,
    "answer_idx": 4,
    "q": "What is Robin holding?",
    "qid": 7,
    "show_name": "How I Met You Mother",
    "ts": "1.21-8.49",
    "vid_name": "met_s06e22_seg01_clip_02",
}
SUBTITLES = [
    {"start": 0.0, "end": 0.9, "text": "(Ted:)Before."},
    {"start": 0.5, "end": 2.0, "text": "(Ted:)Wow, Zoey?"},
    {"start": 4.123, "end": 9.0, "text": "(Robin:)Cheers."},
    {"start": 8.6, "end": 9.5, "text": "(Ted:)After."},
]


def tvqa(files, rows, split="train", subtitles=None, missing="met_s01e01_seg01_clip_00\n"):
    files.jsonl(f"tvqa_{split}.jsonl", rows)
    files.jsonl("tvqa_preprocessed_subtitles.jsonl", subtitles or [{"vid_name": TVQA["vid_name"], "sub": SUBTITLES}])
    files.text("missing_clips.txt", missing)


def test_tvqa(miniature):
    """A part begins and ends with a frame (of three a second); what is said in it counts from its start."""
    second = TVQA | {"qid": 8, "q": "Who speaks?", "answer_idx": 0}
    other_part = TVQA | {"qid": 9, "ts": "0-1"}
    gone = TVQA | {"qid": 10, "vid_name": "met_s01e01_seg01_clip_00"}
    tvqa(miniature("TVQA"), [TVQA, other_part, second, gone])
    found = example("tvqa_with_sub")
    assert found == {
        "video": "video-frames/frames_hq/met_frames/met_s06e22_seg01_clip_02",
        "message_list": [
            mc("What is Robin holding?", OPTIONS, 4, SUBTITLED),
            mc("Who speaks?", OPTIONS, 0, SUBTITLED),
        ],
        "metadata": {"show_name": "How I Met You Mother", "ts": "1.21-8.49", "clip_start_time": 1.0, "clip_end_time": 25 / 3},
        "subtitle": [[0.0, 1.0, "(Ted:)Wow, Zoey?"], [3.123, 7.333, "(Robin:)Cheers."]],
    }
    assert len(open_split("tvqa_with_sub")) == 2
    assert example("tvqa_with_sub", index=1)["subtitle"] == [[0.0, 0.9, "(Ted:)Before."], [0.5, 1.0, "(Ted:)Wow, Zoey?"]]


def test_tvqa_of_the_first_show_and_without_times(miniature):
    """Its clips are named without their show; a question without times is about the whole clip."""
    question = TVQA | {"vid_name": "s03e02_seg02_clip_10", "ts": "nan-nan"}
    del question["answer_idx"]
    subtitles = [{"vid_name": "s03e02_seg02_clip_10", "sub": SUBTITLES[:1]}]
    tvqa(miniature("TVQA"), [question], "test_public", subtitles)
    assert example("tvqa_with_sub", "test") == {
        "video": "video-frames/frames_hq/bbt_frames/s03e02_seg02_clip_10",
        "message_list": [{"question": "What is Robin holding?", "options": OPTIONS, "style": SUBTITLED}],
        "metadata": {"show_name": "How I Met You Mother", "ts": "nan-nan"},
        "subtitle": [[0.0, 0.9, "(Ted:)Before."]],
    }


def test_tvqa_without_subtitles_and_within_a_frame(miniature):
    tvqa(miniature("TVQA"), [TVQA | {"vid_name": "house_s01e01_seg01_clip_00", "ts": "2.1-2.2"}], "val")
    found = example("tvqa_with_sub", "val")
    assert "subtitle" not in found
    assert (found["metadata"]["clip_start_time"], found["metadata"]["clip_end_time"]) == (2.0, 7 / 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer_idx": 5}, "tvqa_train.jsonl, line 2: the answer is option 5, but there are 5, counted from 0"),
        ({"answer_idx": None}, "tvqa_train.jsonl, line 2: the key 'answer_idx' is missing"),
        ({"ts": "1.5"}, "tvqa_train.jsonl, line 2: 'ts' should be start-end in seconds, but is 1.5"),
        ({"ts": "8.4-1.2"}, r"tvqa_train.jsonl, line 2: 'ts' ends before it starts \(8.4-1.2\)"),
        ({"qid": 7}, "tvqa_train.jsonl, line 2: the qid 7 stands already at .*line 1"),
    ],
)
def test_tvqa_with_mistakes(miniature, changes, sentence):
    tvqa(miniature("TVQA"), [TVQA, TVQA | {"qid": 8, "ts": "2-3"} | changes])
    with pytest.raises(OLMoDataError, match=f"^tvqa_with_sub: .*{sentence}"):
        open_split("tvqa_with_sub")


@pytest.mark.parametrize(
    ("subtitles", "sentence"),
    [
        ([{"vid_name": TVQA["vid_name"], "sub": [{"start": 0, "end": "late", "text": ""}]}], r"line 1, sub\[0\]: 'end' should be a number"),
        ([{"vid_name": "a", "sub": []}, {"vid_name": "a", "sub": []}], "line 2: the vid_name 'a' stands already at"),
        ([{"vid_name": TVQA["vid_name"]}], "line 1: the key 'sub' is missing; there is vid_name"),
    ],
)
def test_tvqa_with_mistakes_in_the_subtitles(miniature, subtitles, sentence):
    tvqa(miniature("TVQA"), [TVQA], subtitles=subtitles)
    with pytest.raises(OLMoDataError, match=f"^tvqa_with_sub: .*tvqa_preprocessed_subtitles.jsonl, {sentence}"):
        open_split("tvqa_with_sub")


CINEPILE = {
    "video_id": "-6G2HfNZvg8",
    "movie_name": "Hellboy",
    "subtitles": "<subtitle> Hello.\n<subtitle> You there!",
    "examples": [
        {"question": "Who speaks?", "choices": ["Abe", "Liz"], "answer_key_position": 1},
        {"question": "Where?", "choices": ["here", "there", "away"], "answer_key_position": 0},
    ],
}


def cinepile(files, *rows, split="train"):
    files.parquet(f"data/{split}-00000-of-00002.parquet", list(rows[:1]))
    files.parquet(f"data/{split}-00001-of-00002.parquet", list(rows[1:]))
    files.touch("videos/-6G2HfNZvg8/-6G2HfNZvg8.mp4", "videos/b/b.mp4")


def test_cinepile(miniature, caplog):
    """Scenes whose video is gone are left out, and the log says how many."""
    rows = [CINEPILE, CINEPILE | {"video_id": "b"}, CINEPILE | {"video_id": "gone"}]
    cinepile(miniature("cinepile"), *rows)
    cinepile(miniature("cinepile"), *rows[:2], split="test")
    assert example("cinepile_with_sub") == {
        "video": "videos/-6G2HfNZvg8/-6G2HfNZvg8.mp4",
        "message_list": [mc("Who speaks?", ["Abe", "Liz"], 1, SUBTITLED), mc("Where?", ["here", "there", "away"], 0, SUBTITLED)],
        "metadata": {"video_id": "-6G2HfNZvg8", "movie_name": "Hellboy"},
        "subtitle": "Hello.\nYou there!",
    }
    assert len(open_split("cinepile_with_sub")) == len(open_split("cinepile_with_sub", "test")) == 2
    assert "left out: 1 of 3 videos" in caplog.text and "(the first: videos/gone/gone.mp4)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"examples": [CINEPILE["examples"][0] | {"answer_key_position": 2}]}, r", examples\[0\]: the answer is option 2, but there are 2"),
        ({"examples": None}, ": the key 'examples' is missing"),
        ({"subtitles": None}, ": the key 'subtitles' is missing"),
        ({"examples": [{"question": "Q", "choices": ["a"]}]}, r", examples\[0\]: the key 'answer_key_position' is missing"),
    ],
)
def test_cinepile_with_mistakes(miniature, changes, sentence):
    cinepile(miniature("cinepile"), CINEPILE, CINEPILE | changes)
    with pytest.raises(OLMoDataError, match=f"^cinepile_with_sub: .*train-00001-of-00002.parquet, row 0{sentence}"):
        open_split("cinepile_with_sub")


def test_cinepile_in_a_broken_file(miniature):
    files = miniature("cinepile")
    cinepile(files, CINEPILE, CINEPILE)
    files.text("data/train-00001-of-00002.parquet", "PAR1 but not really")
    with pytest.raises(OLMoDataError, match="train-00001-of-00002.parquet is no parquet file"):
        open_split("cinepile_with_sub")


NEWS = [
    {"uni_clipped_id": "clip_1", "question": "Which channel?", "answer": "BBC"},
    {"uni_clipped_id": "clip_2", "question": "What is said?", "answer": " "},
    {"uni_clipped_id": "clip_3", "question": "Who?", "answer": "Modi"},
    {"uni_clipped_id": "clip_1", "question": "What time?", "answer": "9 pm"},
]


def test_news_video_qa(miniature):
    """A list, or a list under `data`; a clip whose answers are all empty is no example."""
    files = miniature("NewsVideoQA")
    files.json("news_train.json", NEWS)
    files.json("news_val.json", {"dataset_name": "NewsVideoQA", "data": NEWS})
    for split in ("train", "val"):
        assert example("news_video_qa_filtered", split) == {
            "video": f"final_data_feb_16/videos/{split}/clip_1.mp4",
            "message_list": [oe("Which channel?", "BBC"), oe("What time?", "9 pm")],
        }
        assert len(open_split("news_video_qa_filtered", split)) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([NEWS[0], NEWS[0] | {"answer": ["BBC"]}], "news_train.json, entry 1: 'answer' should be text, but is"),
        ({"data": [{"question": "Q", "answer": "A"}]}, r"news_train.json, data\[0\]: the key 'uni_clipped_id' is missing"),
        ({"questions": NEWS}, "news_train.json: the key 'data' is missing; there is questions"),
        ("text", "news_train.json should be a list of mappings, or a mapping with such a list under 'data'"),
    ],
)
def test_news_video_qa_with_mistakes(miniature, content, sentence):
    miniature("NewsVideoQA").json("news_train.json", content)
    with pytest.raises(OLMoDataError, match=f"^news_video_qa_filtered: .*{sentence}"):
        open_split("news_video_qa_filtered")


def test_two_files_of_news(miniature):
    files = miniature("NewsVideoQA")
    files.json("news_train.json", NEWS)
    files.json("old_train.json", NEWS)
    with pytest.raises(OLMoDataError, match=r"should have one file \*train\*.json, but there is news_train.json, old_train.json"):
        open_split("news_video_qa_filtered")
