"""Segments of long videos: the first example of every split, from miniatures in the published formats."""

import re

import numpy as np
import pytest

from olmo.data.catalogue import get_dataset
from tests.data.families.checks import refused, said
from tests.data.families.fixtures import example, open_split

STEPS = {"What action is being performed?", "What action is occurring?", "What activity does the video depict?"}
PERSONS = {
    "What action is being performed?",
    "What activity does the video depict?",
    "What is the person doing?",
    "What action is the person taking?",
}
ACTIVITIES = {"What activity is being performed?", "What activity is occurring?", "What activity does the video depict?"}


def examples(name, split="train"):
    dataset = get_dataset(name, split)
    return [example(name, split, i) for i in range(len(dataset))]


def questions(name, index=0):
    """The questions that are drawn for an example."""
    return {example(name, index=index, seed=s)["message_list"][0]["question"] for s in range(40)}


def about(found, video, clip, answer, style):
    """Whether `found` asks, in some words, about a segment."""
    asked = found["message_list"][0]["question"]
    message = {"question": asked, "style": style} | ({} if answer is None else {"answer": answer})
    return found == {"video": video, "message_list": [message], "metadata": {"clip_start_time": clip[0], "clip_end_time": clip[1]}}


# -- Charades-STA


def test_charades_sta(miniature):
    """Sentences on the same segment are one example."""
    text = "AO8RW 0.0 6.9##a person is putting a book on a shelf.\nAO8RW 0.5 7##he leaves.\nAO8RW 0.0 6.9##a book is put away.\n\n"
    miniature("CharadesSTA").text("charades_sta_train.txt", text)
    first, second = examples("charades_sta_all_qa")
    assert [m["answer"] for m in first["message_list"]] == ["a person is putting a book on a shelf.", "a book is put away."]
    assert first["metadata"] == {"clip_start_time": 0.0, "clip_end_time": 6.9}
    assert about(second, "Charades_v1_480/AO8RW.mp4", (0.5, 7.0), "he leaves.", "charades_sta")
    assert questions("charades_sta_all_qa") == PERSONS
    request, answer = said(second)[0]
    assert request == f"charades_sta: {second['message_list'][0]['question']}" and answer == "he leaves."


def test_charades_sta_leaves_out_what_is_no_segment(miniature, caplog):
    miniature("CharadesSTA").text("charades_sta_train.txt", "A 5 5##x\nA 0 4##y\nA 7 6##z")
    assert len(open_split("charades_sta_all_qa")) == 1
    assert "left out: 2 spans that do not end after they start, the first at" in caplog.text and "entry 0" in caplog.text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "AO8RW 0.0 6.9 a person",
            "train.txt, entry 1: should be 'video start end##sentence', but is 'AO8RW 0.0 6.9 a person'",
        ),
        ("AO8RW 0.0##a person", "entry 1: should be 'video start end##sentence'"),
        ("AO8RW 0.0 6.9## ", "entry 1: should be 'video start end##sentence'"),
        ("AO8RW zero 6.9##a person", "entry 1: 'start' should be a number, but is \"zero\""),
    ],
)
def test_charades_sta_with_something_wrong(miniature, line, sentence):
    miniature("CharadesSTA").text("charades_sta_train.txt", f"AO8RW 0.0 6.9##a person\n{line}\n")
    refused("charades_sta_all_qa", sentence)


# -- COIN


def coin(files, **changes):
    def entry(subset, steps, **more):
        return {"recipe_type": 131, "class": "ReplaceCDDriveWithSSD", "duration": 131.0, "start": 56.6, "subset": subset} | {
            "annotation": [{"id": str(i), "segment": list(s), "label": label} | more for i, (s, label) in enumerate(steps)]
        }

    train = entry("training", [((60.0, 69.0), "take out the laptop CD drive"), ((71, 82), "insert the hard disk")], **changes)
    files.json("COIN.json", {"database": {"LtRSn-ntcLY": train, "test-1": entry("testing", [((1, 2), "stir")]), "gone": train}})
    files.touch("videos/131/LtRSn-ntcLY.mp4", "videos/test-1.webm")


