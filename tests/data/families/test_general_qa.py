"""Everyday videos: the first example of every split, from miniatures in the published formats."""

import pytest

from olmo.data.families.general_qa import PAXION_QUESTIONS
from olmo.exceptions import OLMoDataError
from tests.data.families.fixtures import MC, OE, example, mc, open_split

EVAL = "video_eval_multiple_choice"
SSV2 = "ActionBench/ssv2/shuffled_object_and_action_antonyms"
EGO4D = "ActionBench/ego4d/egoclip_subset_action_antonyms_train_val_test_split"
THING = {
    "label": "Spinning cube that quickly stops spinning",
    "label_action_antonym_clip_text": "Spinning cube that quickly starts spinning",
    "id": 74225,
    "rel_vid_path": "ssv2/74225.webm",
}
CLIP = {
    "video_uid": "002d2729",
    "clip_start": 592.35,
    "clip_end": 593.03,
    "clip_text": "#C C picks up the knife.",
    "action_antonym_clip_text": "#C C drops down the knife.",
    "Unnamed: 10": float("nan"),
}


def paxion(files, thing=THING, clip=CLIP):
    for ssv2, ego4d in (("train", "train"), ("validation", "val")):
        files.json(f"{SSV2}/{ssv2}.json", [thing])
        files.jsonl(f"{EGO4D}/{ego4d}.jsonl", [CLIP, clip])
    files.jsonl(f"{EGO4D}/test.jsonl", [clip])


def test_paxion(miniature):
    """Question and order of the options are drawn anew every time; the test split has no clips of Something-Something."""
    paxion(miniature("Paxion"))
    right, wrong = THING["label"], THING["label_action_antonym_clip_text"]
    assert example("paxion") == {
        "video": "ssv2/74225.webm",
        "message_list": [mc(PAXION_QUESTIONS[2], [right, "Not sure", wrong], 0)],
    }
    found = example("paxion", "test")
    assert found["video"] == "../ego4d/v2/full_scale/002d2729.mp4"
    assert found["metadata"] == {"clip_start_time": 592.35, "clip_end_time": 593.03}
    assert found["message_list"][0]["options"][found["message_list"][0]["answer_idx"]] == "#C C picks up the knife."
    assert [len(open_split("paxion", split)) for split in ("train", "val", "test")] == [3, 3, 1]
    draws = [example("paxion", seed=seed)["message_list"][0] for seed in range(300)]
    assert {d["question"] for d in draws} == set(PAXION_QUESTIONS)
    assert all(d["options"][d["answer_idx"]] == right for d in draws)
    assert all(70 < [d["answer_idx"] for d in draws].count(i) < 130 for i in range(3))


@pytest.mark.parametrize(
    ("thing", "clip", "sentence"),
    [
        (THING | {"rel_vid_path": None}, CLIP, "train.json, entry 0: the key 'rel_vid_path' is missing"),
        (THING | {"label": ["a"]}, CLIP, "train.json, entry 0: 'label' should be text, but is"),
        (THING, CLIP | {"clip_end": 592.35}, "train.jsonl, line 2: 'clip_start' and 'clip_end' should be seconds in this order"),
        (THING, CLIP | {"clip_start": float("nan")}, "train.jsonl, line 2: 'clip_start' should be a number, but is NaN"),
        (
            THING,
            {"video_uid": "a"},
            "train.jsonl, line 2: should have the keys .*, but lacks clip_start, .*; there is video_uid",
        ),
    ],
)
def test_paxion_with_mistakes(miniature, thing, clip, sentence):
    paxion(miniature("Paxion"), thing, clip)
    with pytest.raises(OLMoDataError, match=f"^paxion: .*{sentence}"):
        open_split("paxion")


LLAVA = {
    "id": "4010069381",
    "video": "NextQA/NExTVideo/1164/4010069381.mp4",
    "conversations": [
        {"from": "human", "value": "<image>\nHow many?\nA. one.\nB. two.\nAnswer with the letter."},
        {"from": "gpt", "value": "B. two."},
        {"from": "human", "value": "Where?\nA. here.\nB. there."},
        {"from": "gpt", "value": "A. here."},
    ],
}


def llava(files, kind, parts, **changes):
    for part in parts:
        entry = LLAVA | {"data_source": part}
        files.json(f"{part}/{part}_{kind}_qa_processed.json", [entry, entry | changes])


LLAVA_MC = [
    *(f"{length}_nextqa" for length in ("0_30_s", "30_60_s", "1_2_m", "2_3_m")),
    *(f"{length}_perceptiontest" for length in ("0_30_s", "30_60_s")),
]
LLAVA_OE = [f"{length}_{source}" for source in ("nextqa", "activitynetqa") for length in ("0_30_s", "30_60_s", "1_2_m", "2_3_m")]


