"""Who moves and how: the first example of every split, from miniatures in the published formats."""

import pytest

from tests.data.families.checks import refused, said
from tests.data.families.fixtures import example, open_split

MC, OE = "video_multiple_choice", "video_short_answer"

# -- Video Localized Narratives: questions


def narrative_qa(files, split="train", **changes):
    def pair(number, **more):
        return {"question_id": f"question_{split}_{number}", "question": f"What does person {number} hold?", "answer": "a cake"} | more

    video = "Carnival of Excess (March 2019) _ FailArmy34"
    annotations = [
        {"video_name": video, "qa_pairs": [pair(0, **changes)]},
        {"video_name": "Another one", "qa_pairs": [pair(1)]},
        {"video_name": video, "qa_pairs": [pair(2)]},
    ]
    files.json(f"oops_{split}/qa_text_output.json", {"annotations": annotations})


@pytest.mark.parametrize("split", ["train", "val"])
def test_narrative_questions(miniature, split):
    """What several people have told about a video is one example."""
    narrative_qa(miniature("oops"), split)
    video = "Carnival of Excess (March 2019) _ FailArmy34"
    assert example("video_localized_narratives", split) == {
        "video": f"oops_video/{split}/{video}.mp4",
        "message_list": [{"question": f"What does person {n} hold?", "answer": "a cake", "style": OE} for n in (0, 2)],
        "metadata": {"video_name": video},
    }
    assert len(open_split("video_localized_narratives", split)) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": None}, "oops_train/qa_text_output.json, annotations[0], qa_pairs[0]: the key 'answer' is missing"),
        ({"question": ["What?"]}, "annotations[0], qa_pairs[0]: 'question' should be text, but is [\"What?\"]"),
        ({"question_id": "question_train_2"}, "annotations[2], qa_pairs[0]: the question_id 'question_train_2' stands already at"),
    ],
)
def test_narrative_questions_with_something_wrong(miniature, changes, sentence):
    narrative_qa(miniature("oops"), **changes)
    refused("video_localized_narratives", sentence)


def test_narrative_questions_that_are_a_list(miniature):
    miniature("oops").json("oops_train/qa_text_output.json", [])
    refused("video_localized_narratives", "qa_text_output.json should be a mapping with the list 'annotations'")


# -- Video Localized Narratives: captions


def narrative(number, video="5d24e4ea", actors=(("Man", "A man walks to the left."),), **changes):
    told = [{"actor_name": name, "keyframe_selection_indices": [0], "caption": text, "traces": []} for name, text in actors]
    return {"vidln_id": number, "dataset_id": "OVIS_train", "video_id": video, "keyframe_names": ["1"], "actor_narratives": told} | changes


def test_narrative_captions(miniature, caplog):
    files = miniature("VideoLocalizedNarratives")
    actors = (("Man", "A man walks to the left. "), ("Parrot<White>", "It watches."), ("Cat", " "))
    files.jsonl("vidlns/OVIS_train.jsonl", [narrative(1, actors=actors), narrative(2)])
    files.jsonl("vidlns/oops_train.jsonl", [narrative(1, "Fails 3", dataset_id="oops_train")])
    files.jsonl("vidlns/oops_val.jsonl", [narrative(9)])
    found = example("video_localized_narratives_caption")
    assert found == {
        "video": "videos/OVIS_train/5d24e4ea.mp4",
        "message_list": [
            {"text": "A man walks to the left.", "object": "man", "style": "video_object_caption"},
            {"text": "It watches.", "object": "parrot<white>", "style": "video_object_caption"},
            {"text": "A man walks to the left.", "object": "man", "style": "video_object_caption"},
        ],
    }
    assert len(open_split("video_localized_narratives_caption")) == 2
    assert "left out: 1 narratives without words, the first at" in caplog.text
    for request, answer in said(found):
        assert request.startswith("video_object_caption: ") and ("man" in request or "parrot<white>" in request) and answer.endswith(".")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vidln_id": 1}, "vidlns/oops_train.jsonl, line 2: the vidln_id 1 stands already at"),
        ({"video_id": None}, "vidlns/oops_train.jsonl, line 2: the key 'video_id' is missing"),
        ({"actor_narratives": {}}, "vidlns/oops_train.jsonl, line 2: 'actor_narratives' should be a list, but is {}"),
        ({"actor_narratives": [{"actor_name": "Man"}]}, "line 2, actor_narratives[0]: the key 'caption' is missing; there is actor_name"),
    ],
)
def test_narrative_captions_with_something_wrong(miniature, changes, sentence):
    miniature("VideoLocalizedNarratives").jsonl("vidlns/oops_train.jsonl", [narrative(1), narrative(2, **changes)])
    refused("video_localized_narratives_caption", sentence)


def test_narrative_captions_in_a_broken_line(miniature):
    files = miniature("VideoLocalizedNarratives")
    files.text("vidlns/oops_train.jsonl", '\n{"vidln_id": 1\n')
    refused("video_localized_narratives_caption", "vidlns/oops_train.jsonl, line 2: is no JSON")


# -- Countix

COUNTED = {"video_path": "train/abc_000001_000011.mp4", "class": "jumping jacks", "count": "7"}
WORDINGS = {"jumping jacks": ["How many jumping jacks?", "How often does the person jump?"]}


def countix(files, wordings=WORDINGS, **changes):
    files.csv("countix_train.csv", [COUNTED | changes, COUNTED | {"video_path": "train/def.mp4"}])
    files.json("class_to_question.json", wordings)


