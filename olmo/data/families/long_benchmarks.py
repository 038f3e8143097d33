"""Benchmarks of long videos: MLVU, LVBench, VideoEval-Pro."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from olmo.data.annotations import Entry, read_json_list, read_jsonl, unique
from olmo.data.families.asking import (
    LETTER_DIRECTLY,
    ONLY_THE_LETTER,
    benchmark_row,
    letter,
    lettered,
    number_of_letter,
    number_of_text,
    option_texts,
    parquet_rows,
    split_options,
    worded,
)
from olmo.data.records import EVAL_MC, Record
from olmo.data.sources import ByHand, Hub

# -- MLVU: a file per task for development, one for the test; shortest videos first

MLVU_CHOICES = ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")
MLVU_TEXTS = ("8_sub_scene", "9_summary")
MLVU_TEST = "MLVU_Test/test-ground-truth/test_mcq_gt.json"


def _mlvu_files(split: str, tasks: tuple[str, ...]) -> list[str]:
    return [MLVU_TEST] if split == "test" else [f"MLVU/json/{task}.json" for task in tasks]


def _mlvu_entries(folder: Path, split: str, tasks: tuple[str, ...]) -> list[tuple[Entry, str, str]]:
    """(entry, folder of its video, id), by the duration of the video."""
    if split == "test":
        found = [(entry, "MLVU_Test/video", entry["question_id"]) for entry in unique(read_json_list(folder / MLVU_TEST), "question_id")]
    else:
        files = zip(tasks, _mlvu_files(split, tasks), strict=True)
        found = [(e, f"MLVU/video/{task}", f"{task}_{i}") for task, name in files for i, e in enumerate(read_json_list(folder / name))]
    return sorted(found, key=lambda item: item[0].need("duration", float))


def _mlvu_record(entry: Entry, place: str, question_id: str) -> Record:
    """Its tasks are the types of its questions: its score is the mean over them."""
    video, task = entry.need("video", str), entry.need("question_type", str)
    return {
        "video": f"{place}/{video}",
        "metadata": {
            "example_id": question_id,
            "question_id": question_id,
            "video_id": video,
            "task_type": task,
            "question_type": task,
            "duration": entry.need("duration", float),
        },
    }


def _mlvu_choice_records(folder: Path, split: str) -> Iterator[Record]:
    for entry, place, question_id in _mlvu_entries(folder, split, MLVU_CHOICES):
        options = option_texts(entry, "candidates")
        yield _mlvu_record(entry, place, question_id) | {
            "question": worded(entry.need("question", str), lettered(options), LETTER_DIRECTLY),
            "answer": letter(number_of_text(entry, "answer", options)),
        }


def _mlvu_text_records(folder: Path, split: str) -> Iterator[Record]:
    for entry, place, question_id in _mlvu_entries(folder, split, MLVU_TEXTS):
        record = _mlvu_record(entry, place, question_id)
        if "scoring_points" in entry:
            record["metadata"]["scoring_points"] = entry.need("scoring_points", list)
        yield record | {"question": entry.need("question", str), "answer": entry.need("answer", str)}


# -- LVBench: a line per video; a question holds its options

LVBENCH_META = "video_info.meta.jsonl"


def _lvbench_files(split: str) -> list[str]:
    return [LVBENCH_META]


def _lvbench_records(folder: Path, split: str) -> Iterator[Record]:
    for video in unique(read_jsonl(folder / LVBENCH_META), "key"):
        key, kind = video.need("key", str), video.need("type", str)
        for entry in unique(video.entries("qa"), "uid"):
            question, options = split_options(entry.need("question", str), entry.where)
            answer = letter(number_of_letter(entry, "answer", len(options))) + "."
            yield {
                "video": f"{key}.mp4",
                "question": worded(question, lettered(options), ONLY_THE_LETTER),
                "answer": answer,
                "metadata": {
                    "example_id": f"{key}_{entry['uid']}",
                    "uid": entry["uid"],
                    "answer": answer,
                    "type": kind,
                    "qtype": entry.texts("question_type"),
                    "time_reference": entry.need("time_reference", str),
                },
            }


# -- VideoEval-Pro, with the options of the benchmarks that its questions come from

VIDEO_EVAL_PRO_TABLE = "data/test-*.parquet"


def _video_eval_pro_files(split: str) -> list[str]:
    return [VIDEO_EVAL_PRO_TABLE]


def _video_eval_pro_records(folder: Path, split: str, *, free: bool = False) -> Iterator[Record]:
    """The questions with their options, or `free`: without, to be answered in words."""
    for number, entry in enumerate(parquet_rows(folder, VIDEO_EVAL_PRO_TABLE)):
        question, options = entry.need("question", str), option_texts(entry, "options")
        about = {key: entry.need(key, str) for key in ("answer_text", "source", "qa_subtype", "qa_type")}
        yield {
            "video": f"videos/videos_filtered/{entry.need('video', str)}",
            "question": question if free else worded(question, options, ONLY_THE_LETTER),
            "answer": about["answer_text"] if free else letter(number_of_letter(entry, "answer", len(options))),
            "metadata": {"example_id": str(number), **about, **({} if free else {"options": options})},
        }


# -- rows

_MLVU_HUB = Hub("MLVU/MVLU", gated=True)
_VIDEO_EVAL_PRO_HUB = Hub("TIGER-Lab/VideoEval-Pro", unpack=("videos/videos_part_*.tar.gz",))
_MLVU_LICENCE = "CC BY-NC-SA 4.0, research only (README of github.com/JUNJIE99/MLVU)"

ROWS = (
    benchmark_row(
        name="mlvu_mc",
        title="MLVU",
        folder="MVLU",
        sources=(_MLVU_HUB, Hub("MLVU/MLVU_Test", into="MLVU_Test", unpack=("*.tar.gz*", "*.zip*"), gated=True)),
        style=EVAL_MC,
        records=_mlvu_choice_records,
        files=partial(_mlvu_files, tasks=MLVU_CHOICES),
        splits=("validation", "test"),
        licence=_MLVU_LICENCE,
    ),
    benchmark_row(
        name="mlvu_gen",
        title="MLVU, free answers",
        folder="MVLU",
        sources=(_MLVU_HUB,),
        style="demo",
        records=_mlvu_text_records,
        files=partial(_mlvu_files, tasks=MLVU_TEXTS),
        splits=("validation",),
        licence=_MLVU_LICENCE,
    ),
    benchmark_row(
        name="lvbench",
        title="LVBench",
        folder="LVBench",
        sources=(
            Hub("zai-org/LVBench", patterns=(LVBENCH_META,)),
            ByHand("the YouTube videos, named by their ids, with scripts/download.sh of github.com/THUDM/LVBench"),
        ),
        style=EVAL_MC,
        records=_lvbench_records,
        files=_lvbench_files,
        splits=("test",),
        licence="CC BY-NC-SA 4.0, academic research only (README of github.com/THUDM/LVBench)",
    ),
    benchmark_row(
        name="video_eval_pro_mc",
        title="VideoEvalPro",
        folder="VideoEvalPro",
        sources=(_VIDEO_EVAL_PRO_HUB,),
        style=EVAL_MC,
        records=_video_eval_pro_records,
        files=_video_eval_pro_files,
        splits=("test",),
    ),
    benchmark_row(
        name="video_eval_pro_open",
        title="VideoEvalPro, free answers",
        folder="VideoEvalPro",
        sources=(_VIDEO_EVAL_PRO_HUB,),
        style="demo",
        records=partial(_video_eval_pro_records, free=True),
        files=_video_eval_pro_files,
        splits=("test",),
    ),
)
