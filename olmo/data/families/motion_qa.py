"""Who moves and how, and what the camera does: Video Localized Narratives, Countix, CameraBench, MotionBench."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, having, read_csv, read_json, read_jsonl, read_parquet, unique
from olmo.data.dataset import Example
from olmo.data.families.common import LeftOut, fixed_example, inserted_choice, some_texts
from olmo.data.families.questions import grouped, one_of
from olmo.data.records import MC, OE, DatasetRow, Record, open_ended
from olmo.data.sources import ByHand, Hub
from olmo.exceptions import OLMoDataError

# -- Video Localized Narratives: questions on videos of Oops


def _narrative_qa_records(folder: Path, split: str) -> Iterator[Record]:
    """Several people have told about a video; all questions from their tales are one example."""
    for video, messages in grouped(_narrative_questions(folder / _narrative_qa_files(split)[0])).items():
        yield {"video": f"oops_video/{split}/{video}.mp4", "messages": messages, "metadata": {"video_name": video}}


def _narrative_questions(path: Path) -> Iterator[tuple[str, dict]]:
    content = read_json(path)
    if not isinstance(content, Entry):
        raise OLMoDataError(f"{path} should be a mapping with the list 'annotations'")
    videos = having(content.entries("annotations"), "video_name", "qa_pairs")
    keys = ("question_id", "question", "answer")
    pairs = [(video.need("video_name", str), pair) for video in videos for pair in having(video.entries("qa_pairs"), *keys)]
    for (video, _), pair in zip(pairs, unique((p for _, p in pairs), "question_id"), strict=True):
        yield video, open_ended(pair.need("question", str), pair.need("answer", str))


def _narrative_qa_files(split: str) -> list[str]:
    return [f"oops_{split}/qa_text_output.json"]


# -- Video Localized Narratives: what each actor of a video does

NARRATIVES = "vidlns/*_train.jsonl"


def _narrative_caption_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    captions = (pair for path in sorted(folder.glob(NARRATIVES)) for pair in _narrative_captions(path, left_out))
    for (part, video), messages in grouped(captions).items():
        yield {"video": f"videos/{part}/{video}.mp4", "messages": messages}
    left_out.tell()


def _narrative_captions(path: Path, left_out: LeftOut) -> Iterator[tuple[tuple[str, str], dict]]:
    for entry in unique(read_jsonl(path), "vidln_id"):
        video = entry.need("dataset_id", str), entry.need("video_id", str)
        for narrative in entry.entries("actor_narratives"):
            actor, text = narrative.need("actor_name", str), narrative.need("caption", str).strip()
            if text:
                yield video, {"text": text, "object": actor.lower(), "style": "video_object_caption"}
            else:
                left_out.note("narratives without words", narrative.where)


# -- Countix: how often an action is repeated


def _countix_records(folder: Path, split: str) -> Iterator[Record]:
    path = folder / "class_to_question.json"
    wordings = read_json(path)
    if not isinstance(wordings, Entry):
        raise OLMoDataError(f"{path} should be a mapping from classes to lists of questions")
    for table in sorted(folder.glob(f"*{split}*.csv")):
        for entry in read_csv(table):
            action = entry.need("class", str)
            if action not in wordings:
                raise OLMoDataError(f"{entry.where}: the class {action!r} has no questions in {path}")
            video = f"kinetics700/{entry.need('video_path', str)}"
            yield {"video": video, "questions": some_texts(wordings, action), "answer": str(entry.need("count", int))}


def _countix_example(record: Record, rng: np.random.Generator) -> Example:
    return {"video": record["video"], "message_list": [open_ended(one_of(record["questions"], rng), record["answer"])]}


# -- CameraBench: how the camera moves


def _camerabench_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    for path in sorted(folder.glob("**/*.parquet")):
        for entry in read_parquet(path, ["video_path", "mc_qa_list"]):
            questions = []
            for q in entry.entries("mc_qa_list"):
                answer = q.need("Answer", str)
                if wrong := left_out.wrong_answers(q, answer):
                    questions.append({"question": q.need("Question", str), "answer": answer, "wrong": wrong})
            if questions:
                yield {"video": entry.need("video_path", str), "questions": questions}
    left_out.tell()


def _camerabench_example(record: Record, rng: np.random.Generator) -> Example:
    return {"video": record["video"], "message_list": [inserted_choice(q, rng, record["video"]) for q in record["questions"]]}


# -- MotionBench: captions of motions

MOTION_CAPTIONS = "MotionBenchCaption-train"


def _motion_caption_records(folder: Path, split: str) -> Iterator[Record]:
    for entry in unique(read_jsonl(folder / MOTION_CAPTIONS / "train.jsonl"), "video_path"):
        video = entry.need("video_path", str).removeprefix("videos/")
        message = {"text": entry.need("motion_caption", str), "style": "video_motion_caption"}
        yield {"video": f"{MOTION_CAPTIONS}/videos/{video}", "messages": [message]}


ROWS = (
    DatasetRow(
        name="video_localized_narratives",
        title="Video Localized Narratives QA",
        folder="oops",
        sources=(
            ByHand(
                "the folders oops_train and oops_val with qa_text_output.json (text-output VideoQA) from "
                "google.github.io/video-localized-narratives"
            ),
            ByHand("the folders train and val of the Oops videos from oops.cs.columbia.edu/data", into="oops_video"),
        ),
        style=OE,
        records=_narrative_qa_records,
        example=fixed_example,
        files=_narrative_qa_files,
        splits=("train", "val"),
        inferred="the keys video_name and question",
    ),
    DatasetRow(
        name="video_localized_narratives_caption",
        title="Video Localized Narratives captions",
        folder="VideoLocalizedNarratives",
        sources=(
            ByHand(
                "the narratives for training (such as oops_train.jsonl) from google.github.io/video-localized-narratives", into="vidlns"
            ),
            ByHand("videos of their data sets, each as {dataset_id}/{video_id}.mp4 (such as oops_train/)", into="videos"),
        ),
        style="video_object_caption",
        records=_narrative_caption_records,
        example=fixed_example,
        files=lambda split: [NARRATIVES],
    ),
    DatasetRow(
        name="countix_oe",
        title="Countix",
        folder="Countix",
        sources=(
            Hub("allenai/Molmo2-Countix", patterns=("*.csv", "*.json")),
            ByHand("the Kinetics-700 videos (github.com/cvdfoundation/kinetics-dataset)", into="kinetics700"),
        ),
        style=OE,
        records=_countix_records,
        example=_countix_example,
        files=lambda split: [f"*{split}*.csv", "class_to_question.json"],
        inferred="names of its files on the hub",
    ),
    DatasetRow(
        name="camerabench_qa",
        title="CameraBench",
        folder="CameraBench",
        sources=(Hub("allenai/Molmo2-CameraBenchTrain"),),
        style=MC,
        records=_camerabench_records,
        example=_camerabench_example,
        files=lambda split: ["**/*.parquet"],
        inferred="names of its files on the hub, where videos lie",
    ),
    DatasetRow(
        name="motionbench_train",
        title="MotionBench captions",
        folder="MotionBench",
        sources=(Hub("zai-org/MotionBench", patterns=(f"{MOTION_CAPTIONS}/*",)),),
        style="video_motion_caption",
        records=_motion_caption_records,
        example=fixed_example,
        files=lambda split: [f"{MOTION_CAPTIONS}/train.jsonl"],
    ),
)
