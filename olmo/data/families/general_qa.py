"""Questions about everyday videos: Paxion, LLaVA-Video, PerceptionTest, NExT-QA."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.annotations import Entry, having, one_file, read_csv, read_json, read_json_list, read_jsonl, read_parquet
from olmo.data.dataset import Example
from olmo.data.families.asking import LETTER_DIRECTLY, letter, lettered, worded
from olmo.data.families.questions import asked, choice, grouped, in_context, numbered_options, one_of
from olmo.data.records import EVAL_MC, MC, OE, DatasetRow, Record, multiple_choice
from olmo.data.sources import ByHand, Hub, Url
from olmo.exceptions import OLMoDataError

# -- Paxion (ActionBench): what was done, its opposite, or neither can be told

PAXION_QUESTIONS = (
    "Which action does the video show?",
    "Which description fits what happens in the video?",
    "What is being done in the video?",
)
PAXION_UNSURE = "Not sure"
PAXION_SSV2 = "ActionBench/ssv2/shuffled_object_and_action_antonyms"
PAXION_EGO4D = "ActionBench/ego4d/egoclip_subset_action_antonyms_train_val_test_split"
PAXION_SSV2_KEYS = ("rel_vid_path", "label", "label_action_antonym_clip_text")
PAXION_EGO4D_KEYS = ("video_uid", "clip_start", "clip_end", "clip_text", "action_antonym_clip_text")
EGO4D_VIDEOS = "../ego4d/v2/full_scale"
"""Where Ego4D's own tool puts them, beside the folder of Paxion."""
SSV2_SPLITS = {"train": "train", "val": "validation"}
"""Something-Something has no test split with labels."""


def _paxion_files(split: str) -> list[str]:
    ego4d = f"{PAXION_EGO4D}/{split}.jsonl"
    return [f"{PAXION_SSV2}/{SSV2_SPLITS[split]}.json", ego4d] if split in SSV2_SPLITS else [ego4d]


def _paxion_records(folder: Path, split: str) -> Iterator[Record]:
    *ssv2, ego4d = _paxion_files(split)
    for file in ssv2:
        for entry in having(read_json_list(folder / file), *PAXION_SSV2_KEYS):
            yield {
                "video": entry.need("rel_vid_path", str),
                "options": [entry.need("label", str), entry.need("label_action_antonym_clip_text", str), PAXION_UNSURE],
            }
    for entry in having(read_jsonl(folder / ego4d), *PAXION_EGO4D_KEYS):
        start, end = entry.need("clip_start", float), entry.need("clip_end", float)
        if not 0 <= start < end:
            raise OLMoDataError(f"{entry.where}: 'clip_start' and 'clip_end' should be seconds in this order, but are {start} and {end}")
        yield {
            "video": f"{EGO4D_VIDEOS}/{entry.need('video_uid', str)}.mp4",
            "clip": [start, end],
            "options": [entry.need("clip_text", str), entry.need("action_antonym_clip_text", str), PAXION_UNSURE],
        }


def _paxion_example(record: Record, rng: np.random.Generator) -> Example:
    """The right option comes first in the record."""
    order = rng.permutation(len(record["options"])).tolist()
    options = [record["options"][i] for i in order]
    return in_context(record, [multiple_choice(one_of(PAXION_QUESTIONS, rng), options, order.index(0), record["video"])])


# -- LLaVA-Video-178K, the part from academic sets: conversations, options inside the text

LLAVA_PARTS = {
    MC: ("nextqa 0_30_s 30_60_s 1_2_m 2_3_m", "perceptiontest 0_30_s 30_60_s"),
    OE: ("nextqa 0_30_s 30_60_s 1_2_m 2_3_m", "activitynetqa 0_30_s 30_60_s 1_2_m 2_3_m"),
}
"""Style -> source, and lengths of its videos; a folder is named after both."""


def _llava_files(style: str) -> list[str]:
    kind = {MC: "mc", OE: "oe"}[style]
    parts = [part.split() for part in LLAVA_PARTS[style]]
    return [f"{length}_{source}/*{kind}*.json" for source, *lengths in parts for length in lengths]


def _llava_records(style: str):
    def records(folder: Path, split: str) -> Iterator[Record]:
        for pattern in _llava_files(style):
            for entry in read_json_list(min(folder.glob(pattern))):
                source = entry.need("data_source", str)
                yield {
                    "video": f"{source}/{entry.need('video', str)}",
                    "questions": _llava_turns(entry),
                    "metadata": {"example_id": entry.need("id", str), "prefix": source},
                }

    return records