@pytest.mark.parametrize(("kind", "parts", "style"), [("mc", LLAVA_MC, MC), ("oe", LLAVA_OE, OE)])
def test_llava_video(miniature, kind, parts, style):
    """Options are part of the question's text, and so is what the answer should look like."""
    llava(miniature("LLaVA-Video-178K"), kind, parts, id="other")
    name = f"llava_video_{kind}_academic"
    assert example(name) == {
        "video": "0_30_s_nextqa/NextQA/NExTVideo/1164/4010069381.mp4",
        "message_list": [
            {"question": "How many?\nA. one.\nB. two.\nAnswer with the letter.", "answer": "B. two.", "style": style},
            {"question": "Where?\nA. here.\nB. there.", "answer": "A. here.", "style": style},
        ],
        "metadata": {"example_id": "4010069381", "prefix": "0_30_s_nextqa"},
    }
    assert len(open_split(name)) == 2 * len(parts)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"conversations": LLAVA["conversations"][:3]},
            r"'conversations' should be turns of human and gpt, .* \['human', 'gpt', 'human'\]",
        ),
        ({"conversations": []}, "'conversations' should be turns of human and gpt"),
        ({"conversations": "Hi"}, "'conversations' should be a list, but is"),
        ({"video": None}, "the key 'video' is missing"),
        ({"conversations": [{"from": "human", "value": 1}, {"from": "gpt", "value": "a"}]}, "'value' should be text, but is 1"),
    ],
)
def test_llava_video_with_mistakes(miniature, changes, sentence):
    llava(miniature("LLaVA-Video-178K"), "mc", LLAVA_MC, **changes)
    with pytest.raises(OLMoDataError, match=f"^llava_video_mc_academic: .*0_30_s_nextqa_mc_qa_processed.json, entry 1.*: {sentence}"):
        open_split("llava_video_mc_academic")


def test_a_part_of_llava_video_is_missing(miniature):
    llava(miniature("LLaVA-Video-178K"), "mc", LLAVA_MC[1:])
    with pytest.raises(OLMoDataError, match=r"0_30_s_nextqa/\*mc\*.json is not in"):
        open_split("llava_video_mc_academic")


PERCEPTION = {"id": 0, "question": "Is the camera moving?", "options": ["yes", "no", "unclear"], "answer_id": 1, "area": "physics"}
PERCEPTION_ROW = {
    "video_name": "video_1",
    "question_id": "3",
    "question": "Is the camera moving?",
    "options": ["yes", "no", "unclear"],
    "answer_id": "1",
    "area": "physics",
    "reasoning": "descriptive",
    "tag": ["motion"],
}
PERCEPTION_PROMPT = "Is the camera moving?\nA. yes\nB. no\nC. unclear\nAnswer with the option's letter from the given choices directly."


def test_perception_test_to_train_on(miniature):
    videos = {
        "video_0": {"mc_question": [], "object_tracking": []},
        "video_1": {"metadata": {}, "mc_question": [PERCEPTION, PERCEPTION | {"answer_id": 0}]},
        "video_2": {"mc_question": [PERCEPTION]},
    }
    miniature("perception_test").json("all_train.json", videos)
    options = PERCEPTION["options"]
    assert example("perception_test") == {
        "video": "train_videos/video_1.mp4",
        "message_list": [mc("Is the camera moving?", options, 1), mc("Is the camera moving?", options, 0)],
    }
    assert len(open_split("perception_test")) == 2


def test_perception_test_to_evaluate(miniature):
    """One question is one example; the answers of the test split are unknown."""
    files = miniature("perception_test")
    files.parquet("mc_question_val/validation-00000-of-00001.parquet", [PERCEPTION_ROW, PERCEPTION_ROW | {"question_id": "4"}])
    files.parquet("Test/mc_question/test-00000-of-00001.parquet", [PERCEPTION_ROW | {"answer_id": None}])
    metadata = {"question_id": "3", "video_id": "video_1", "area": "physics", "reasoning": "descriptive"}
    assert example("perception_test", "validation") == {
        "video": "videos/video_1.mp4",
        "question": PERCEPTION_PROMPT,
        "answer": "B",
        "style": EVAL,
        "metadata": metadata | {"answer_idx": 1},
    }
    assert example("perception_test", "test") == {
        "video": "Test/videos/video_1.mp4",
        "question": PERCEPTION_PROMPT,
        "style": EVAL,
        "metadata": metadata,
    }
    assert len(open_split("perception_test", "validation")) == 2


