"""Questions that need a conclusion: the first example of every split, from miniatures in the published formats."""

import numpy as np
import pytest

from olmo.data.catalogue import get_dataset
from olmo.exceptions import OLMoDataError
from tests.data.families.checks import refused, said
from tests.data.families.fixtures import example, open_split

MC, OE = "video_multiple_choice", "video_short_answer"


# -- CLEVRER

DESCRIPTIVE = {"question_id": 0, "question": "How many metal objects are moving?", "question_type": "descriptive", "answer": "1"}
CHOICES = {
    "question_id": 10,
    "question": "What will happen next?",
    "question_type": "predictive",
    "choices": [
        {"choice_id": 0, "choice": "The cube and the sphere collide", "answer": "wrong", "program": []},
        {"choice_id": 1, "choice": "The cube and the cylinder collide", "answer": "correct", "program": []},
    ],
}
SEVERAL = {**CHOICES, "question": "Which is responsible?", "choices": [{**CHOICES["choices"][1], "choice_id": i} for i in range(2)]}


def clevrer(files, split="train", number=0, questions=(DESCRIPTIVE, CHOICES, SEVERAL), **changes):
    scene = {"scene_index": number, "video_filename": f"video_{number:05d}.mp4", "questions": list(questions)} | changes
    second = {"scene_index": number + 1, "video_filename": f"video_{number + 1:05d}.mp4", "questions": [DESCRIPTIVE]}
    files.json(f"{split}.json", [scene, second])


def without_answers(question):
    hidden = {k: v for k, v in question.items() if k != "answer"}
    return hidden | ({"choices": [without_answers(c) for c in question["choices"]]} if "choices" in question else {})


def test_clevrer(miniature):
    """Choices with one right answer are options; where several are right there is no question."""
    files = miniature("clevrer")
    clevrer(files)
    clevrer(files, "validation", 10999)
    assert example("clevrer") == {
        "video": "video_00000-01000/video_00000.mp4",
        "message_list": [
            {"question": "How many metal objects are moving?", "answer": "1", "style": OE},
            {
                "question": "What will happen next?",
                "options": ["The cube and the sphere collide", "The cube and the cylinder collide"],
                "answer_idx": 1,
                "style": MC,
            },
        ],
    }
    assert len(open_split("clevrer")) == len(open_split("clevrer", "validation")) == 2
    assert example("clevrer", "validation")["video"] == "video_10000-11000/video_10999.mp4"
    assert example("clevrer", "validation", 1)["video"] == "video_11000-12000/video_11000.mp4"


def test_the_test_of_clevrer_has_no_answers(miniature):
    """How many choices are right is not published either, so that only the descriptive questions can be asked."""
    clevrer(miniature("clevrer"), "test", 15000, [without_answers(q) for q in (DESCRIPTIVE, CHOICES)])
    found = example("clevrer", "test")
    assert found["message_list"] == [{"question": "How many metal objects are moving?", "style": OE}]
    with pytest.raises(OLMoDataError, match="it has no answer"):
        said(found)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"questions": [without_answers(DESCRIPTIVE)]},
            "train.json, entry 0, questions[0]: the key 'answer' is missing; there is",
        ),
        ({"questions": [without_answers(CHOICES)]}, "train.json, entry 0, questions[0], choices[0]: the key 'answer' is missing"),
        (
            {"questions": [{**CHOICES, "choices": [{"choice": "x", "answer": "yes"}]}]},
            "questions[0], choices[0]: 'answer' should be correct or wrong, but is 'yes'",
        ),
        ({"questions": ["How many?"]}, "train.json, entry 0: 'questions[0]' should be a mapping, but is \"How many?\""),
        ({"scene_index": 1}, "train.json, entry 1: the scene_index 1 stands already at "),
        ({"scene_index": None}, "train.json, entry 0: the key 'scene_index' is missing"),
        ({"scene_index": "first"}, "train.json, entry 0: 'scene_index' should be a whole number, but is \"first\""),
        ({"video_filename": 7}, "train.json, entry 0: 'video_filename' should be text, but is 7"),
    ],
)
def test_clevrer_with_something_wrong(miniature, changes, sentence):
    clevrer(miniature("clevrer"), **changes)
    refused("clevrer", sentence)


