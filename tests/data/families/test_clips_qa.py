"""Short clips of the internet: the first example of every split, from miniatures in the published formats."""

import pytest

from olmo.data.families.clips_qa import split_numbered
from olmo.exceptions import OLMoDataError
from tests.data.families.fixtures import MC, OE, example, mc, oe, open_split


def tgif(files, **changes):
    options = {f"a{i}": f"option {i}" for i in range(1, 6)}
    row = {"gif_name": "tumblr_1", "question": "What does the cat do 3 times?", **options, "answer": "2", "vid_id": "ACTION4", "key": "1"}
    files.csv("Train_action_question.csv", [row | changes, row | {"gif_name": "tumblr_2"}], delimiter="\t")
    files.csv("Train_transition_question.csv", [row | {"gif_name": "tumblr_2", "question": "What comes after?"}], delimiter="\t")
    files.csv("Train_count_question.csv", [{"gif_name": "tumblr_1", "question": "How often?", "answer": "3"}], delimiter="\t")
    files.csv("Train_frameqa_question.csv", [{"gif_name": "tumblr_3", "question": "What colour?", "answer": "red"}], delimiter="\t")


def test_tgif(miniature):
    """Questions on actions and transitions are asked with and without options; all on a video are one example."""
    tgif(miniature("TGIF"))
    assert example("tgif") == {
        "video": "videos/tumblr_1.mp4",
        "message_list": [
            {
                "question": "What does the cat do 3 times?",
                "options": [f"option {i}" for i in range(1, 6)],
                "answer_idx": 2,
                "style": MC,
            },
            {"question": "What does the cat do 3 times?", "answer": "option 3", "style": OE},
            {"question": "How often?", "answer": "3", "style": OE},
        ],
    }
    assert len(open_split("tgif")) == 3
    with pytest.raises(OLMoDataError, match="tgif: Test_action_question.csv is not in"):
        open_split("tgif", "test")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": "5"}, "Train_action_question.csv, line 2: the answer is option 5, but there are 5, counted from 0"),
        ({"answer": "third"}, "Train_action_question.csv, line 2: 'answer' should be a whole number, but is \"third\""),
    ],
)
def test_tgif_with_a_wrong_answer(miniature, changes, sentence):
    tgif(miniature("TGIF"), **changes)
    with pytest.raises(OLMoDataError, match=f"^tgif: .*{sentence}"):
        open_split("tgif")


HOW2QA = """\
NOuQuofjk44,[7.2:18.0],10,12,16,how many knife is there?,1
dnUFgR92F8M,[22.21:39.62],lethally poisonous,midly poisonous,unclear,"How poisonous are they, in the clip?",not poisonous
NOuQuofjk44,[7.2:18.0],blade,scissor,Trimming snip,What is used for cutting?,knife
gone,[1.0:2.0],a,b,c,Who?,d
"""


def test_how2qa(miniature, caplog):
    """The right answer takes a new place with every draw; a question without its clip is left out, and said so."""
    files = miniature("how2QA")
    files.text("how2QA_train_release.csv", HOW2QA)
    files.touch("video-clips/NOuQuofjk44_7.2_18.0.mkv", "video-clips/dnUFgR92F8M_22.21_39.62.mp4")
    assert example("how2qa") == {
        "video": "video-clips/NOuQuofjk44_7.2_18.0.mkv",
        "message_list": [
            mc("how many knife is there?", ["10", "12", "16", "1"], 3),
            mc("What is used for cutting?", ["blade", "scissor", "knife", "Trimming snip"], 2),
        ],
    }
    assert len(open_split("how2qa")) == 2
    assert "left out: 1 of 3 videos" in caplog.text and "(the first: video-clips/gone_1.0_2.0)" in caplog.text
    places = [example("how2qa", seed=seed)["message_list"][0]["answer_idx"] for seed in range(200)]
    assert set(places) == {0, 1, 2, 3} and all(30 < places.count(i) < 70 for i in range(4))
    assert example("how2qa", index=1)["message_list"][0]["question"] == "How poisonous are they, in the clip?"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,7.2-18.0,1,2,3,q,4\n", r"line 1: the times should be \[start:end\] in seconds, but are 7.2-18.0"),
        ("a,[1:2],1,2,3,q\n", "line 1: has fewer columns than the [0-9] it should have"),
        ("a,[1:2],1,2,3,q,4,5\n", "line 1: has more columns than the [0-9] it should have"),
        ("a,[1:2],1,2,3,q,4\n", r"none of its 1 videos is in .*how2QA; the first should be video-clips/a_1_2"),
    ],
)
def test_how2qa_with_mistakes(miniature, content, sentence):
    files = miniature("how2QA")
    files.text("how2QA_val_release.csv", content)
    files.touch("video-clips/other.mp4")
    with pytest.raises(OLMoDataError, match=f"^how2qa: .*{sentence}"):
        open_split("how2qa", "val")


