"""Names of actions: the first example of every split, from miniatures in the published formats."""

import pytest

from olmo.data.families.actions import ACTION_QUESTIONS, PERSON_QUESTIONS
from olmo.exceptions import OLMoDataError
from tests.data.families.fixtures import example, oe, open_split

MOMENTS = """\
clapping/yt-_0A8tlcegdI_21.mp4,clapping,4,1
adult+female+singing/a_1.mp4,adult+female+singing,3,0
playing+music/b_2.mp4,playing+music,5,0
child+speaking/c_3.mp4,child+speaking,3,1
"""


def test_moments_in_time(miniature):
    """The question is drawn anew every time; voices are no answer to what is seen."""
    files = miniature("MomentsInTime")
    files.text("trainingSet.csv", MOMENTS)
    files.text("validationSet.csv", MOMENTS[: MOMENTS.index("\n")])
    assert example("moments_in_time_qa") == {
        "video": "training/clapping/yt-_0A8tlcegdI_21.mp4",
        "message_list": [oe("What activity does the video depict?", "clapping", "moments_in_time_label")],
    }
    assert example("moments_in_time_qa", index=1)["message_list"][0]["answer"] == "playing music"
    assert example("moments_in_time_qa", "validation")["video"] == "validation/clapping/yt-_0A8tlcegdI_21.mp4"
    assert len(open_split("moments_in_time_qa")) == 2 and len(open_split("moments_in_time_qa", "validation")) == 1
    asked = [example("moments_in_time_qa", seed=seed)["message_list"][0]["question"] for seed in range(300)]
    assert all(70 < asked.count(question) < 130 for question in ACTION_QUESTIONS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (MOMENTS + "a.mp4,clapping\n", "line 5: has fewer columns than the [0-9] it should have"),
        (MOMENTS + "a.mp4,clapping,1,2,3\n", "line 5: has more columns than the [0-9] it should have"),
    ],
)
def test_moments_in_time_with_mistakes(miniature, content, sentence):
    miniature("MomentsInTime").text("trainingSet.csv", content)
    with pytest.raises(OLMoDataError, match=f"^moments_in_time_qa: .*trainingSet.csv, {sentence}"):
        open_split("moments_in_time_qa")


def test_moments_in_time_in_another_encoding(miniature):
    path = miniature("MomentsInTime").text("trainingSet.csv", "")
    path.write_bytes(MOMENTS.encode() + b"caf\xe9/a.mp4,cooking,1,0\n")
    with pytest.raises(OLMoDataError, match="trainingSet.csv, line 5: is not UTF-8 text"):
        open_split("moments_in_time_qa")


def kinetics(files, split="train", last="vol_00/c_000001_000011.mp4 1"):
    files.text("label_map_k710.txt", "riding a bike\nabseiling\nair drumming\n")
    files.text(f"k400_{split}_list_videos.txt", "jf7RDuUTrsQ.mp4 2\ngone.mp4 0\n")
    files.text(f"k600_{split}_list_videos.txt", "vol_00/b_000001_000011.mp4 0\n")
    files.text(f"k700_{split}_list_videos.txt", f"{last}\n")


def test_kinetics(miniature, caplog):
    """Three editions beside the lists; videos that are gone are left out, and the log says how many."""
    files = miniature("kinetics710")
    for split in ("train", "val"):
        kinetics(files, split)
        files.touch(f"../kinetics400/videos_{split}/jf7RDuUTrsQ.mp4")
    files.touch("../kinetics600/videos/vol_00/b_000001_000011.mp4", "../kinetics700/videos/vol_00/c_000001_000011.mp4")
    assert example("kinetics_qa") == {
        "video": "../kinetics400/videos_train/jf7RDuUTrsQ.mp4",
        "message_list": [oe("What action is the person taking?", "air drumming", "kinetics_label")],
    }
    assert [example("kinetics_qa", index=i)["message_list"][0]["answer"] for i in range(3)] == [
        "air drumming",
        "riding a bike",
        "abseiling",
    ]
    assert example("kinetics_qa", "val")["video"] == "../kinetics400/videos_val/jf7RDuUTrsQ.mp4"
    assert len(open_split("kinetics_qa")) == 3
    assert "left out: 1 of 4 videos" in caplog.text and "(the first: ../kinetics400/videos_train/gone.mp4)" in caplog.text
    assert {example("kinetics_qa", seed=seed)["message_list"][0]["question"] for seed in range(100)} == set(PERSON_QUESTIONS)


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("a.mp4 3", r"k700_train_list_videos.txt, line 1: the label is number 3, but label_map_k710.txt has 3, from 0"),
        ("a.mp4 bike", "k700_train_list_videos.txt, line 1: 'label' should be a whole number, but is \"bike\""),
        ("a.mp4", "k700_train_list_videos.txt, line 1: has fewer columns than the [0-9] it should have"),
        ("a.mp4 1", "none of its 4 videos is in .*kinetics710; the first should be ../kinetics400/videos_train/jf7RDuUTrsQ.mp4"),
    ],
)
def test_kinetics_with_mistakes(miniature, last, sentence):
    kinetics(miniature("kinetics710"), last=last)
    with pytest.raises(OLMoDataError, match=f"^kinetics_qa: .*{sentence}"):
        open_split("kinetics_qa")


EPIC = {
    "narration_id": "P01_01_0",
    "participant_id": "P01",
    "video_id": "P01_01",
    "narration_timestamp": "00:00:01.089",
    "start_timestamp": "00:01:00.14",
    "stop_timestamp": "00:01:03.37",
    "start_frame": "8",
    "stop_frame": "202",
    "narration": "open door",
    "verb": "open",
    "all_nouns": "['door']",
}


def test_epic_kitchens(miniature):
    """A segment is a part of its video, or a file of its own where someone has cut it out."""
    files = miniature("epic_kitchens")
    second = EPIC | {"narration_id": "P01_01_1", "stop_timestamp": "01:01:04.00", "narration": "take plate"}
    files.csv("EPIC_100_train.csv", [EPIC, second])
    files.csv("EPIC_100_validation.csv", [EPIC])
    message = oe("What activity does the video depict?", "open door", "epic_kitchens_label")
    assert example("epic_kitchens_qa") == {
        "video": "P01/videos/P01_01.MP4",
        "message_list": [message],
        "metadata": {"clip_start_time": 60.14, "clip_end_time": 63.37},
    }
    assert example("epic_kitchens_qa", index=1)["metadata"]["clip_end_time"] == 3664.0
    assert len(open_split("epic_kitchens_qa")) == 2
    files.touch("clips/P01_01_60.140_63.370.mp4")
    assert example("epic_kitchens_qa", "validation") == {"video": "clips/P01_01_60.140_63.370.mp4", "message_list": [message]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stop_timestamp": "00:01:00.14"}, "line 3: 'stop_timestamp' 60.14 should be later than 'start_timestamp' 60.14"),
        ({"start_timestamp": "one"}, "line 3: 'start_timestamp': 'one' is no time; write seconds"),
        ({"narration_id": "P01_01_0"}, "line 3: the narration_id 'P01_01_0' stands already at .*line 2"),
    ],
)
def test_epic_kitchens_with_mistakes(miniature, changes, sentence):
    miniature("epic_kitchens").csv("EPIC_100_train.csv", [EPIC, EPIC | {"narration_id": "P01_01_1"} | changes])
    with pytest.raises(OLMoDataError, match=f"^epic_kitchens_qa: .*EPIC_100_train.csv, {sentence}"):
        open_split("epic_kitchens_qa")