def test_clevrer_that_is_no_list(miniature):
    files = miniature("clevrer")
    files.json("train.json", {"scenes": []})
    refused("clevrer", "train.json should be a list of mappings")
    files.text("train.json", "[{]")
    refused("clevrer", "train.json, line 1: is no JSON")


# -- STAR


def star_entry(number, video="6H78U", start=11.1, end=19.6, **changes):
    choices = ["The closet/cabinet.", "The blanket.", "The clothes.", "The table."]
    entry = {
        "question_id": f"Interaction_T1_{number}",
        "question": f"Which object was tidied up, {number}?",
        "video_id": video,
        "start": start,
        "end": end,
        "answer": "The clothes.",
        "question_program": [],
        "choices": [{"choice_id": i, "choice": c, "choice_program": []} for i, c in enumerate(choices)],
        "situations": {},
    } | changes
    return {k: v for k, v in entry.items() if v is not None}


def test_star(miniature):
    """Every question is asked without and with its choices; those on the same part of a video are one example."""
    files = miniature("STAR")
    files.json("STAR_train.json", [star_entry(1), star_entry(2, start=0.0), star_entry(3)])
    files.json("STAR_val.json", [star_entry(1)])
    files.json("STAR_test.json", [star_entry(1, answer=None)])
    options = ["The closet/cabinet.", "The blanket.", "The clothes.", "The table."]
    asked = [f"Which object was tidied up, {n}?" for n in (1, 3)]
    assert example("star") == {
        "video": "Charades_v1_480/6H78U.mp4",
        "message_list": [
            message
            for q in asked
            for message in (
                {"question": q, "answer": "The clothes.", "style": OE},
                {"question": q, "options": options, "answer_idx": 2, "style": MC},
            )
        ],
        "metadata": {"clip_start_time": 11.1, "clip_end_time": 19.6},
    }
    assert len(open_split("star")) == 2 and len(open_split("star", "validation")) == 1
    assert example("star", "test")["message_list"] == [
        {"question": asked[0], "style": OE},
        {"question": asked[0], "style": MC, "options": options},
    ]


def test_star_has_at_most_ten_branches(miniature):
    """22 branches become 8, 7 and 7, not 10, 10 and 2."""
    miniature("STAR").json("STAR_train.json", [star_entry(n) for n in range(11)])
    assert [len(example("star", index=i)["message_list"]) for i in range(len(open_split("star")))] == [8, 7, 7]


def test_star_leaves_out_empty_spans_and_says_so(miniature, caplog):
    miniature("STAR").json("STAR_train.json", [star_entry(1), star_entry(2, start=5, end=5)])
    assert len(open_split("star")) == 1
    assert "left out: 1 spans that do not end after they start, the first at" in caplog.text and "entry 1" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "The lamp."}, "STAR_train.json, entry 1: the answer 'The lamp.' is none of the choices ['The closet/cabinet.'"),
        ({"answer": None}, "STAR_train.json, entry 1: the key 'answer' is missing; there is question_id"),
        ({"start": "later"}, "STAR_train.json, entry 1: 'start' should be a number, but is \"later\""),
        ({"question_id": "Interaction_T1_0"}, "STAR_train.json, entry 1: the question_id 'Interaction_T1_0' stands already at"),
        ({"choices": [{"choice_id": 0}]}, "STAR_train.json, entry 1, choices[0]: the key 'choice' is missing"),
    ],
)
def test_star_with_something_wrong(miniature, changes, sentence):
    miniature("STAR").json("STAR_train.json", [star_entry(0), star_entry(1, **changes)])
    refused("star", sentence)


# -- IntentQA