TRAFFIC_COLUMNS = "record_id vid_id vid_filename perspective q_body q_type option0 option1 option2 option3 answer".split()
TRAFFIC = [9875, 20485, "b_1.mp4", 1, "What happened?", "E", "Head-on collision", "No accident", "Into a wall", "Others", 1]


def trafficqa(files, *rows, split="train"):
    files.jsonl(f"R2_{split}.jsonl", [TRAFFIC_COLUMNS, *rows])


def changed(**values):
    return [values.get(column, value) for column, value in zip(TRAFFIC_COLUMNS, TRAFFIC, strict=True)]


def test_sutd_trafficqa(miniature):
    """Empty options are left out, and the answer counts those that stay."""
    yes_or_no = changed(record_id=2, q_body="Is it wet?", option0="", option2="Yes", option3="No", option1="", answer=3)
    trafficqa(miniature("SUTD-TrafficQA"), TRAFFIC, changed(record_id=1, vid_filename="b_2.mp4"), yes_or_no)
    trafficqa(miniature("SUTD-TrafficQA"), TRAFFIC, split="test")
    assert example("sutd_trafficqa") == {
        "video": "compressed_videos/b_1.mp4",
        "message_list": [
            mc("What happened?", ["Head-on collision", "No accident", "Into a wall", "Others"], 1),
            mc("Is it wet?", ["Yes", "No"], 1),
        ],
    }
    assert len(open_split("sutd_trafficqa")) == 2 and len(open_split("sutd_trafficqa", "test")) == 1


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (changed(record_id=1, answer=4), "line 3: the answer is option 4, but there are 4, counted from 0"),
        (changed(record_id=1, answer="E"), "line 3: 'answer' should be a whole number, but is \"E\""),
        (changed(record_id=1, option1=""), "line 3: the answer is option 1, which is empty"),
        (changed(record_id=1, q_body=None), "line 3: the key 'q_body' is missing"),
        (changed(), "line 3: the record_id 9875 stands already at .*line 2"),
        (changed(record_id=None), "line 3: the key 'record_id' is missing"),
        (TRAFFIC[:-1], "line 3: has 10 values, but the first line names 11 columns"),
        ({"record_id": 3}, "line 3: should be a list, but is"),
    ],
)
def test_sutd_trafficqa_with_mistakes(miniature, row, sentence):
    trafficqa(miniature("SUTD-TrafficQA"), TRAFFIC, row)
    with pytest.raises(OLMoDataError, match=f"^sutd_trafficqa: .*R2_train.jsonl, {sentence}"):
        open_split("sutd_trafficqa")


SOCIAL = {"qid": "1_q0", "q": "Why?", "vid_name": "abc", "ts": "0.0-9.1", "a0": "a", "a1": "b", "a2": "c", "a3": "d", "answer_idx": 2}


