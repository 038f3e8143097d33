"""Benchmarks of short videos: MVBench, TOMATO, MotionBench, EgoSchema, TemporalBench."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

from olmo.data.annotations import Entry, read_json, read_json_list, read_jsonl, unique
from olmo.data.families.asking import (
    LETTER_DIRECTLY,
    ONLY_THE_LETTER,
    benchmark_row,
    letter,
    lettered,
    number_of,
    number_of_letter,
    number_of_text,
    option_texts,
    parquet_rows,
    split_options,
    worded,
)
from olmo.data.records import EVAL_MC, MC, OE, Record
from olmo.data.sources import ByHand, Hub, Url
from olmo.exceptions import OLMoDataError

# -- MVBench: a file per task, whose videos lie in folders of the data sets that they come from. Those of episodic_reasoning are
# folders of frames, which are read as videos of 3 frames per second.

MVBENCH_LATER = "video/data0613"
"""Videos that were published later, in the same folders below this one."""
MVBENCH_FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480",
    "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}


def _mvbench_files(split: str) -> list[str]:
    return [*(f"json/{task}.json" for task in MVBENCH_FOLDERS), "video"]


def _mvbench_records(folder: Path, split: str) -> Iterator[Record]:
    for task, prefix in MVBENCH_FOLDERS.items():
        for number, entry in enumerate(read_json_list(folder / f"json/{task}.json")):
            options = option_texts(entry, "candidates")
            video = f"{prefix}/{entry.need('video', str)}"
            later = f"{MVBENCH_LATER}/{video}"
            record = {
                "video": later if (folder / later).is_file() else f"video/{video}",
                "question": worded(entry.need("question", str), lettered(options), ONLY_THE_LETTER),
                "answer": letter(number_of_text(entry, "answer", options)) + ".",
                "metadata": {"example_id": f"{task}_{number}", "task_type": task, "prefix": prefix, "video_path": video},
            }
            if "start" in entry or "end" in entry:
                record["clip"] = _interval(entry)
            yield record


def _interval(entry: Entry) -> list[float]:
    start, end = entry.need("start", float), entry.need("end", float)
    if not 0 <= start < end:
        raise OLMoDataError(f"{entry.where}: 'start' and 'end' should be seconds in that order, but are {start:g} and {end:g}")
    return [start, end]


# -- TOMATO: a file per kind of reasoning, a mapping from numbers to questions

TOMATO_KINDS = ("count", "direction", "rotation", "shape&trend", "velocity&frequency", "visual_cues")
_TOMATO_URL = "https://raw.githubusercontent.com/yale-nlp/TOMATO/main/data/"


def _tomato_files(split: str) -> list[str]:
    return [f"data/{kind}.json" for kind in TOMATO_KINDS]


def _tomato_records(folder: Path, split: str) -> Iterator[Record]:
    for kind, name in zip(TOMATO_KINDS, _tomato_files(split), strict=True):
        questions = read_json(folder / name)
        if not isinstance(questions, Entry):
            raise OLMoDataError(f"{folder / name} should be a mapping from numbers to questions")
        for number in questions:
            entry = questions.need(number, dict)
            options = option_texts(entry, "options")
            key, shown = entry.need("key", str), entry.need("demonstration_type", str)
            yield {
                "video": f"videos/{shown}/{key}.mp4",
                "question": entry.need("question", str),
                "options": options,
                "answer_idx": number_of(entry, "answer", len(options)),
                "metadata": {
                    "example_id": f"{kind}_{number}",
                    "key": key,
                    "reasoning_type": kind,
                    "demonstration_type": shown,
                    "motion_type": entry.need("motion_type", str),
                },
            }


# -- MotionBench: a line per video; a question holds its options, and its answer is NA where the publisher keeps it

MOTIONBENCH_META = "MotionBench/video_info.meta.jsonl"
MOTIONBENCH_OWN, MOTIONBENCH_PUBLIC = "MotionBench/self-collected", "MotionBench/public-dataset"


def _motionbench_files(split: str) -> list[str]:
    return [MOTIONBENCH_META, MOTIONBENCH_OWN]


def _motionbench_records(folder: Path, split: str) -> Iterator[Record]:
    """validation: the answered questions; test: all of them, as its leaderboard asks for. Which folder has a video is seen, not told."""
    pairs = [(video, entry) for video in read_jsonl(folder / MOTIONBENCH_META) for entry in video.entries("qa")]
    for (video, _), entry in zip(pairs, unique((entry for _, entry in pairs), "uid"), strict=True):
        path, uid, answer = video.need("video_path", str), str(entry["uid"]), entry.need("answer", str)
        if answer == "NA" and split == "validation":
            continue
        place = MOTIONBENCH_OWN if (folder / MOTIONBENCH_OWN / path).is_file() else MOTIONBENCH_PUBLIC
        yield {
            "video": f"{place}/{path}",
            "question": entry.need("question", str),
            **({} if answer == "NA" else {"answer": answer}),
            "metadata": {
                "example_id": uid,
                "qa_uid": uid,
                "video_info": video.optional("video_info", dict),
                "task_type": video.need("question_type", str),
                "video_type": video.need("video_type", str),
            },
        }


# -- EgoSchema: options with their letters; answers of the full set are kept by the publisher

EGO_SCHEMA_FILES = {"validation": "Subset/test-*.parquet", "test": "MC/test-*.parquet"}


def _ego_schema_files(split: str) -> list[str]:
    return [EGO_SCHEMA_FILES[split]]


def _ego_schema_records(folder: Path, split: str) -> Iterator[Record]:
    for entry in unique(parquet_rows(folder, EGO_SCHEMA_FILES[split]), "question_idx"):
        options = option_texts(entry, "option")
        question_id, video = str(entry["question_idx"]), entry.need("video_idx", str)
        record = {
            "video": f"videos/{video}.mp4",
            "question": worded(entry.need("question", str), options, LETTER_DIRECTLY),
            "metadata": {"example_id": question_id, "question_id": question_id, "video_id": video, "options": options},
        }
        if split == "validation":
            number = number_of(entry, "answer", len(options))
            record["answer"] = letter(number)
            record["metadata"]["answer_idx"] = str(number)
        yield record


# -- TemporalBench: two files; a question holds its options and the request for a letter

TEMPORAL_BENCH_KINDS = ("long_qa", "short_qa")


def _temporal_bench_files(split: str) -> list[str]:
    return [f"temporalbench_{kind}.json" for kind in TEMPORAL_BENCH_KINDS]


def _temporal_bench_records(folder: Path, split: str, parsed: bool) -> Iterator[Record]:
    """`parsed`: the options are taken out of the question, for a model that is asked in its own form."""
    for kind, name in zip(TEMPORAL_BENCH_KINDS, _temporal_bench_files(split), strict=True):
        for entry in unique(read_json_list(folder / name), "idx"):
            text, video = entry.need("question", str), entry.need("video_name", str)
            question, options = split_options(text.removesuffix(LETTER_DIRECTLY).rstrip(), entry.where)
            number = number_of_letter(entry, "GT", len(options))
            apart = {"question": question, "options": options, "answer_idx": number}
            yield {
                "video": video,
                **(apart if parsed else {"question": text, "answer": letter(number)}),
                "metadata": {"example_id": entry["idx"], "type": kind, "video": video},
            }


# -- rows

_TOMATO_SOURCES = (
    *(Url(_TOMATO_URL + quote(f"{kind}.json"), into="data") for kind in TOMATO_KINDS),
    ByHand("videos.zip, linked on github.com/yale-nlp/TOMATO, so that videos/ holds human/, object/ and simulated/"),
)
_TEMPORAL_BENCH = {
    "folder": "TemporalBench",
    "sources": (Hub("microsoft/TemporalBench", unpack=("short_video.zip", "long_video_part_*"), gated=True),),
    "files": _temporal_bench_files,
    "splits": ("test",),
    "licence": "MIT (README of github.com/mu-cai/TemporalBench); academic research only (conditions of microsoft/TemporalBench)",
    "counts": {"test": 5485 + 9867},  # splits test_long_qa and test_short_qa on the dataset card of microsoft/TemporalBench
}

ROWS = (
    benchmark_row(
        name="mvbench",
        title="MVBench",
        folder="MVBench",
        sources=(
            Hub("OpenGVLab/MVBench", unpack=("video/*.zip",)),
            ByHand("NTU RGB+D videos of fine_grained_pose, from rose1.ntu.edu.sg/dataset/actionRecognition", into="video/nturgbd"),
        ),
        style=EVAL_MC,
        records=_mvbench_records,
        files=_mvbench_files,
        splits=("validation",),
        licence="MIT (dataset card of OpenGVLab/MVBench)",
    ),
    benchmark_row(
        name="tomato",
        title="TOMATO",
        folder="TOMATO",
        sources=_TOMATO_SOURCES,
        style=MC,
        records=_tomato_records,
        files=_tomato_files,
        splits=("test",),
        licence="CC BY-SA 4.0 (dataset card of yale-nlp/TOMATO)",
        counts={"test": 1484},  # abstract of its paper
    ),
    benchmark_row(
        name="motionbench",
        title="MotionBench",
        folder="MotionBench",
        sources=(
            Hub("zai-org/MotionBench", patterns=("MotionBench/*",)),
            ByHand("clips of MedVid, SportsSloMo and HA-ViD, cut and named as github.com/THUDM/MotionBench says", into=MOTIONBENCH_PUBLIC),
        ),
        style=EVAL_MC,
        records=_motionbench_records,
        files=_motionbench_files,
        splits=("validation", "test"),
        counts={"test": 8052},  # section 3.2 of its paper: questions, answered or not
    ),
    benchmark_row(
        name="ego_schema",
        title="EgoSchema",
        folder="EgoSchema",
        sources=(Hub("lmms-lab/egoschema", patterns=("Subset/*", "MC/*", "*.zip"), unpack=("*.zip",)),),
        style=EVAL_MC,
        records=_ego_schema_records,
        files=_ego_schema_files,
        splits=("validation", "test"),
        licence="the Ego4D licence (abstract of its paper)",
        counts={"validation": 500},  # subset Subset on the dataset card of lmms-lab/egoschema
    ),
    benchmark_row(
        name="temporal_bench",
        title="TemporalBench",
        style=OE,
        records=partial(_temporal_bench_records, parsed=False),
        **_TEMPORAL_BENCH,
    ),
    benchmark_row(
        name="temporal_bench_mc",
        title="TemporalBench, options apart",
        style=MC,
        records=partial(_temporal_bench_records, parsed=True),
        **_TEMPORAL_BENCH,
    ),
)