def intent_rows(**changes):
    row = {"video_id": "13884124143", "frame_count": "853", "width": "640", "height": "360", "question": "why did he jump", "answer": "4"}
    row |= {"qid": "1", "type": "CW", **{f"a{i}": f"reason {i}" for i in range(5)}, "action": "jump", "lemma": "jump", "lemma_id": "1"}
    return [row | changes, row | {"video_id": "2"}, row | {"question": "how did he land", "answer": "0"}]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_intent_qa(miniature, split):
    files = miniature("IntentQA")
    files.csv(f"{split}.csv", intent_rows())
    files.touch("videos/1164/13884124143.mp4", "videos/2.mp4")
    options = [f"reason {i}" for i in range(5)]
    assert example("intent_qa", split) == {
        "video": "videos/1164/13884124143.mp4",
        "message_list": [
            {"question": "why did he jump", "answer": "reason 4", "style": OE},
            {"question": "why did he jump", "options": options, "answer_idx": 4, "style": MC},
            {"question": "how did he land", "answer": "reason 0", "style": OE},
            {"question": "how did he land", "options": options, "answer_idx": 0, "style": MC},
        ],
    }
    assert len(open_split("intent_qa", split)) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "5"}, "train.csv, line 2: the answer is option 5, but there are 5 options, counted from 0"),
        ({"answer": "-1"}, "train.csv, line 2: the answer is option -1, but there are 5 options, counted from 0"),
        ({"answer": "reason 4"}, "train.csv, line 2: 'answer' should be a whole number, but is \"reason 4\""),
    ],
)
def test_intent_qa_with_a_wrong_answer(miniature, changes, sentence):
    files = miniature("IntentQA")
    files.csv("train.csv", intent_rows(**changes))
    files.touch("videos/2.mp4")
    refused("intent_qa", sentence)


def test_intent_qa_in_wrong_files(miniature):
    """A column is missing; a line is cut off; the text is Latin-1."""
    files = miniature("IntentQA")
    files.touch("videos/2.mp4")
    files.csv("train.csv", [{k: v for k, v in row.items() if k != "a3"} for row in intent_rows()])
    refused("intent_qa", "train.csv, line 2: the key 'a3' is missing; there is video_id, frame_count")
    path = files.csv("train.csv", intent_rows())
    path.write_text(path.read_text() + "777,1,2\n")
    refused("intent_qa", "train.csv, line 5: has fewer columns than the header")
    path.write_bytes(b"video_id,question\n1,where is the caf\xe9\n")
    refused("intent_qa", "train.csv, line 2: is not UTF-8 text")


# -- Sports-QA


def sports_rows(*videos):
    return [{"video": v, "question": f"What happens in {v}?", "answer": "a turn", "type": "descriptive"} for v in videos]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_sportsqa(miniature, split):
    """Videos have several formats and lie in folders or not."""
    files = miniature("SportsQA")
    files.json(f"meta-data/{split}.json", sports_rows("v_1_c001", "v_2.0", "v_1_c001"))
    files.touch("videos/gym/v_1_c001.avi", "videos/v_2.0.webm")
    message = {"question": "What happens in v_1_c001?", "answer": "a turn", "style": OE}
    assert example("sportsqa_oe", split) == {"video": "videos/gym/v_1_c001.avi", "message_list": [message, message]}
    assert example("sportsqa_oe", split, 1)["video"] == "videos/v_2.0.webm" and len(open_split("sportsqa_oe", split)) == 2


def test_sportsqa_without_some_of_its_videos(miniature, caplog):
    """They are counted; once they are there, the index follows."""
    files = miniature("SportsQA")
    files.json("meta-data/train.json", sports_rows("v_1", "v_2", "v_2"))
    refused("sportsqa_oe", "videos/**/ is not in")
    files.touch("videos/readme.txt")
    refused("sportsqa_oe", "none of its 2 videos is in ")
    files.touch("videos/v_1.mp4")
    assert len(open_split("sportsqa_oe")) == 1
    assert "left out: 1 of 2 videos" in caplog.text and "(the first: v_2)" in caplog.text
    files.touch("videos/v_2.mkv")
    assert len(open_split("sportsqa_oe")) == 2


