"""TempCompass: an example of each form, what it is asked, and what its evaluator is told."""

import pytest

from tests.data.families.asking import asked, raises, told, wordings
from tests.data.families.fixtures import example, open_split

S1, OE = "video_eval_multiple_choice", "video_short_answer"
FORMS = ("multi-choice", "yes_no", "caption_matching", "captioning")
CHOICE = "What is the man doing?\nA. dribbling\nB. dunking\nC. passing"
REQUEST = (
    "Please generate a video caption.\nInformation A: {'action': 'dribbling'}\nInformation B: {'action': 'dunking'}\nGenerated Caption:"
)
QUESTIONS = {
    "multi-choice": {"question": CHOICE, "answer": "B. dunking"},
    "yes_no": {"question": "Is the man dunking?", "answer": "yes"},
    "caption_matching": {
        "question": "Which description is a more suitable match for the video?\nOption 1: The man dribbles.\nOption 2: The man: he dunks.",
        "answer": "Option 2: The man: he dunks.",
    },
    "captioning": {"question": REQUEST, "answer": "B. dunking", "mc_question": CHOICE, "mc_answer": "B. dunking"},
}


def temp_compass(files, form=None, **changes):
    for name, question in QUESTIONS.items():
        row = {"video_id": "1034419625", "dim": "action"} | question
        files.parquet(f"{name}/test-00000-of-00001.parquet", [row | (changes if name == form else {}), row | {"dim": "order"}])


@pytest.fixture
def files(miniature):
    files = miniature("TempCompass")
    temp_compass(files)
    return files


def metadata(form, **more):
    return {"example_id": f"{form}_0", "video_id": "1034419625", "task": form, "temporal_aspect": "action", **more}


def test_multiple_choice(files):
    assert example("temp_compass", "validation") == {
        "video": "videos/1034419625.mp4",
        "question": "What is the man doing?",
        "options": ["dribbling", "dunking", "passing"],
        "answer_idx": 1,
        "style": S1,
        "metadata": metadata("multi-choice", question=CHOICE, answer="B. dunking"),
    }
    assert asked("temp_compass", "validation") == (
        "What is the man doing?\nOnly return the correct answer option.\nA. dribbling\nB. dunking\nC. passing"
    )
    assert told("temp_compass", "validation")["answer"] == "B. dunking"


def test_yes_or_no(files):
    name = "temp_compass_yes_no"
    known = {"question": "Is the man dunking?", "answer": "yes"}
    assert example(name, "validation") == {
        "video": "videos/1034419625.mp4",
        **known,
        "style": OE,
        "metadata": metadata("yes_no", **known),
    }
    possible = {f"video_short_answer: {w}" for w in wordings("short_answer", question="Is the man dunking?")}
    assert {asked(name, "validation", seed=seed) for seed in range(40)} <= possible


def test_matching_captions_get_letters(files):
    name = "temp_compass_caption_matching"
    found = example(name, "validation")
    assert found["question"] == "Which description is a more suitable match for the video?"
    assert found["options"] == ["The man dribbles.", "The man: he dunks."] and found["answer_idx"] == 1 and found["style"] == S1
    assert found["metadata"]["answer"] == "B. The man: he dunks."
    assert found["metadata"]["question"] == (
        "Which description is a more suitable match for the video?\nA. The man dribbles.\nB. The man: he dunks."
    )
    assert asked(name, "validation").endswith("Only return the correct answer option.\nA. The man dribbles.\nB. The man: he dunks.")


def test_captions_are_judged_by_a_question(files):
    name = "temp_compass_captioning"
    assert asked(name, "validation") == REQUEST
    assert example(name, "validation")["metadata"] == metadata("captioning", **QUESTIONS["captioning"])


def test_names(files):
    """All four, the three that need no judge for captions, and each alone."""
    assert [len(open_split(n, "validation")) for n in ("temp_compass", "temp_compass_all", "temp_compass_internal")] == [8, 8, 6]
    tasks = [example("temp_compass", "validation", i)["metadata"]["task"] for i in range(8)]
    assert tasks == [form for form in FORMS for _ in range(2)]
    for name, form in {**{f"temp_compass_{f}": f for f in FORMS}, "temp_compass_multi_choice": "multi-choice"}.items():
        assert len(open_split(name, "validation")) == 2 and example(name, "validation")["metadata"]["task"] == form
        assert example(name, "validation", 1)["metadata"]["temporal_aspect"] == "order"


@pytest.mark.parametrize(
    ("form", "changes", "sentence"),
    [
        ("multi-choice", {"answer": "D. flying"}, "row 0: 'answer' should be one of the letters A to C, but is 'D. flying'"),
        ("multi-choice", {"question": "Why?"}, "row 0: its question should have options A and B in lines of their own"),
        (
            "multi-choice",
            {"dim": "colour"},
            "row 0: 'dim' should be one of action, attribute_change, direction, order, speed, but is 'colour'",
        ),
        ("yes_no", {"answer": "maybe"}, "yes_no/test-00000-of-00001.parquet, row 0: 'answer' should be yes or no, but is 'maybe'"),
        ("yes_no", {"video_id": None}, "row 0: the key 'video_id' is missing; there is video_id, dim, question, answer"),
        ("caption_matching", {"answer": "Option 2"}, "row 0: 'answer' is none of the options: 'Option 2'"),
        (
            "caption_matching",
            {"question": "Which?\nThis one.\nThat one."},
            "should have lines such as 'Option 1: ...' below it, but is 'Which.'",
        ),
        ("captioning", {"mc_answer": None}, "captioning/test-00000-of-00001.parquet, row 0: the key 'mc_answer' is missing"),
    ],
)
def test_mistakes(miniature, form, changes, sentence):
    temp_compass(miniature("TempCompass"), form, **changes)
    raises(sentence, "temp_compass", "validation")


def test_no_parquet_file(files):
    files.text("yes_no/test-00000-of-00001.parquet", "question,answer")
    raises("yes_no/test-00000-of-00001.parquet is no parquet file", "temp_compass_yes_no", "validation")
