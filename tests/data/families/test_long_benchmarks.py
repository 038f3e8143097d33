"""MLVU, LVBench and VideoEval-Pro: first examples, what is finally asked, and mistakes in files."""

import pytest

from olmo.data.families.long_benchmarks import MLVU_CHOICES
from tests.data.families.asking import asked, raises, told
from tests.data.families.fixtures import example, open_split

S1 = "video_eval_multiple_choice"

# -- MLVU

MLVU = "What colour is it?\nA. Red\nB. Yellow\nAnswer with the option's letter from the given choices directly."


def mlvu(files, task="1_plotQA", **changes):
    entry = {"video": "movie101_66.mp4", "duration": 480.0, "question": "What colour is it?", "candidates": ["Red", "Yellow"]}
    entry |= {"answer": "Yellow", "question_type": "plotQA"}
    for name in MLVU_CHOICES:
        files.json(f"MLVU/json/{name}.json", [entry | changes if name == task else entry])
    test = entry | {"question_id": "AR_0", "video": "test_1.mp4"}
    files.json("MLVU/json/9_summary.json", [entry | {"question": "Summarise.", "answer": "A film.", "question_type": "summary"}])
    scene = {"video": "sub.mp4", "duration": 100, "question": "What about the scene?", "answer": "Much.", "question_type": "subPlot"}
    files.json("MLVU/json/8_sub_scene.json", [scene | {"scoring_points": ["much", "more"]}])
    files.json("MLVU_Test/test-ground-truth/test_mcq_gt.json", [test])


def test_mlvu(miniature):
    """Shortest videos first."""
    mlvu(miniature("MVLU"), task="4_count", duration=200)
    ids = {"example_id": "4_count_0", "question_id": "4_count_0", "video_id": "movie101_66.mp4"}
    assert example("mlvu_mc", "validation") == {
        "video": "MLVU/video/4_count/movie101_66.mp4",
        "question": MLVU,
        "answer": "B",
        "style": S1,
        "metadata": ids | {"task_type": "plotQA", "question_type": "plotQA", "duration": 200.0},
    }
    assert example("mlvu_mc", "validation", 1)["metadata"]["example_id"] == "1_plotQA_0"
    assert len(open_split("mlvu", "validation")) == 7 and asked("mlvu_mc", "validation") == MLVU


def test_mlvu_test(miniature):
    mlvu(miniature("MVLU"))
    found = example("mlvu_mc_test", "test")
    assert found["video"] == "MLVU_Test/video/test_1.mp4" and found["metadata"]["question_id"] == "AR_0" and found["answer"] == "B"
    assert len(open_split("mlvu_mc_test")) == 1 and asked("mlvu_mc", "test") == MLVU


def test_mlvu_in_own_words(miniature):
    mlvu(miniature("MVLU"))
    assert example("mlvu_gen", "validation") == {
        "video": "MLVU/video/8_sub_scene/sub.mp4",
        "question": "What about the scene?",
        "answer": "Much.",
        "style": "demo",
        "metadata": {
            "example_id": "8_sub_scene_0",
            "question_id": "8_sub_scene_0",
            "video_id": "sub.mp4",
            "task_type": "subPlot",
            "question_type": "subPlot",
            "duration": 100.0,
            "scoring_points": ["much", "more"],
        },
    }
    assert len(open_split("mlvu_gen", "validation")) == 2
    assert "scoring_points" not in example("mlvu_gen", "validation", 1)["metadata"]
    assert asked("mlvu_gen", "validation") == "demo: What about the scene?"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "Blue"}, "MLVU/json/1_plotQA.json, entry 0: 'answer' is none of the options: 'Blue'"),
        ({"duration": "long"}, "MLVU/json/1_plotQA.json, entry 0: 'duration' should be a number, but is \"long\""),
        ({"candidates": ["Yellow"]}, "1_plotQA.json, entry 0: 'candidates' should have two options or more, but has 1"),
        ({"question_type": None}, "1_plotQA.json, entry 0: the key 'question_type' is missing"),
    ],
)
def test_mlvu_mistakes(miniature, changes, sentence):
    mlvu(miniature("MVLU"), **changes)
    raises(sentence, "mlvu_mc", "validation")


# -- LVBench

