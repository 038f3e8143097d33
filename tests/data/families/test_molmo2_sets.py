"""Molmo2's own sets: the first example of every split, from miniatures in the published formats."""

import pytest

from olmo.data.catalogue import check_name
from tests.data.families.checks import refused, said
from tests.data.families.fixtures import example, open_split

MC = "video_multiple_choice"
CAPTIONS = ["video_caption", "merged_caption", "video_frame_merged_caption"]
FILES = {
    "molmo2_syn_captions_qa": "VideoCapQA/data/CapQA-00000-of-00001.parquet",
    "molmo2_syn_captions_subtitle_qa": "VideoSubtitleQA/data/SubtitleQA-00000-of-00001.parquet",
    "molmo2_human_qa": "AskModelAnything/data/HumanQA-00000-of-00001.parquet",
    "molmo2_captions": "Cap/data/train-00000-of-00001.parquet",
}


def choice(video="abc", question="Who sings?", answer="a bird", wrong=("a cat", "a dog"), **more):
    return {"video_id": video, "Question": question, "Answer": answer, "NegativeAnswers": list(wrong), "Category": "object"} | more


def spoken(**more):
    return choice(subtitle=[{"start": 0.5, "end": 2.0, "text": "hello"}, {"start": 2.0, "end": 3.5, "text": "you"}], **more)


def person(video="abc", question="Why is it funny?", answer="It falls.", **more):
    return {"video_id": video, "question": question, "answer": answer} | more


def caption(video="abc", score=4, short="A cat.", merged="A cat and a dog.", long="A grey cat meets a dog."):
    return {"video_id": video, "annotation_score": score, **dict(zip(CAPTIONS, (short, merged, long), strict=True))}


ROWS = {
    "molmo2_syn_captions_qa": choice,
    "molmo2_syn_captions_subtitle_qa": spoken,
    "molmo2_human_qa": person,
    "molmo2_captions": caption,
}


@pytest.fixture
def written(miniature):
    """`written(name, rows)`: the set with these rows, and videos of abc and def."""
    files = miniature("youtube-cc")
    files.touch("part-1/abc/abc.mp4", "part-1/abc/abc.json", "part-2/def/video.webm")

    def write(name, rows):
        files.parquet(FILES[name], rows)
        return files

    return write


def asked(message, question, right, wrong):
    """Whether a message asks `question` with the right answer somewhere among the wrong ones."""
    options = list(wrong)
    options.insert(message["answer_idx"], right)
    return message == {"question": question, "options": options, "answer_idx": message["answer_idx"], "style": MC, "category": "object"}


def test_questions_from_captions(written, caplog):
    """Found in the folder of the video, whatever its file is called; all questions on it are one example."""
    name = "molmo2_syn_captions_qa"
    rows = [choice(), choice("def"), choice(question="Who barks?", answer="a dog", wrong=("a cat", "a dog ")), choice("gone")]
    written(name, [*rows, choice(question="Who?", wrong=[])])
    found = example(name)
    first, second = found.pop("message_list")
    assert found == {"video": "part-1/abc/abc.mp4", "metadata": {"example_id": "abc"}}
    assert asked(first, "Who sings?", "a bird", ("a cat", "a dog")) and asked(second, "Who barks?", "a dog", ("a cat",))
    assert {example(name, seed=s)["message_list"][0]["answer_idx"] for s in range(30)} == {0, 1, 2}
    assert example(name, index=1)["video"] == "part-2/def/video.webm" and len(open_split(name)) == 2
    assert "left out: 1 questions without a wrong answer" in caplog.text and "(the first: gone)" in caplog.text
    assert len(open_split("vixmo_syn_video_capqa_v2")) == 2


def test_the_index_follows_the_videos(written):
    """A video that comes later is in the set from then on."""
    files = written("molmo2_syn_captions_qa", [choice(), choice("late")])
    assert len(open_split("molmo2_syn_captions_qa")) == 1
    files.touch("part-2/late/late.mp4")
    assert len(open_split("molmo2_syn_captions_qa")) == 2