def test_coin(miniature, caplog):
    """Segments are parts of the whole video; videos have several formats, and one of them is gone."""
    coin(miniature("COIN"))
    first, second = examples("coin_all_qa")
    assert about(first, "videos/131/LtRSn-ntcLY.mp4", (60.0, 69.0), "take out the laptop CD drive", "coin_label")
    assert about(second, "videos/131/LtRSn-ntcLY.mp4", (71.0, 82.0), "insert the hard disk", "coin_label")
    (test,) = examples("coin_all_qa", "test")
    assert about(test, "videos/test-1.webm", (1.0, 2.0), "stir", "coin_label")
    assert questions("coin_all_qa") == STEPS
    assert "left out: 1 of 2 videos" in caplog.text and "COIN/videos (the first: gone)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"segment": [60.0]},
            "COIN.json, database, LtRSn-ntcLY, annotation[0]: 'segment' should be [start, end] in seconds, but",
        ),
        ({"segment": [60, "end"]}, "annotation[0], segment: 'end' should be a number, but is \"end\""),
        ({"segment": "60-69"}, "annotation[0]: 'segment' should be a list, but is \"60-69\""),
        ({"label": None}, "annotation[0]: the key 'label' is missing; there is id, segment"),
    ],
)
def test_coin_with_something_wrong(miniature, changes, sentence):
    coin(miniature("COIN"), **changes)
    refused("coin_all_qa", sentence)


def test_coin_without_its_database(miniature):
    files = miniature("COIN")
    coin(files)
    files.json("COIN.json", [])
    refused("coin_all_qa", "COIN.json should be a mapping with the key 'database'")
    files.json("COIN.json", {"version": 1})
    refused("coin_all_qa", "COIN.json: the key 'database' is missing; there is version")
    files.json("COIN.json", {"database": {"x": []}})
    refused("coin_all_qa", "COIN.json, database: 'x' should be a mapping, but is []")


# -- YouCook2

TIMED = "video_clip_short_caption_start_end"


def youcook(files, **changes):
    def entry(subset, *steps):
        annotations = [{"id": i, "segment": list(segment), "sentence": text} | changes for i, (segment, text) in enumerate(steps)]
        return {"duration": 311.77, "subset": subset, "recipe_type": "113", "video_url": "https://", "annotations": annotations}

    train = entry("training", ((90, 102), "spread margarine on two slices"), ((114, 127), "place a slice of cheese on the bread"))
    content = {"GLd3aX16zBg": train, "val-1": entry("validation", ((1, 2), "boil water"))}
    files.json("annotations/youcookii_annotations_trainval.json", {"database": content})
    test = {"database": {"test-1": {"subset": "testing", "annotations": [{"id": 0, "segment": [5, 9]}]}}}
    files.json("annotations/youcookii_annotations_test_segments_only.json", test)
    files.touch("raw_videos/training/113/GLd3aX16zBg.mkv", "raw_videos/validation/113/val-1.mp4", "raw_videos/testing/7/test-1.webm")


def test_youcook2(miniature):
    """A step is asked about on its own, and once more by its times in the whole video."""
    youcook(miniature("youcook2"))
    first, second, whole = examples("youcook2_all_qa")
    video = "raw_videos/training/113/GLd3aX16zBg.mkv"
    assert about(first, video, (90.0, 102.0), "spread margarine on two slices", "youcook2_label")
    assert about(second, video, (114.0, 127.0), "place a slice of cheese on the bread", "youcook2_label")
    assert whole == {
        "video": video,
        "message_list": [
            {"start_time": 90.0, "end_time": 102.0, "style": TIMED, "text": "spread margarine on two slices"},
            {"start_time": 114.0, "end_time": 127.0, "style": TIMED, "text": "place a slice of cheese on the bread"},
        ],
    }
    assert questions("youcook2_all_qa") == STEPS
    step, timed = examples("youcook2_all_qa", "validation")
    assert about(step, "raw_videos/validation/113/val-1.mp4", (1.0, 2.0), "boil water", "youcook2_label")
    assert [m["text"] for m in timed["message_list"]] == ["boil water"]


def test_the_test_of_youcook2_has_no_sentences(miniature):
    youcook(miniature("youcook2"))
    step, timed = examples("youcook2_all_qa", "test")
    assert about(step, "raw_videos/testing/7/test-1.webm", (5.0, 9.0), None, "youcook2_label")
    assert timed["message_list"] == [{"start_time": 5.0, "end_time": 9.0, "style": TIMED}]