def test_social_iq2(miniature):
    """The publisher calls files with one mapping a line .json. Without an answer a question can still be asked."""
    files = miniature("Social-IQ")
    files.jsonl("qa/qa_train.json", [SOCIAL, SOCIAL | {"vid_name": "xyz"}, SOCIAL | {"q": "How?", "answer_idx": 0}])
    files.jsonl("qa/qa_test.jsonl", [{k: v for k, v in SOCIAL.items() if k != "answer_idx"}])
    assert example("social_iq2") == {
        "video": "video/abc.mp4",
        "message_list": [mc("Why?", ["a", "b", "c", "d"], 2), mc("How?", ["a", "b", "c", "d"], 0)],
    }
    assert len(open_split("social_iq2")) == 2
    assert example("social_iq2", "test")["message_list"] == [{"question": "Why?", "options": ["a", "b", "c", "d"], "style": MC}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer_idx": 4}, "the answer is option 4, but there are 4, counted from 0"),
        ({"answer_idx": None}, "the key 'answer_idx' is missing"),
        ({"a3": ["d"]}, "'a3' should be text, but is"),
        ({"vid_name": 7}, "'vid_name' should be text, but is 7"),
    ],
)
def test_social_iq2_with_mistakes(miniature, changes, sentence):
    miniature("Social-IQ").jsonl("qa/qa_val.json", [SOCIAL, SOCIAL | changes])
    with pytest.raises(OLMoDataError, match=f"^social_iq2: .*qa_val.json, line 2: {sentence}"):
        open_split("social_iq2", "val")


def test_social_iq2_in_another_encoding(miniature):
    path = miniature("Social-IQ").text("qa/qa_val.json", "")
    path.write_bytes(b'{"q": "na\xefve"}\n')
    with pytest.raises(OLMoDataError, match="qa_val.json, line 1: is not UTF-8 text"):
        open_split("social_iq2", "val")


FUNNY = {"instruction": "What is funny?", "visual_input": "H_A_1.mp4", "output": "The fall.", "task": "H2", "ID": "1"}
FUNNY_CHOICE = {"instruction": "Which is it? 1. a fall 2. a\n dance 3. 5 (ants)", "visual_input": "H_A_1.mp4", "task": "H2", "gt": 2}


def funqa(files, questions, choices, split="train"):
    files.json(f"FunQA_{split}.json", questions)
    files.json("Funqa_mcqa_v1.json", choices)


def test_funqa(miniature):
    """Finding moments, titles and scores are no questions here; options of other splits' videos stay out."""
    others = [FUNNY | {"task": task} for task in ("H1", "C1", "M1", "C4", "C5")]
    magic = FUNNY | {"visual_input": "M_B_2.mp4", "task": "M3"}
    elsewhere = FUNNY_CHOICE | {"visual_input": "C_C_3.mp4"}
    funqa(miniature("FunQA"), [*others, FUNNY, magic, FUNNY | {"task": "H4", "output": "A title"}], [elsewhere, FUNNY_CHOICE])
    assert example("funqa") == {
        "video": "train_humor/H_A_1.mp4",
        "message_list": [
            oe("What is funny?", "The fall."),
            oe("What is funny?", "A title"),
            mc("Which is it?", ["a fall", "a\n dance", "5 (ants)"], 1),
        ],
    }
    assert example("funqa", index=1)["video"] == "train_magic/M_B_2.mp4"
    assert len(open_split("funqa")) == 2


@pytest.mark.parametrize(
    ("question", "with_options", "sentence"),
    [
        ({"visual_input": "X_1.mp4"}, {}, "FunQA_train.json, entry 0: 'visual_input' should begin with H, C or M, but is \"X_1.mp4\""),
        ({"output": None}, {}, "FunQA_train.json, entry 0: the key 'output' is missing"),
        ({}, {"gt": 4}, "Funqa_mcqa_v1.json, entry 0: 'gt' is 4, but there are 3 options, counted from 1"),
        ({}, {"gt": 0}, "Funqa_mcqa_v1.json, entry 0: 'gt' is 0, but there are 3 options, counted from 1"),
        ({}, {"instruction": "Which?"}, "Funqa_mcqa_v1.json, entry 0: 'instruction' should end with options numbered 1., 2., ..."),
    ],
)
def test_funqa_with_mistakes(miniature, question, with_options, sentence):
    funqa(miniature("FunQA"), [FUNNY | question], [FUNNY_CHOICE | with_options])
    with pytest.raises(OLMoDataError, match=f"^funqa: .*{sentence}"):
        open_split("funqa")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Why? 1. a 2. b", ["Why?", "a", "b"]),
        ("Why?\n(1) a\n(2) b c", ["Why?", "a", "b c"]),
        ("Why 1.5 times?\nOption 1: a\nOption 2: b 3 c", ["Why 1.5 times?", "a", "b 3 c"]),
        ("Why?", ["Why?"]),
    ],
)
def test_numbered_options_in_a_text(text, parts):
    assert split_numbered(text) == parts