def _llava_turns(entry: Entry) -> list[dict[str, str]]:
    """Questions and answers of a conversation; each pair stands for itself."""
    turns = entry.need("conversations", list)
    speakers = [turn.need("from", str) for turn in turns]
    if not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
        raise OLMoDataError(f"{entry.where}: 'conversations' should be turns of human and gpt, one after the other, not {speakers}")
    texts = [turn.need("value", str) for turn in turns]
    return [{"question": q.removeprefix("<image>\n"), "answer": a} for q, a in zip(texts[::2], texts[1::2], strict=True)]


def _llava_example(record: Record, rng: np.random.Generator, style: str) -> Example:
    return in_context(record, [{**question, "style": style} for question in record["questions"]])


def _llava_row(name: str, title: str, style: str) -> DatasetRow:
    folders = [pattern.partition("/")[0] for pattern in _llava_files(style)]
    return DatasetRow(
        name=name,
        title=title,
        folder="LLaVA-Video-178K",
        sources=(Hub("lmms-lab/LLaVA-Video-178K", patterns=tuple(f"{f}/*" for f in folders), unpack=("*.tar.gz",)),),
        style=style,
        records=_llava_records(style),
        example=partial(_llava_example, style=style),
        files=lambda split: _llava_files(style),
    )


# -- PerceptionTest: one large file of annotations to train on, tables of questions to evaluate

PERCEPTION_TRAIN = "all_train.json"
PERCEPTION_TABLES = {
    "validation": ("mc_question_val/validation-00000-of-00001.parquet", "videos"),
    "test": ("Test/mc_question/*.parquet", "Test/videos"),
}
"""Split -> its questions and its videos."""


def _perception_files(split: str) -> list[str]:
    return [PERCEPTION_TRAIN if split == "train" else PERCEPTION_TABLES[split][0]]


def _perception_records(folder: Path, split: str) -> Iterator[Record]:
    return _perception_train(folder / PERCEPTION_TRAIN) if split == "train" else _perception_eval(folder, split)


def _perception_train(file: Path) -> Iterator[Record]:
    """All questions on a video are one example; videos without any are left out."""
    videos = read_json(file)
    if not isinstance(videos, Entry):
        raise OLMoDataError(f"{file} should be a mapping of videos")
    for name in videos:
        questions = [
            choice(q, q.need("question", str), q.texts("options"), q.need("answer_id", int))
            for q in videos.need(name, dict).optional("mc_question", list, [])
        ]
        if questions:
            yield {"video": f"train_videos/{name}.mp4", "questions": questions}


def _perception_eval(folder: Path, split: str) -> Iterator[Record]:
    """One question is one example. The answers of the test split are not published."""
    pattern, videos = PERCEPTION_TABLES[split]
    for entry in read_parquet(one_file(folder, pattern)):
        video = entry.need("video_name", str)
        answer = None if split == "test" else entry.need("answer_id", int)
        yield {
            "video": f"{videos}/{video}.mp4",
            "question": choice(entry, entry.need("question", str), entry.texts("options"), answer),
            "metadata": {
                "question_id": entry.need("question_id", str),
                "video_id": video,
                **({} if answer is None else {"answer_idx": answer}),
                "area": entry.need("area", str),
                "reasoning": entry.need("reasoning", str),
            },
        }


# -- NExT-QA: tables of five options


NEXTQA_TEST = "MC/test-00000-of-00001.parquet"
NEXTQA_VIDEOS = "map_vid_vidorID.json"


def _nextqa_files(split: str) -> list[str]:
    return [NEXTQA_TEST] if split == "test" else [f"{split}.csv", NEXTQA_VIDEOS]


def _nextqa_records(folder: Path, split: str) -> Iterator[Record]:
    return _nextqa_eval(folder) if split == "test" else _nextqa_train(folder, split)


