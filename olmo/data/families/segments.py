"""Segments of long videos and what is done in them: Charades-STA, COIN, YouCook2, ActivityNet."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, read_json, read_json_list, read_lines, unique
from olmo.data.dataset import Example
from olmo.data.families.common import LeftOut, fixed_example, segment
from olmo.data.families.questions import grouped, one_of
from olmo.data.families.reasoning_qa import CHARADES_VIDEOS
from olmo.data.families.video_files import videos_below, with_videos
from olmo.data.records import OE, DatasetRow, Record, open_ended, with_clip
from olmo.data.sources import ByHand, Url
from olmo.exceptions import OLMoDataError

STEP_QUESTIONS = ("What action is being performed?", "What action is occurring?", "What activity does the video depict?")
PERSON_QUESTIONS = (STEP_QUESTIONS[0], STEP_QUESTIONS[2], "What is the person doing?", "What action is the person taking?")
ACTIVITY_QUESTIONS = ("What activity is being performed?", "What activity is occurring?", "What activity does the video depict?")

# -- what the sets share: a segment is asked about in words that are drawn, or its video is asked about as a whole


def _asked(record: Record, rng: np.random.Generator, questions: tuple[str, ...], style: str) -> Example:
    """A record with `answers` is about a segment (its `clip`); one with `messages` has nothing to draw."""
    if "messages" in record:
        return fixed_example(record, rng)
    messages = [
        {"question": one_of(questions, rng), "style": style} | ({} if answer is None else {"answer": answer})
        for answer in record["answers"]
    ]
    return {"video": record["video"], "message_list": messages, "metadata": with_clip({}, record["clip"])}


def _database(path: Path) -> list[tuple[str, Entry]]:
    """(video, entry) of a file in the layout of ActivityNet, {database: {video: entry}}, in its order."""
    content = read_json(path)
    if not isinstance(content, Entry):
        raise OLMoDataError(f"{path} should be a mapping with the key 'database'")
    videos = content.need("database", dict)
    return [(name, videos.need(name, dict)) for name in videos]


# -- Charades-STA: lines of `video start end##what happens`

CHARADES_FILE = "charades_sta_train.txt"


def _charades_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    path = folder / CHARADES_FILE
    lines = (_charades_line(line, f"{path}, entry {i}") for i, line in enumerate(read_lines(path)))
    kept = [(key, text) for key, text, where in lines if left_out.unless_span([*key[1:]], where)]
    for (video, *clip), texts in grouped(kept).items():
        yield {"video": f"Charades_v1_480/{video}.mp4", "clip": clip, "answers": texts}
    left_out.tell()


def _charades_line(line: str, where: str) -> tuple[tuple[str, float, float], str, str]:
    place, hashes, text = line.partition("##")
    words = place.split()
    if not hashes or len(words) != 3 or not text.strip():
        raise OLMoDataError(f"{where}: should be 'video start end##sentence', but is {line[:60]!r}")
    entry = Entry(dict(zip(("video", "start", "end"), words, strict=True)), where)
    return (entry.need("video", str), entry.need("start", float), entry.need("end", float)), text.strip(), where


def _charades_example(record: Record, rng: np.random.Generator) -> Example:
    return _asked(record, rng, PERSON_QUESTIONS, "charades_sta")


# -- COIN: steps of instructional videos

COIN_SUBSETS = {"train": ("training",), "test": ("testing", "validation")}
"""The documentation calls what is not for training `validation`, the file `testing`."""


def _coin_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    yield from with_videos(_coin_steps(folder, split, left_out), videos_below(folder, "videos"), folder / "videos")
    left_out.tell()


def _coin_steps(folder: Path, split: str, left_out: LeftOut) -> Iterator[tuple[str, Record]]:
    for video, entry in _database(folder / "COIN.json"):
        if entry.need("subset", str) not in COIN_SUBSETS[split]:
            continue
        for step in entry.entries("annotation"):
            clip = segment(step)
            if left_out.unless_span(clip, step.where):
                yield video, {"clip": clip, "answers": [step.need("label", str)]}


def _coin_example(record: Record, rng: np.random.Generator) -> Example:
    return _asked(record, rng, STEP_QUESTIONS, "coin_label")


# -- YouCook2: steps of recipes. Each is asked about on its own; then all of a video by their times

YOUCOOK_FILES = {
    "train": "youcookii_annotations_trainval.json",
    "validation": "youcookii_annotations_trainval.json",
    "test": "youcookii_annotations_test_segments_only.json",
}
YOUCOOK_SUBSETS = {"train": "training", "validation": "validation", "test": "testing"}
YOUCOOK_TIMED = "video_clip_short_caption_start_end"


def _youcook_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    yield from with_videos(_youcook_steps(folder, split, left_out), videos_below(folder, "raw_videos"), folder / "raw_videos")
    left_out.tell()


def _youcook_steps(folder: Path, split: str, left_out: LeftOut) -> Iterator[tuple[str, Record]]:
    """The test has no sentences."""
    for video, entry in _database(folder / "annotations" / YOUCOOK_FILES[split]):
        if entry.need("subset", str) != YOUCOOK_SUBSETS[split]:
            continue
        timed = []
        for step in entry.entries("annotations"):
            clip, text = segment(step), None if split == "test" else step.need("sentence", str)
            if left_out.unless_span(clip, step.where):
                yield video, {"clip": clip, "answers": [text]}
                caption = {"start_time": clip[0], "end_time": clip[1], "style": YOUCOOK_TIMED}
                timed.append(caption if text is None else caption | {"text": text})
        if timed:
            yield video, {"messages": timed}


def _youcook_example(record: Record, rng: np.random.Generator) -> Example:
    return _asked(record, rng, STEP_QUESTIONS, "youcook2_label")


# -- ActivityNet: activities in segments (of the videos of this split alone), and ActivityNet-QA on whole videos

ACTIVITYNET_FILE = "activity_net.v1-3.min.json"
ACTIVITYNET_SUBSETS = {"train": "training", "validation": "validation"}
ACTIVITYNET_QA = {"train": ("train_q.json", "train_a.json"), "validation": ("val_q.json", "val_a.json")}


def _activitynet_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    videos = videos_below(folder, "videos", lambda path: path.stem.removeprefix("v_"))
    yield from with_videos(_activitynet_asked(folder, split, left_out), videos, folder / "videos")
    left_out.tell()


def _activitynet_asked(folder: Path, split: str, left_out: LeftOut) -> Iterator[tuple[str, Record]]:
    for video, entry in _database(folder / ACTIVITYNET_FILE):
        if entry.need("subset", str) != ACTIVITYNET_SUBSETS[split]:
            continue
        for activity in entry.entries("annotations"):
            clip = segment(activity)
            if left_out.unless_span(clip, activity.where):
                yield video, {"clip": clip, "answers": [activity.need("label", str)]}
    for video, messages in grouped(_activitynet_questions(folder, split)).items():
        yield video, {"messages": messages}


def _activitynet_questions(folder: Path, split: str) -> Iterator[tuple[str, dict]]:
    questions, answers = (folder / file for file in ACTIVITYNET_QA[split])
    by_id = {entry["question_id"]: entry.need("answer", str) for entry in unique(read_json_list(answers), "question_id")}
    for entry in unique(read_json_list(questions), "question_id"):
        number = entry["question_id"]
        if number not in by_id:
            raise OLMoDataError(f"{entry.where}: the question_id {number!r} has no answer in {answers}")
        yield entry.need("video_name", str), open_ended(entry.need("question", str), by_id[number])


def _activitynet_example(record: Record, rng: np.random.Generator) -> Example:
    return _asked(record, rng, ACTIVITY_QUESTIONS, "activitynet_label")


_ACTIVITYNET = "http://ec2-52-25-205-214.us-west-2.compute.amazonaws.com/files"
_ACTIVITYNET_QA = "https://raw.githubusercontent.com/MILVLG/activitynet-qa/master/dataset"

ROWS = (
    DatasetRow(
        name="charades_sta_all_qa",
        title="Charades-STA",
        folder="CharadesSTA",
        sources=(ByHand(f"{CHARADES_FILE}, linked from github.com/jiyanggao/TALL"), CHARADES_VIDEOS),
        style="charades_sta",
        records=_charades_records,
        example=_charades_example,
        files=lambda split: [CHARADES_FILE],
    ),
    DatasetRow(
        name="coin_all_qa",
        title="COIN",
        folder="COIN",
        sources=(
            ByHand("COIN.json from coin-dataset.github.io"),
            ByHand("its YouTube videos (github.com/coin-dataset/annotations fetches them)", into="videos"),
        ),
        style="coin_label",
        records=_coin_records,
        example=_coin_example,
        files=lambda split: ["COIN.json", "videos/**/"],
        splits=("train", "test"),
        licence="research only (README of github.com/coin-dataset/annotations)",
    ),
    DatasetRow(
        name="youcook2_all_qa",
        title="YouCook2",
        folder="youcook2",
        sources=(
            ByHand("the annotations from youcook2.eecs.umich.edu/download", into="annotations"),
            ByHand("its YouTube videos (a script on the same page fetches them)", into="raw_videos"),
        ),
        style=f"youcook2_label+{YOUCOOK_TIMED}",
        records=_youcook_records,
        example=_youcook_example,
        files=lambda split: [f"annotations/{YOUCOOK_FILES[split]}", "raw_videos/**/"],
        splits=("train", "validation", "test"),
    ),
    DatasetRow(
        name="activitynet_all_qa",
        title="ActivityNet",
        folder="ActivityNet",
        sources=(
            Url(f"{_ACTIVITYNET}/{ACTIVITYNET_FILE}"),
            *(Url(f"{_ACTIVITYNET_QA}/{file}") for files in ACTIVITYNET_QA.values() for file in files),
            ByHand("the videos (activity-net.org/download), named v_{video} as there", into="videos"),
        ),
        style=f"activitynet_label+{OE}",
        records=_activitynet_records,
        example=_activitynet_example,
        files=lambda split: [ACTIVITYNET_FILE, *ACTIVITYNET_QA[split], "videos/**/"],
        splits=("train", "validation"),
    ),
)