def test_countix(miniature):
    countix(miniature("Countix"))
    found = example("countix_oe")
    question = found["message_list"][0]["question"]
    assert question in WORDINGS["jumping jacks"] and len(open_split("countix_oe")) == 2
    assert found == {
        "video": "kinetics700/train/abc_000001_000011.mp4",
        "message_list": [{"question": question, "answer": "7", "style": OE}],
    }
    assert {example("countix_oe", seed=s)["message_list"][0]["question"] for s in range(20)} == set(WORDINGS["jumping jacks"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": "7.5"}, "countix_train.csv, line 2: 'count' should be a whole number, but is \"7.5\""),
        ({"class": "swimming"}, "countix_train.csv, line 2: the class 'swimming' has no questions in "),
        ({"wordings": {"jumping jacks": []}}, "class_to_question.json: 'jumping jacks' is empty; there should be at least one text"),
        ({"wordings": {"jumping jacks": "How many?"}}, "class_to_question.json: 'jumping jacks' should be a list, but is \"How many?\""),
        ({"wordings": []}, "class_to_question.json should be a mapping from classes to lists of questions"),
    ],
)
def test_countix_with_something_wrong(miniature, changes, sentence):
    countix(miniature("Countix"), **changes)
    refused("countix_oe", sentence)


# -- CameraBench


def camera(question="Does the camera pan?", answer="to the left", wrong=("to the right", "not at all")):
    return {"Question": question, "Answer": answer, "NegativeAnswers": list(wrong)}


def test_camerabench(miniature, caplog):
    """The right answer stands at a random place; a question whose wrong answers are the right one is left out."""
    files = miniature("CameraBench")
    rows = [
        {"video_path": "videos/1.mp4", "mc_qa_list": [camera(), camera("Does it tilt?", wrong=["to the left "])]},
        {"video_path": "videos/2.mp4", "mc_qa_list": [camera("Does it zoom?", wrong=[])]},
        {"video_path": "videos/3.mp4", "mc_qa_list": [camera("Does it roll?", wrong=["to the left", "no"])]},
    ]
    files.parquet("data/train-00000-of-00001.parquet", rows)
    found = example("camerabench_qa")
    place = found["message_list"][0]["answer_idx"]
    options = ["to the right", "not at all"]
    options.insert(place, "to the left")
    message = {"question": "Does the camera pan?", "options": options, "answer_idx": place, "style": MC}
    assert found == {"video": "videos/1.mp4", "message_list": [message]} == example("camerabench_qa")
    assert {example("camerabench_qa", seed=s)["message_list"][0]["answer_idx"] for s in range(30)} == {0, 1, 2}
    assert len(open_split("camerabench_qa")) == 2 and "left out: 2 questions without a wrong answer" in caplog.text
    assert sorted(example("camerabench_qa", index=1)["message_list"][0]["options"]) == ["no", "to the left"]


def test_camerabench_with_something_wrong(miniature):
    files = miniature("CameraBench")
    name = "data/train-00000-of-00001.parquet"
    for rows, sentence in (
        ([{"video_path": "1.mp4"}], f"{name} should have the columns video_path, mc_qa_list, but lacks mc_qa_list; there is video_path"),
        (
            [{"video_path": "1.mp4", "mc_qa_list": [{"Question": "?", "NegativeAnswers": ["x"]}]}],
            f"{name}, row 0, mc_qa_list[0]: the key 'Answer' is missing",
        ),
        ([{"video_path": 1, "mc_qa_list": [camera()]}], f"{name}, row 0: 'video_path' should be text, but is 1"),
    ):
        files.parquet(name, rows)
        refused("camerabench_qa", sentence)
    files.text(name, "PAR1 no more")
    refused("camerabench_qa", f"{name} is no parquet file")


# -- MotionBench captions


def test_motion_captions(miniature):
    files = miniature("MotionBench")
    rows = [{"video_path": path, "motion_caption": "A hand waves."} for path in ("a.mp4", "videos/b.mp4")]
    files.jsonl("MotionBenchCaption-train/train.jsonl", rows)
    found = example("motionbench_train")
    assert found == {
        "video": "MotionBenchCaption-train/videos/a.mp4",
        "message_list": [{"text": "A hand waves.", "style": "video_motion_caption"}],
    }
    assert example("motionbench_caption", index=1)["video"] == "MotionBenchCaption-train/videos/b.mp4"
    assert len(open_split("motionbench_train")) == 2
    ((request, answer),) = said(found)
    assert request.startswith("video_motion_caption: ") and len(request) > 30 and answer == "A hand waves."


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"video_path": "a.mp4"}', "train.jsonl, line 1: the key 'motion_caption' is missing; there is video_path"),
        ('{"video_path": "a.mp4", "motion_caption": 3}', "train.jsonl, line 1: 'motion_caption' should be text, but is 3"),
        ("[]", "train.jsonl, line 1: should be a mapping, but is []"),
    ],
)
def test_motion_captions_with_something_wrong(miniature, line, sentence):
    miniature("MotionBench").text("MotionBenchCaption-train/train.jsonl", line)
    refused("motionbench_train", sentence)


def test_motion_captions_twice_or_in_latin_1(miniature):
    files = miniature("MotionBench")
    row = {"video_path": "a.mp4", "motion_caption": "A hand waves."}
    path = files.jsonl("MotionBenchCaption-train/train.jsonl", [row, row])
    refused("motionbench_train", "train.jsonl, line 2: the video_path 'a.mp4' stands already at")
    path.write_bytes(b'{"video_path": "a.mp4",\n"motion_caption": "na\xefve"}')
    refused("motionbench_train", "train.jsonl, line 2: is not UTF-8 text")


def test_absent_data_is_named(miniature):
    miniature("somewhere else")
    refused("countix_oe", "Countix; download from huggingface.co/datasets/allenai/Molmo2-Countix")
