"""Questions about short clips of the internet: TGIF-QA, How2QA, SUTD-TrafficQA, Social-IQ 2.0, FunQA."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, having, one_file, read_csv, read_json_list, read_jsonl, read_lists, unique
from olmo.data.dataset import Example
from olmo.data.families.questions import asked, choice, choices, grouped, numbered_options
from olmo.data.families.video_files import Listing, with_videos
from olmo.data.records import MC, OE, DatasetRow, Record, insert_option, multiple_choice, open_ended
from olmo.data.sources import ByHand, Hub, Url
from olmo.exceptions import OLMoDataError

# -- TGIF-QA: tables of questions, of which those on actions and transitions have options

TGIF_TABLES = ("action", "count", "transition", "frameqa")
TGIF_WITH_OPTIONS = ("action", "transition")


def _tgif_files(split: str) -> list[str]:
    return [f"{split.capitalize()}_{table}_question.csv" for table in TGIF_TABLES]


def _tgif_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a video are one example."""
    by_video: dict[str, list[dict]] = {}
    for table, name in zip(TGIF_TABLES, _tgif_files(split), strict=True):
        for entry in read_csv(folder / name, delimiter="\t"):
            by_video.setdefault(entry.need("gif_name", str), []).append(_tgif_question(entry, table in TGIF_WITH_OPTIONS))
    for name, questions in by_video.items():
        yield {"video": f"videos/{name}.mp4", "questions": questions}


def _tgif_question(entry: Entry, has_options: bool) -> dict:
    question = {"question": entry.need("question", str)}
    if not has_options:
        return question | {"answer": entry.need("answer", str)}
    return choice(entry, question["question"], [entry.need(f"a{i}", str) for i in range(1, 6)], entry.need("answer", int))


def _tgif_example(record: Record, rng: np.random.Generator) -> Example:
    messages = []
    for q in record["questions"]:
        if "options" not in q:
            messages.append(open_ended(q["question"], q["answer"]))
            continue
        messages.append(multiple_choice(q["question"], q["options"], q["answer"], record["video"]))
        messages.append(open_ended(q["question"], q["options"][q["answer"]]))
    return {"video": record["video"], "message_list": messages}


# -- How2QA: times in videos of YouTube, three wrong answers and the right one

HOW2QA_COLUMNS = ["video", "times", "wrong1", "wrong2", "wrong3", "question", "answer"]
HOW2QA_CLIPS = "video-clips"


def _how2qa_files(split: str) -> list[str]:
    return [f"how2QA_{split}_release.csv", HOW2QA_CLIPS]


def _how2qa_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a clip are one example. Clips were cut by whoever has the videos, into any kind of file."""
    listing = Listing(folder)
    clips = listing.by_stem(HOW2QA_CLIPS)
    entries = read_csv(folder / _how2qa_files(split)[0], columns=HOW2QA_COLUMNS)
    by_clip = grouped((_how2qa_clip(entry), _how2qa_question(entry)) for entry in entries)
    records = ((f"{HOW2QA_CLIPS}/{clips.get(name, name)}", {"questions": q}) for name, q in by_clip.items())
    yield from with_videos(records, listing.path, folder)


def _how2qa_clip(entry: Entry) -> str:
    times = re.fullmatch(r"\[([\d.]+):([\d.]+)\]", entry.need("times", str))
    if not times:
        raise OLMoDataError(f"{entry.where}: the times should be [start:end] in seconds, but are {entry['times']}")
    return f"{entry.need('video', str)}_{times[1]}_{times[2]}"


def _how2qa_question(entry: Entry) -> dict:
    wrong = [entry.need(f"wrong{i}", str) for i in (1, 2, 3)]
    return {"question": entry.need("question", str), "wrong": wrong, "right": entry.need("answer", str)}


def _how2qa_example(record: Record, rng: np.random.Generator) -> Example:
    messages = []
    for q in record["questions"]:
        options, place = insert_option(q["wrong"], q["right"], rng)
        messages.append(multiple_choice(q["question"], options, place, record["video"]))
    return {"video": record["video"], "message_list": messages}


# -- SUTD-TrafficQA: a list on every line, the first of which names the columns


def _trafficqa_files(split: str) -> list[str]:
    return [f"R2_{split}.jsonl"]


def _trafficqa_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a video are one example."""
    entries = unique(read_lists(folder / _trafficqa_files(split)[0]), "record_id")
    by_video = grouped((entry.need("vid_filename", str), _trafficqa_question(entry)) for entry in entries)
    for name, questions in by_video.items():
        yield {"video": f"compressed_videos/{name}", "questions": questions}


def _trafficqa_question(entry: Entry) -> dict:
    """Questions with fewer than four options have empty ones."""
    options, answer = [entry.need(f"option{i}", str) for i in range(4)], entry.need("answer", int)
    question = choice(entry, entry.need("q_body", str), options, answer)
    if not options[answer]:
        raise OLMoDataError(f"{entry.where}: the answer is option {answer}, which is empty")
    return question | {"options": [o for o in options if o], "answer": sum(bool(o) for o in options[:answer])}


# -- Social-IQ 2.0: four answers each, no right one for the test split


def _social_iq_files(split: str) -> list[str]:
    return [f"qa/qa_{split}.json*"]