def test_sportsqa_with_something_wrong(miniature):
    files = miniature("SportsQA")
    files.touch("videos/v_1.mp4")
    for changes, sentence in {
        ("answer", None): "meta-data/train.json, entry 1: the key 'answer' is missing; there is video, question",
        ("video", 3): "meta-data/train.json, entry 1: 'video' should be text, but is 3",
    }.items():
        files.json("meta-data/train.json", [*sports_rows("v_1"), sports_rows("v_1")[0] | dict([changes])])
        refused("sportsqa_oe", sentence)


# -- RoadTextVQA


def road_text(files, split="train", **changes):
    entry = {"questionId": 1, "videoId": "123", "question": "What is the speed limit?", "answer": ["60", "60 km/h", "sixty"]} | changes
    rows = [entry, {"questionId": 2, "videoId": "124", "question": "Which street?", "answer": ["Elm"]}]
    files.touch("videos/123.mp4", "videos/124.mp4")
    files.json(f"{split}.json", {"data": [{k: v for k, v in row.items() if v is not None} for row in rows]})


def test_road_text_vqa(miniature):
    """One of the accepted answers is drawn, by the generator alone."""
    files = miniature("RoadTextVQA")
    for split in ("train", "val"):
        road_text(files, split)
        found = example("road_text_vqa", split)
        answer = found["message_list"][0]["answer"]
        message = {"question": "What is the speed limit?", "answer": answer, "style": OE}
        assert found == {"video": "videos/123.mp4", "message_list": [message]} == example("road_text_vqa", split)
        assert len(open_split("road_text_vqa", split)) == 2
    answers = {example("road_text_vqa", seed=s)["message_list"][0]["answer"] for s in range(30)}
    assert answers == {"60", "60 km/h", "sixty"}
    road_text(files, "test", answer=None)
    assert example("road_text_vqa", "test")["message_list"] == [{"question": "What is the speed limit?", "style": OE}]


def test_road_text_vqa_that_names_the_files_of_its_videos(miniature):
    """Seen to fail (no video is there) when only the id is looked for."""
    road_text(miniature("RoadTextVQA"), videoId="a", video="train/123.mp4")
    assert example("road_text_vqa")["video"] == "videos/123.mp4" and len(open_split("road_text_vqa")) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": []}, "train.json, data[0]: 'answer' is empty; there should be at least one text"),
        ({"answer": None}, "train.json, data[0]: the key 'answer' is missing"),
        ({"answer": "60"}, "train.json, data[0]: 'answer' should be a list, but is \"60\""),
        ({"answer": [60]}, "train.json, data[0]: 'answer[0]' should be text, but is 60"),
        (
            {"videoId": None},
            "data[0]: should have the keys questionId, videoId, question, but lacks videoId; there is questionId, question, answer",
        ),
        ({"questionId": 2}, "train.json, data[1]: the questionId 2 stands already at"),
    ],
)
def test_road_text_vqa_with_something_wrong(miniature, changes, sentence):
    road_text(miniature("RoadTextVQA"), **changes)
    refused("road_text_vqa", sentence)


def test_road_text_vqa_that_is_a_list(miniature):
    files = miniature("RoadTextVQA")
    files.touch("videos/123.mp4")
    files.json("train.json", [])
    refused("road_text_vqa", "train.json should be a mapping with the list 'data'")


# -- what the model sees


def test_open_and_closed_questions_as_prompts(miniature):
    """The open one carries its style and is worded at random; the closed one carries none and ends in the chosen text."""
    miniature("STAR").json("STAR_train.json", [star_entry(1)])
    dataset = get_dataset("star", "train")
    for seed in range(20):
        (opened, answer), (closed, choice) = said(dataset.get(0, np.random.default_rng(seed)), seed)
        assert opened.startswith("video_short_answer: ") and "Which object was tidied up, 1?" in opened and answer == "The clothes."
        assert "video_multiple_choice" not in closed and all(o in closed for o in ("The blanket.", "The table.")) and choice in closed