LVBENCH = "What year is it?\nA. 1636\nB. 1366\nC. 1363\nD. 1633\nPlease respond with only the letter of the correct answer."


def lvbench(files, qa=(), **changes):
    asked_once = {
        "uid": "0",
        "question": "What year is it?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
        "answer": "D",
        "question_type": ["key information retrieval", "reasoning"],
        "time_reference": "00:15-00:19",
    }
    line = {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 62.1}, "qa": [asked_once | changes, *qa]}
    files.jsonl("video_info.meta.jsonl", [line, line | {"key": "other", "qa": [asked_once, asked_once | {"uid": "1"}]}])


def test_lvbench(miniature):
    """Its only split is test, which a name alone means."""
    lvbench(miniature("LVBench"))
    assert example("lvbench", "test") == {
        "video": "Cm73ma6Ibcs.mp4",
        "question": LVBENCH,
        "answer": "D.",
        "style": S1,
        "metadata": {
            "example_id": "Cm73ma6Ibcs_0",
            "uid": "0",
            "answer": "D.",
            "type": "cartoon",
            "qtype": ["key information retrieval", "reasoning"],
            "time_reference": "00:15-00:19",
        },
    }
    assert len(open_split("lvbench", None)) == 3
    assert asked("lvbench", "test") == LVBENCH and told("lvbench", "test")["answer"] == "D."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "E"}, r"meta.jsonl, line 1, qa\[0\]: 'answer' should be one of the letters A to D, but is 'E'"),
        ({"question": "What year is it?"}, r"line 1, qa\[0\]: its question should have options A and B in lines of their own"),
        ({"question_type": "reasoning"}, r"line 1, qa\[0\]: 'question_type' should be a list, but is \"reasoning\""),
        ({"qa": [{"uid": "0"}]}, r"line 1, qa\[1\]: the uid '0' stands already at .*line 1, qa\[0\]"),
    ],
)
def test_lvbench_mistakes(miniature, changes, sentence):
    lvbench(miniature("LVBench"), **changes)
    raises(sentence, "lvbench", "test")


# -- VideoEval-Pro

VEP_OPTIONS = ["A. A cat", "B. A dog", "C. A cow"]


def video_eval_pro(files, **changes):
    row = {
        "video": "gQ1oJR7Wn7I.mp4",
        "question": "What runs away?",
        "options": VEP_OPTIONS,
        "answer": "B",
        "answer_text": "A dog",
        "meta": "{}",
        "source": "lvbench",
        "qa_subtype": "Entity Recognition",
        "qa_type": "Local Perception",
    }
    files.parquet("data/test-00000-of-00001.parquet", [row | changes, row])


def test_video_eval_pro(miniature):
    video_eval_pro(miniature("VideoEvalPro"))
    question = "What runs away?\nA. A cat\nB. A dog\nC. A cow\nPlease respond with only the letter of the correct answer."
    assert example("video_eval_pro_mc", "test") == {
        "video": "videos/videos_filtered/gQ1oJR7Wn7I.mp4",
        "question": question,
        "answer": "B",
        "style": S1,
        "metadata": {
            "example_id": "0",
            "answer_text": "A dog",
            "source": "lvbench",
            "qa_subtype": "Entity Recognition",
            "qa_type": "Local Perception",
            "options": VEP_OPTIONS,
        },
    }
    assert len(open_split("video_eval_pro", "test")) == 2 and asked("video_eval_pro_mc", "test") == question
    free = example("video_eval_pro_open", "test")
    assert (free["question"], free["answer"], free["style"]) == ("What runs away?", free["metadata"]["answer_text"], "demo")
    assert "options" not in free["metadata"] and asked("video_eval_pro_open", "test") == "demo: What runs away?"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "D"}, "data/test-00000-of-00001.parquet, row 0: 'answer' should be one of the letters A to C, but is 'D'"),
        ({"qa_type": None}, "data/test-00000-of-00001.parquet, row 0: the key 'qa_type' is missing"),
        ({"options": ["A. A cat", None]}, r"row 0: 'options\[1\]' should be text, but is null"),
    ],
)
def test_video_eval_pro_mistakes(miniature, changes, sentence):
    video_eval_pro(miniature("VideoEvalPro"), **changes)
    raises(sentence, "video_eval_pro_mc", "test")