def test_captions_by_time_say_the_time(miniature):
    """Each request names both ends, in seconds or as a clock. Seen to fail with a style whose prompt has no times."""
    youcook(miniature("youcook2"))
    dataset = get_dataset("youcook2_all_qa", "train")
    clocks = 0
    for seed in range(30):
        (request, answer), _ = said(dataset.get(2, np.random.default_rng(seed)), seed)
        assert request.startswith(f"{TIMED}: ") and answer == "spread margarine on two slices"
        clock = "00:01:30.0" in request and "00:01:42.0" in request
        assert clock or ("90.0" in request and "102.0" in request), request
        clocks += clock
    assert 5 < clocks < 25


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sentence": None}, "trainval.json, database, GLd3aX16zBg, annotations[0]: the key 'sentence' is missing"),
        ({"segment": [1, 2, 3]}, "annotations[0]: 'segment' should be [start, end] in seconds, but has 3 values"),
        ({"segment": None}, "annotations[0]: the key 'segment' is missing"),
    ],
)
def test_youcook2_with_something_wrong(miniature, changes, sentence):
    youcook(miniature("youcook2"), **changes)
    refused("youcook2_all_qa", sentence)


# -- ActivityNet


def activitynet(files, **changes):
    def entry(subset, *spans):
        annotations = [{"segment": list(span), "label": label} for span, label in spans]
        return {"duration": 82.7, "subset": subset, "resolution": "320x240", "url": "https://", "annotations": annotations}

    content = {
        "--0edUL8zmA": entry("training", ((5.4, 86.7), "Dodgeball"), ((90, 91), "Dodgeball")),
        "--1DO2V4K74": entry("validation", ((1.0, 67.3), "Powerbocking")),
        "--6bJUbfpnQ": entry("testing"),
    }
    files.json("activity_net.v1-3.min.json", {"database": content, "taxonomy": [], "version": "VERSION 1.3"})
    for split, video in (("train", "--0edUL8zmA"), ("val", "--1DO2V4K74")):
        numbers = [f"v_{video}_{n}" for n in range(2)]
        asked = [{"video_name": video, "question": f"is it {n}", "question_id": number} for n, number in enumerate(numbers)]
        files.json(f"{split}_q.json", asked)
        files.json(f"{split}_a.json", [{"answer": "yes", "type": 3, "question_id": n} | changes for n in numbers])
    files.touch("videos/v_--0edUL8zmA.mp4", "videos/v_--1DO2V4K74.mkv")


@pytest.mark.parametrize(
    ("split", "video", "spans", "label"),
    [
        ("train", "videos/v_--0edUL8zmA.mp4", [(5.4, 86.7), (90.0, 91.0)], "Dodgeball"),
        ("validation", "videos/v_--1DO2V4K74.mkv", [(1.0, 67.3)], "Powerbocking"),
    ],
)
def test_activitynet(miniature, split, video, spans, label):
    """A split has the segments and questions of its own videos and no others. Seen to fail when all subsets are read."""
    activitynet(miniature("ActivityNet"))
    *segments, whole = examples("activitynet_all_qa", split)
    assert len(segments) == len(spans)
    assert all(about(found, video, span, label, "activitynet_label") for found, span in zip(segments, spans, strict=True))
    asked = [{"question": f"is it {n}", "answer": "yes", "style": "video_short_answer"} for n in range(2)]
    assert whole == {"video": video, "message_list": asked}


def test_questions_on_activitynet_are_drawn(miniature):
    activitynet(miniature("ActivityNet"))
    assert questions("activitynet_all_qa") == ACTIVITIES
    ((request, answer),) = said(example("activitynet_all_qa"))
    assert re.fullmatch(r"activitynet_label: What activity .*\?", request) and answer == "Dodgeball"


def test_activitynet_with_something_wrong(miniature):
    files = miniature("ActivityNet")
    activitynet(files, question_id="another")
    refused("activitynet_all_qa", "train_a.json, entry 1: the question_id 'another' stands already at")
    activitynet(files)
    files.json("train_a.json", [{"answer": "yes", "question_id": "v_--0edUL8zmA_0"}])
    refused("activitynet_all_qa", "train_q.json, entry 1: the question_id 'v_--0edUL8zmA_1' has no answer in ")
    files.json("train_q.json", {"questions": []})
    refused("activitynet_all_qa", "train_q.json should be a list of mappings")