def _nextqa_train(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a video are one example."""
    paths = read_json(folder / NEXTQA_VIDEOS)
    if not isinstance(paths, Entry):
        raise OLMoDataError(f"{folder / NEXTQA_VIDEOS} should be a mapping from NExT-QA's numbers to VidOR's")
    by_video = grouped((_nextqa_path(entry, paths), _nextqa_question(entry)) for entry in read_csv(folder / f"{split}.csv"))
    for path, questions in by_video.items():
        yield {"video": f"NExTVideo-all-videos/{path}.mp4", "questions": questions}


def _nextqa_path(entry: Entry, paths: Entry) -> str:
    if (number := entry.need("video", str)) not in paths:
        raise OLMoDataError(f"{entry.where}: the video {number} is not in {NEXTQA_VIDEOS}")
    return paths.need(number, str)


def _nextqa_question(entry: Entry) -> dict[str, Any]:
    return choice(entry, entry.need("question", str), numbered_options(entry, 5), entry.need("answer", int))


def _nextqa_eval(folder: Path) -> Iterator[Record]:
    """One question is one example."""
    for entry in read_parquet(folder / NEXTQA_TEST):
        video, question_id = entry.need("video", int), entry.need("qid", int)
        question = _nextqa_question(entry)
        yield {
            "video": f"NExTVideo/{video}.mp4",
            "question": question,
            "metadata": {
                "example_id": f"{video}_{question_id}",
                "question_id": question_id,
                "question_type": entry.need("type", str),
                "video_id": video,
                "options": question["options"],
            },
        }


def _trained_or_evaluated(record: Record, rng: np.random.Generator) -> Example:
    """All questions on a video as branches to train on; or one question, in the words of its benchmark."""
    if "questions" in record:
        return in_context(record, [asked(q) for q in record["questions"]])
    question = record["question"]
    example = {"video": record["video"], "question": worded(question["question"], lettered(question["options"]), LETTER_DIRECTLY)}
    if question["answer"] is not None:
        example["answer"] = letter(question["answer"])
    return example | {"style": EVAL_MC, "metadata": dict(record["metadata"])}


ROWS = (
    DatasetRow(
        name="paxion",
        title="Paxion",
        folder="Paxion",
        sources=(
            Hub("allenai/Molmo2-Paxion"),
            ByHand("the videos of Something-Something v2, from developer.qualcomm.com (rel_vid_path in the annotations)"),
            ByHand("the full videos of Ego4D, from ego4d-data.org (licence needed)", EGO4D_VIDEOS),
        ),
        style=MC,
        records=_paxion_records,
        example=_paxion_example,
        files=_paxion_files,
        splits=("train", "val", "test"),
        inferred="names of its files on the hub, places of the Something-Something videos",
    ),
    _llava_row("llava_video_mc_academic", "LLaVA-Video-178K, multiple choice", MC),
    _llava_row("llava_video_oe_academic", "LLaVA-Video-178K, open", OE),
    DatasetRow(
        name="perception_test",
        title="PerceptionTest",
        folder="perception_test",
        sources=(
            Url("https://storage.googleapis.com/dm-perception-test/zip_data/train_annotations.zip", unpack=True),
            Url("https://storage.googleapis.com/dm-perception-test/zip_data/train_videos.zip", into="train_videos", unpack=True),
            Hub("lmms-lab/PerceptionTest_Val", patterns=("mc_question_val/*", "videos_chunked_*.zip"), unpack=("videos_chunked_*.zip",)),
            Hub("lmms-lab/PerceptionTest", into="Test", unpack=("*.zip",)),
        ),
        style=f"{MC} (train), {EVAL_MC} (eval)",
        records=_perception_records,
        example=_trained_or_evaluated,
        files=_perception_files,
        splits=("train", "validation", "test"),
        licence="CC BY 4.0 (README of github.com/google-deepmind/perception_test)",
        counts={"validation": 19140},  # dataset card of lmms-lab/PerceptionTest_Val
    ),
    DatasetRow(
        name="nextqa_mc",
        title="NExT-QA",
        folder="NeXTQA",
        sources=(
            Url("https://raw.githubusercontent.com/doc-doc/NExT-QA/HEAD/dataset/nextqa/train.csv"),
            Url("https://raw.githubusercontent.com/doc-doc/NExT-QA/HEAD/dataset/nextqa/val.csv"),
            Url("https://raw.githubusercontent.com/doc-doc/NExT-QA/HEAD/dataset/nextqa/map_vid_vidorID.json"),
            ByHand("the videos of VidOR, from xdshang.github.io/docs/vidor.html", "NExTVideo-all-videos"),
            Hub("lmms-lab/NExTQA", patterns=("MC/*", "*.zip"), unpack=("*.zip",)),
        ),
        style=f"{MC} (train), {EVAL_MC} (eval)",
        records=_nextqa_records,
        example=_trained_or_evaluated,
        files=_nextqa_files,
        splits=("train", "val", "test"),
    ),
)
