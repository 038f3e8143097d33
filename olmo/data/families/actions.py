"""Names of actions in short clips: Moments in Time, Kinetics, EPIC-KITCHENS."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, read_csv, read_lines, unique
from olmo.data.dataset import Example
from olmo.data.families.questions import in_context, one_of
from olmo.data.families.video_files import Listing, with_videos
from olmo.data.records import DatasetRow, Record, open_ended
from olmo.data.sources import ByHand, Url
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.points import parse_timestamp

ACTION_QUESTIONS = ("What action is being performed?", "What action is occurring?", "What activity does the video depict?")
PERSON_QUESTIONS = (
    "What action is being performed?",
    "What activity does the video depict?",
    "What is the person doing?",
    "What action is the person taking?",
)


def _named(record: Record, rng: np.random.Generator, style: str, questions: tuple[str, ...]) -> Example:
    """A question drawn anew every time, and the label as its answer."""
    return in_context(record, [open_ended(one_of(questions, rng), record["label"], style)])


# -- Moments in Time: tables of file, label and votes

MOMENTS_FOLDERS = {"train": "training", "validation": "validation"}
MOMENTS_COLUMNS = ["file", "label", "votes", "against"]
VOICES = ("adult+", "child+")
"""Labels like adult+female+singing name who is heard, which a video without sound does not show."""


def _moments_files(split: str) -> list[str]:
    return [f"{MOMENTS_FOLDERS[split]}Set.csv"]


def _moments_records(folder: Path, split: str) -> Iterator[Record]:
    for entry in read_csv(folder / _moments_files(split)[0], columns=MOMENTS_COLUMNS):
        label = entry.need("label", str)
        if not label.startswith(VOICES):
            yield {"video": f"{MOMENTS_FOLDERS[split]}/{entry.need('file', str)}", "label": label.replace("+", " ")}


# -- Kinetics-710: lists of videos of three editions with the number of a label

KINETICS_LABELS = "label_map_k710.txt"
KINETICS_FOLDERS = {
    "k400": "../kinetics400/videos_{split}",
    "k600": "../kinetics600/videos",
    "k700": "../kinetics700/videos",
}
"""Edition -> its videos, beside the folder of the lists."""


def _kinetics_list(edition: str, split: str) -> str:
    return f"{edition}_{split}_list_videos.txt"


def _kinetics_files(split: str) -> list[str]:
    return [KINETICS_LABELS, *(_kinetics_list(edition, split) for edition in KINETICS_FOLDERS)]


def _kinetics_records(folder: Path, split: str) -> Iterator[Record]:
    """Videos that nobody can download any more are left out."""
    labels = read_lines(folder / KINETICS_LABELS)
    yield from with_videos(_kinetics_listed(folder, split, labels), Listing(folder).path, folder)


def _kinetics_listed(folder: Path, split: str, labels: list[str]) -> Iterator[tuple[str, Record]]:
    for edition, videos in KINETICS_FOLDERS.items():
        for entry in read_csv(folder / _kinetics_list(edition, split), delimiter=" ", columns=["file", "label"]):
            number = entry.need("label", int)
            if not 0 <= number < len(labels):
                raise OLMoDataError(f"{entry.where}: the label is number {number}, but {KINETICS_LABELS} has {len(labels)}, from 0")
            yield f"{videos.format(split=split)}/{entry.need('file', str)}", {"label": labels[number]}


# -- EPIC-KITCHENS-100: narrated segments of long videos

EPIC_CLIPS = "clips"


def _epic_files(split: str) -> list[str]:
    return [f"EPIC_100_{split}.csv"]


def _epic_records(folder: Path, split: str) -> Iterator[Record]:
    """A segment is its own file where it was cut out, else a part of the whole video."""
    clips = Listing(folder).names(EPIC_CLIPS)
    for entry in unique(read_csv(folder / _epic_files(split)[0]), "narration_id"):
        video, start, end = entry.need("video_id", str), _seconds(entry, "start_timestamp"), _seconds(entry, "stop_timestamp")
        if start >= end:
            raise OLMoDataError(f"{entry.where}: 'stop_timestamp' {end} should be later than 'start_timestamp' {start}")
        label = entry.need("narration", str)
        if (name := f"{video}_{start:.3f}_{end:.3f}.mp4") in clips:
            yield {"video": f"{EPIC_CLIPS}/{name}", "label": label}
        else:
            yield {"video": f"{entry.need('participant_id', str)}/videos/{video}.MP4", "clip": [start, end], "label": label}


def _seconds(entry: Entry, key: str) -> float:
    try:
        return parse_timestamp(entry.need(key, str))
    except OLMoDataError as err:
        raise OLMoDataError(f"{entry.where}: '{key}': {err}") from None


ROWS = (
    DatasetRow(
        name="moments_in_time_qa",
        title="Moments in Time",
        folder="MomentsInTime",
        sources=(ByHand("Moments_in_Time_Raw.zip, after the form on moments.csail.mit.edu"),),
        style="moments_in_time_label",
        records=_moments_records,
        example=partial(_named, style="moments_in_time_label", questions=ACTION_QUESTIONS),
        files=_moments_files,
        splits=tuple(MOMENTS_FOLDERS),
        inferred="columns of its tables after the first",
    ),
    DatasetRow(
        name="kinetics_qa",
        title="Kinetics-710",
        folder="kinetics710",
        sources=(
            Url("https://download.openmmlab.com/mmaction/dataset/kinetics710/annotations.zip", into="..", unpack=True),
            Url(f"https://raw.githubusercontent.com/open-mmlab/mmaction2/HEAD/tools/data/kinetics710/{KINETICS_LABELS}"),
            ByHand("the videos of Kinetics-400, from github.com/cvdfoundation/kinetics-dataset", "../kinetics400"),
            ByHand("the videos of Kinetics-600, as on opendatalab.com", "../kinetics600"),
            ByHand("the videos of Kinetics-700, as on opendatalab.com", "../kinetics700"),
        ),
        style="kinetics_label",
        records=_kinetics_records,
        example=partial(_named, style="kinetics_label", questions=PERSON_QUESTIONS),
        files=_kinetics_files,
        splits=("train", "val"),
    ),
    DatasetRow(
        name="epic_kitchens_qa",
        title="EPIC-KITCHENS-100",
        folder="epic_kitchens",
        sources=(
            *(
                Url(f"https://raw.githubusercontent.com/epic-kitchens/epic-kitchens-100-annotations/HEAD/EPIC_100_{split}.csv")
                for split in ("train", "validation")
            ),
            ByHand("the videos, P01/videos/P01_01.MP4 and so on, with github.com/epic-kitchens/epic-kitchens-download-scripts"),
        ),
        style="epic_kitchens_label",
        records=_epic_records,
        example=partial(_named, style="epic_kitchens_label", questions=ACTION_QUESTIONS),
        files=_epic_files,
        splits=("train", "validation"),
        licence="CC BY-NC 4.0 (license.txt of github.com/epic-kitchens/epic-kitchens-100-annotations)",
    ),
)