def _social_iq_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a video are one example."""
    file = one_file(folder, _social_iq_files(split)[0])
    answer = Entry.optional if split == "test" else Entry.need
    by_video = grouped(
        (
            entry.need("vid_name", str),
            choice(entry, entry.need("q", str), numbered_options(entry, 4), answer(entry, "answer_idx", int)),
        )
        for entry in read_jsonl(file)
    )
    for name, questions in by_video.items():
        yield {"video": f"video/{name}.mp4", "questions": questions}


# -- FunQA: open questions on humour, creativity and magic, and options for some of them in a file of their own

FUNQA_KINDS = {"H": "humor", "C": "creative", "M": "magic"}
FUNQA_OTHER_TASKS = {"H1", "C1", "M1", "C4", "C5"}
"""Finding moments, giving a title and scoring: no questions with a short answer."""
FUNQA_CHOICES = "Funqa_mcqa_v1.json"


def _funqa_files(split: str) -> list[str]:
    return [f"FunQA_{split}.json", FUNQA_CHOICES]


def _funqa_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a video are one example; those with options are of the split that has the video."""
    by_video = grouped(
        (_funqa_video(entry, split), _funqa_open(entry))
        for entry in having(read_json_list(folder / _funqa_files(split)[0]), "visual_input", "task", "instruction", "output")
        if entry.need("task", str) not in FUNQA_OTHER_TASKS
    )
    for entry in having(read_json_list(folder / FUNQA_CHOICES), "visual_input", "instruction", "gt"):
        if (video := _funqa_video(entry, split)) in by_video:
            by_video[video].append(_funqa_choice(entry))
    for video, questions in by_video.items():
        yield {"video": video, "questions": questions}


def _funqa_video(entry: Entry, split: str) -> str:
    name = entry.need("visual_input", str)
    if name[:1] not in FUNQA_KINDS:
        raise OLMoDataError(f"{entry.where}: 'visual_input' should begin with H, C or M, but is {json.dumps(name)}")
    return f"{split}_{FUNQA_KINDS[name[0]]}/{name}"


def _funqa_open(entry: Entry) -> dict:
    return {"question": entry.need("instruction", str), "answer": entry.need("output", str)}


def _funqa_choice(entry: Entry) -> dict:
    """Options stand in the text, numbered from 1, and so is the right one."""
    question, *options = split_numbered(entry.need("instruction", str))
    if len(options) < 2:
        raise OLMoDataError(f"{entry.where}: 'instruction' should end with options numbered 1., 2., ...")
    right = entry.need("gt", int)
    if not 1 <= right <= len(options):
        raise OLMoDataError(f"{entry.where}: 'gt' is {right}, but there are {len(options)} options, counted from 1")
    return choice(entry, question, options, right - 1)


def split_numbered(text: str) -> list[str]:
    """`Why? 1. a 2. b` -> Why?, a, b: the parts between the numbers 1, 2, ... as far as they go on."""
    parts, number = [], 1
    while found := re.search(rf"(?:^|\s)(?:[Oo]ption )?\(?{number}[.):]\s", text):
        parts.append(text[: found.start()].strip())
        text, number = text[found.end() :], number + 1
    return [*parts, text.strip()]


def _funqa_example(record: Record, rng: np.random.Generator) -> Example:
    messages = [asked(q) if "options" in q else open_ended(q["question"], q["answer"]) for q in record["questions"]]
    return {"video": record["video"], "message_list": messages}


ROWS = (
    DatasetRow(
        name="tgif",
        title="TGIF-QA",
        folder="TGIF",
        sources=(Hub("allenai/Molmo2-TGIF"),),
        style=f"{MC}+{OE}",
        records=_tgif_records,
        example=_tgif_example,
        files=_tgif_files,
        splits=("train", "test"),
    ),
    DatasetRow(
        name="how2qa",
        title="How2QA",
        folder="how2QA",
        sources=(
            *(
                Url(f"https://raw.githubusercontent.com/ych133/How2R-and-How2QA/HEAD/how2QA/how2QA_{split}_release.csv")
                for split in ("train", "val")
            ),
            ByHand("the clips, cut from videos of YouTube and named ID_START_END like the times in the tables", HOW2QA_CLIPS),
        ),
        style=MC,
        records=_how2qa_records,
        example=_how2qa_example,
        files=_how2qa_files,
        splits=("train", "val"),
    ),
    DatasetRow(
        name="sutd_trafficqa",
        title="SUTD-TrafficQA",
        folder="SUTD-TrafficQA",
        sources=(
            ByHand(
                "R2_train.jsonl, R2_test.jsonl and compressed_videos/, from the record on Zenodo named on sutdcv.github.io/SUTD-TrafficQA"
            ),
        ),
        style=MC,
        records=_trafficqa_records,
        example=choices(),
        files=_trafficqa_files,
        splits=("train", "test"),
        licence="videos after an agreement with the authors (README of github.com/sutdcv/SUTD-TrafficQA)",
    ),
    DatasetRow(
        name="social_iq2",
        title="Social-IQ 2.0",
        folder="Social-IQ",
        sources=(Hub("PediaMedAI/Social-IQ-Video", unpack=("*.zip", "*.tar*")),),
        style=MC,
        records=_social_iq_records,
        example=choices(),
        files=_social_iq_files,
        splits=("train", "val", "test"),
        inferred="names of its files on the hub",
    ),
    DatasetRow(
        name="funqa",
        title="FunQA",
        folder="FunQA",
        sources=(Hub("fesvhtr/FunQA", unpack=("*.zip",)),),
        style=f"{OE}+{MC}",
        records=_funqa_records,
        example=_funqa_example,
        files=_funqa_files,
        splits=("train", "val", "test"),
        licence="CC BY-NC-SA 4.0 (README of github.com/Jingkang50/FunQA)",
        inferred=f"keys of {FUNQA_CHOICES}, folders in the archives",
    ),
)
