"""Questions that need a conclusion: CLEVRER, STAR, IntentQA, Sports-QA, RoadTextVQA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.annotations import Entry, having, read_csv, read_json, read_json_list, unique
from olmo.data.dataset import Example
from olmo.data.families.common import LeftOut, fixed_example, some_texts, unanswered
from olmo.data.families.questions import grouped, one_of
from olmo.data.families.video_files import videos_below, with_videos
from olmo.data.records import MC, OE, DatasetRow, Record, multiple_choice, open_ended, split_evenly
from olmo.data.sources import ByHand, Url
from olmo.exceptions import OLMoDataError

Message = dict[str, Any]


VIDEOS = "videos"
"""Where the last three keep theirs, in folders or not."""


# -- CLEVRER: one entry per video. Questions have a text as answer, or choices of which any number may be right

CLEVRER_FOLDER_SIZE = 1000
"""Videos of one folder; its name tells the first number and the one after the last."""


def _clevrer_records(folder: Path, split: str) -> Iterator[Record]:
    for scene in unique(read_json_list(folder / f"{split}.json"), "scene_index"):
        number = scene.need("scene_index", int)
        first = number - number % CLEVRER_FOLDER_SIZE
        video = f"video_{first:05d}-{first + CLEVRER_FOLDER_SIZE:05d}/{scene.need('video_filename', str)}"
        messages = [m for q in scene.entries("questions") if (m := _clevrer_message(q, answers=split != "test"))]
        if messages:
            yield {"video": video, "messages": messages}


def _clevrer_message(entry: Entry, answers: bool) -> Message | None:
    """None where several choices are right, or where that is not known because the answers are not published."""
    question = entry.need("question", str)
    if "choices" not in entry:
        return open_ended(question, entry.need("answer", str)) if answers else unanswered(question)
    choices = entry.entries("choices")
    if not answers:
        return None
    right = [i for i, choice in enumerate(choices) if _clevrer_is_right(choice)]
    return multiple_choice(question, [c.need("choice", str) for c in choices], right[0], entry.where) if len(right) == 1 else None


def _clevrer_is_right(choice: Entry) -> bool:
    answer = choice.need("answer", str)
    if answer not in ("correct", "wrong"):
        raise OLMoDataError(f"{choice.where}: 'answer' should be correct or wrong, but is {answer!r}")
    return answer == "correct"


# -- STAR: questions about a part of a Charades video, each asked with and without its choices

STAR_FILES = {"train": "STAR_train.json", "validation": "STAR_val.json", "test": "STAR_test.json"}
STAR_MOST_BRANCHES = 10


def _star_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    asked = []
    for entry in unique(read_json_list(folder / STAR_FILES[split]), "question_id"):
        clip = [entry.need("start", float), entry.need("end", float)]
        if left_out.unless_span(clip, entry.where):
            asked.append(((entry.need("video_id", str), *clip), _star_messages(entry, answers=split != "test")))
    for (video, *clip), messages in grouped(asked).items():
        for branches in split_evenly([m for pair in messages for m in pair], STAR_MOST_BRANCHES):
            yield {"video": f"Charades_v1_480/{video}.mp4", "clip": clip, "messages": branches}
    left_out.tell()


def _star_messages(entry: Entry, answers: bool) -> tuple[Message, Message]:
    question = entry.need("question", str)
    options = [choice.need("choice", str) for choice in entry.entries("choices")]
    if not answers:
        return unanswered(question), unanswered(question, MC, options=options)
    answer = entry.need("answer", str)
    if answer not in options:
        raise OLMoDataError(f"{entry.where}: the answer {answer!r} is none of the choices {options}")
    return open_ended(question, answer), multiple_choice(question, options, options.index(answer), entry.where)


# -- IntentQA: a table of questions with five options, each asked with and without them


def _intent_qa_records(folder: Path, split: str) -> Iterator[Record]:
    pairs = ((entry.need("video_id", str), _intent_qa_messages(entry)) for entry in read_csv(folder / f"{split}.csv"))
    asked = ((video, {"messages": [m for pair in messages for m in pair]}) for video, messages in grouped(pairs).items())
    return with_videos(asked, videos_below(folder, VIDEOS), folder / VIDEOS)


def _intent_qa_messages(entry: Entry) -> tuple[Message, Message]:
    question, answer = entry.need("question", str), entry.need("answer", int)
    options = [entry.need(f"a{i}", str) for i in range(5)]
    choice = multiple_choice(question, options, answer, entry.where)
    return open_ended(question, options[answer]), choice


# -- Sports-QA: questions on videos of several formats


def _sportsqa_records(folder: Path, split: str) -> Iterator[Record]:
    pairs = (
        (entry.need("video", str), open_ended(entry.need("question", str), entry.need("answer", str)))
        for entry in read_json_list(folder / f"meta-data/{split}.json")
    )
    asked = ((video, {"messages": messages}) for video, messages in grouped(pairs).items())
    return with_videos(asked, videos_below(folder, VIDEOS), folder / VIDEOS)


# -- RoadTextVQA: questions with several accepted answers


def _road_text_records(folder: Path, split: str) -> Iterator[Record]:
    content = read_json(folder / f"{split}.json")
    if not isinstance(content, Entry):
        raise OLMoDataError(f"{folder / f'{split}.json'} should be a mapping with the list 'data'")
    entries = unique(having(content.entries("data"), "questionId", "videoId", "question"), "questionId")
    pairs = ((_road_text_video(entry), _road_text_question(entry, split)) for entry in entries)
    asked = ((video, {"questions": questions}) for video, questions in grouped(pairs).items())
    return with_videos(asked, videos_below(folder, VIDEOS), folder / VIDEOS)


def _road_text_video(entry: Entry) -> str:
    """Entries may tell the file of their video beside its id."""
    return Path(entry.need("video", str)).stem if "video" in entry else entry.need("videoId", str)


def _road_text_question(entry: Entry, split: str) -> dict:
    question = {"question": entry.need("question", str)}
    kept_back = split == "test" and "answer" not in entry
    return question if kept_back else question | {"answers": some_texts(entry, "answer")}


def _road_text_example(record: Record, rng: np.random.Generator) -> Example:
    """One of the accepted answers is drawn every time."""
    messages = [
        open_ended(q["question"], one_of(q["answers"], rng)) if "answers" in q else unanswered(q["question"]) for q in record["questions"]
    ]
    return {"video": record["video"], "message_list": messages}


_CLEVRER = "http://data.csail.mit.edu/clevrer"
_STAR = "https://star-benchmark.s3.us-east.cloud-object-storage.appdomain.cloud/Question_Answer_SituationGraph"
_INTENT_QA = "https://raw.githubusercontent.com/JoseponLee/IntentQA/main/datasets/IntentQA"
CHARADES_VIDEOS = Url("https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades/Charades_v1_480.zip", unpack=True)

ROWS = (
    DatasetRow(
        name="clevrer",
        title="CLEVRER",
        folder="clevrer",
        sources=(
            *(Url(f"{_CLEVRER}/questions/{split}.json") for split in ("train", "validation", "test")),
            *(Url(f"{_CLEVRER}/videos/{split}/video_{split}.zip", unpack=True) for split in ("train", "validation", "test")),
        ),
        style=f"{OE}+{MC}",
        records=_clevrer_records,
        example=fixed_example,
        files=lambda split: [f"{split}.json"],
        splits=("train", "validation", "test"),
        licence="CC0 (README.txt of data.csail.mit.edu/clevrer)",
        counts={"train": 10000, "validation": 5000, "test": 5000},  # videos by their numbers, in the same README.txt
    ),
    DatasetRow(
        name="star",
        title="STAR",
        folder="STAR",
        sources=(*(Url(f"{_STAR}/{file}") for file in STAR_FILES.values()), CHARADES_VIDEOS),
        style=f"{OE}+{MC}",
        records=_star_records,
        example=fixed_example,
        files=lambda split: [STAR_FILES[split]],
        splits=("train", "validation", "test"),
    ),
    DatasetRow(
        name="intent_qa",
        title="IntentQA",
        folder="IntentQA",
        sources=(
            *(Url(f"{_INTENT_QA}/{split}.csv") for split in ("train", "val", "test")),
            ByHand("the videos, linked from github.com/JoseponLee/IntentQA, each named by its video_id", into=VIDEOS),
        ),
        style=f"{OE}+{MC}",
        records=_intent_qa_records,
        example=fixed_example,
        files=lambda split: [f"{split}.csv", f"{VIDEOS}/**/"],
        splits=("train", "val", "test"),
    ),
    DatasetRow(
        name="sportsqa_oe",
        title="Sports-QA",
        folder="SportsQA",
        sources=(
            ByHand("the folder meta-data of the Sports-QA release on figshare, found by way of github.com/HopLee6/Sports-QA"),
            ByHand("its videos", into=VIDEOS),
        ),
        style=OE,
        records=_sportsqa_records,
        example=fixed_example,
        files=lambda split: [f"meta-data/{split}.json", f"{VIDEOS}/**/"],
        splits=("train", "val", "test"),
    ),
    DatasetRow(
        name="road_text_vqa",
        title="RoadTextVQA",
        folder="RoadTextVQA",
        sources=(
            ByHand("train.json, val.json and test.json from cvit.iiit.ac.in/research/projects/cvit-projects/roadtextvqa"),
            ByHand("its videos", into=VIDEOS),
        ),
        style=OE,
        records=_road_text_records,
        example=_road_text_example,
        files=lambda split: [f"{split}.json", f"{VIDEOS}/**/"],
        splits=("train", "val", "test"),
        inferred="names of videos, answers as lists of texts",
    ),
)