def test_questions_from_subtitles(written):
    name = "molmo2_syn_captions_subtitle_qa"
    written(name, [spoken(), spoken(question="Who speaks?"), spoken(video="def")])
    found = example(name)
    first, second = found.pop("message_list")
    assert found == {
        "video": "part-1/abc/abc.mp4",
        "metadata": {"example_id": "abc"},
        "subtitle": {(0.5, 2.0): "hello", (2.0, 3.5): "you"},
    }
    assert asked(first, "Who sings?", "a bird", ("a cat", "a dog")) and asked(second, "Who speaks?", "a bird", ("a cat", "a dog"))
    assert len(open_split(name)) == len(open_split("vixmo_syn_video_capqa_with_sub_v2")) == 2
    requests = [request for seed in range(10) for request, _ in said(example(name, seed=seed), seed)]
    assert all(MC not in r and "a bird" in r for r in requests)


def test_questions_of_people(written):
    """Asked as they are, without a word in front."""
    written("molmo2_human_qa", [person(), person("def"), person(question="What is {it}?", answer="A fall.")])
    found = example("vixmo_human_qa")
    assert found == {
        "video": "part-1/abc/abc.mp4",
        "message_list": [
            {"question": "Why is it funny?", "answer": "It falls.", "style": "user_qa"},
            {"question": "What is {it}?", "answer": "A fall.", "style": "user_qa"},
        ],
    }
    assert len(open_split("molmo2_human_qa")) == 2
    assert said(found) == [("Why is it funny?", "It falls."), ("What is {it}?", "A fall.")]


def test_captions(written):
    """Scores below 3 are not used; a caption that is not there is no message."""
    files = written("molmo2_captions", [caption(score=2.9), caption(), caption("def", 3, merged=None, long=" ")])
    found = example("molmo2_captions")
    assert found == {
        "video": "part-1/abc/abc.mp4",
        "message_list": [
            {"text": "A cat.", "style": "video_short_caption"},
            {"text": "A cat and a dog.", "style": "video_merged_caption"},
            {"text": "A grey cat meets a dog.", "style": "video_long_caption"},
        ],
    }
    assert example("molmo2_captions", index=1)["message_list"] == [{"text": "A cat.", "style": "video_short_caption"}]
    assert len(open_split("molmo2_captions")) == 2
    files.parquet("Cap/data/val-00000-of-00001.parquet", [caption("def")])
    assert len(open_split("molmo2_captions", "val")) == 1 and example("molmo2_captions", "val")["video"] == "part-2/def/video.webm"
    (short, _), (merged, _), (long, _) = said(found)
    assert merged == "video_merged_caption:" and len(short) > 10 and len(long) > 10 and "caption:" not in short + long


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("vixmo3_top_level_captions_min_3", "molmo2_captions"),
        ("vixmo3_top_level_captions", "molmo2_captions"),
        ("molmo2_cap", "molmo2_captions"),
        ("vixmo_human_qa:train", "molmo2_human_qa"),
    ],
)
def test_published_names(alias, name):
    assert check_name(alias)[0].name == name


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("molmo2_syn_captions_qa", {"Answer": None}, "the key 'Answer' is missing; there is video_id, Question"),
        ("molmo2_syn_captions_qa", {"NegativeAnswers": None}, "the key 'NegativeAnswers' is missing"),
        ("molmo2_syn_captions_subtitle_qa", {"video_id": "def", "subtitle": None}, "the key 'subtitle' is missing"),
        ("molmo2_human_qa", {"question": None}, "the key 'question' is missing; there is video_id, question, answer"),
        ("molmo2_captions", {"annotation_score": None}, "the key 'annotation_score' is missing"),
        (
            "molmo2_captions",
            dict.fromkeys(["video_caption", "merged_caption", "video_frame_merged_caption"]),
            "has no caption; one of video_",
        ),
    ],
)
def test_a_row_with_something_wrong(written, name, changes, sentence):
    written(name, [ROWS[name](), ROWS[name]() | changes])
    refused(name, f"{FILES[name]}, row 1: {sentence}")


def test_a_line_of_a_subtitle_with_something_wrong(written):
    name = "molmo2_syn_captions_subtitle_qa"
    written(name, [choice(subtitle=[{"start": 0.5, "text": "hello"}])])
    refused(name, f"{FILES[name]}, row 0, subtitle[0]: the key 'end' is missing; there is start, text")


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_something_wrong(written, name):
    files = written(name, [ROWS[name]() | {"video_id": 7}])
    refused(name, "row 0: 'video_id' should be text, but is 7")
    files.text(FILES[name], "version https://git-lfs.github.com/spec/v1")
    refused(name, f"{FILES[name]} is no parquet file")
    (files.folder / FILES[name]).unlink()
    refused(name, "is not in ")