@pytest.mark.parametrize(
    ("videos", "sentence"),
    [
        ({"v": {"mc_question": [PERCEPTION | {"answer_id": 3}]}}, r", v, mc_question\[0\]: the answer is option 3, but there are 3"),
        ({"v": {"mc_question": [PERCEPTION | {"options": ["a", 2]}]}}, r", v, mc_question\[0\]: 'options\[1\]' should be text, but is 2"),
        ({"v": []}, r": 'v' should be a mapping, but is \[\]"),
        ([], " should be a mapping of videos"),
    ],
)
def test_perception_test_with_mistakes(miniature, videos, sentence):
    miniature("perception_test").json("all_train.json", videos)
    with pytest.raises(OLMoDataError, match=f"^perception_test: .*all_train.json{sentence}"):
        open_split("perception_test")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer_id": "3"}, "row 1: the answer is option 3, but there are 3, counted from 0"),
        ({"answer_id": None}, "row 1: the key 'answer_id' is missing"),
        ({"area": None}, "row 1: the key 'area' is missing"),
    ],
)
def test_perception_test_to_evaluate_with_mistakes(miniature, changes, sentence):
    rows = [PERCEPTION_ROW, PERCEPTION_ROW | changes]
    miniature("perception_test").parquet("mc_question_val/validation-00000-of-00001.parquet", rows)
    with pytest.raises(OLMoDataError, match=f"^perception_test: .*validation-00000-of-00001.parquet, {sentence}"):
        open_split("perception_test", "validation")


NEXTQA_OPTIONS = [f"answer {i}" for i in range(5)]
NEXTQA = {
    "video": "4010069381",
    "frame_count": "369",
    "width": "640",
    "height": "480",
    "question": "how do the two man play the instrument",
    "answer": "0",
    "qid": "6",
    "type": "CH",
    **{f"a{i}": option for i, option in enumerate(NEXTQA_OPTIONS)},
}


def nextqa(files, *rows, split="train"):
    files.csv(f"{split}.csv", list(rows))
    files.json("map_vid_vidorID.json", {"4010069381": "1164/4010069381", "2": "0001/2"})


def test_nextqa_to_train_on(miniature):
    files = miniature("NeXTQA")
    nextqa(files, NEXTQA, NEXTQA | {"video": "2"}, NEXTQA | {"question": "why", "answer": "4"})
    nextqa(files, NEXTQA, split="val")
    assert example("nextqa_mc") == {
        "video": "NExTVideo-all-videos/1164/4010069381.mp4",
        "message_list": [mc(NEXTQA["question"], NEXTQA_OPTIONS, 0), mc("why", NEXTQA_OPTIONS, 4)],
    }
    assert len(open_split("nextqa_mc")) == 2 and len(open_split("nextqa_mc", "val")) == 1


def test_nextqa_to_evaluate(miniature):
    row = NEXTQA | {"video": 4010069381, "answer": 2, "qid": 6}
    miniature("NeXTQA").parquet("MC/test-00000-of-00001.parquet", [row, row | {"qid": 7}, row | {"video": 3}])
    assert example("nextqa_mc", "test") == {
        "video": "NExTVideo/4010069381.mp4",
        "question": "how do the two man play the instrument\nA. answer 0\nB. answer 1\nC. answer 2\nD. answer 3\nE. answer 4\n"
        "Answer with the option's letter from the given choices directly.",
        "answer": "C",
        "style": EVAL,
        "metadata": {
            "example_id": "4010069381_6",
            "question_id": 6,
            "question_type": "CH",
            "video_id": 4010069381,
            "options": NEXTQA_OPTIONS,
        },
    }
    assert len(open_split("nextqa_mc", "test")) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "5"}, "line 3: the answer is option 5, but there are 5, counted from 0"),
        ({"answer": "a"}, "line 3: 'answer' should be a whole number, but is \"a\""),
        ({"video": "9"}, "line 3: the video 9 is not in map_vid_vidorID.json"),
    ],
)
def test_nextqa_with_mistakes(miniature, changes, sentence):
    nextqa(miniature("NeXTQA"), NEXTQA, NEXTQA | changes)
    with pytest.raises(OLMoDataError, match=f"^nextqa_mc: .*train.csv, {sentence}"):
        open_split("nextqa_mc")


def test_nextqa_without_a_column_or_a_mapping(miniature):
    files = miniature("NeXTQA")
    nextqa(files, {k: v for k, v in NEXTQA.items() if k != "a4"})
    with pytest.raises(OLMoDataError, match="train.csv, line 2: the key 'a4' is missing; there is video, frame_count"):
        open_split("nextqa_mc")
    files.json("map_vid_vidorID.json", ["1164/4010069381"])
    with pytest.raises(OLMoDataError, match="map_vid_vidorID.json should be a mapping from NExT-QA's numbers to VidOR's"):
        open_split("nextqa_mc")
