"""The questions of a data set, one by one: which there are, who asks them, and as batches ready for the model.

A data set may hold several questions about one video. Training shares the video among them; an evaluation asks each on
its own, but one after another, so that the video is decoded once.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from olmo.batch import Batch, MultimodalType, VisualSegment
from olmo.data.failures import cause_and_file
from olmo.eval.prompt_text import prompt_text
from olmo.eval.statistics.clusters import cluster_of
from olmo.exceptions import OLMoDataError
from olmo.inference.api import ExampleReader
from olmo.preprocessing.example import ProcessedExample

MAX_MESSAGES = 1000
"""Most questions of one example (numbers the questions of a data set)."""
SHUFFLE_SEED = 691203
"""Order in which examples are taken when only some are asked for."""


@dataclass(frozen=True)
class Question:
    """One question, before anything is decoded."""

    order: int
    """Place in the data set."""
    example: dict[str, Any]
    """What the preprocessor gets."""
    record: dict[str, Any]
    """What the prediction file tells about it: id, type, text, truth, chance."""


@dataclass
class QuestionBatch:
    """Questions that go through the model together."""

    batch: Batch | None
    """None when no video of it could be read."""
    records: list[dict[str, Any]]
    """One per row, with what the model is shown."""
    failed: list[dict[str, Any]] = field(default_factory=list)
    """One finished record per question whose video or annotation cannot be read: its answer is empty."""
    failures: list[OLMoDataError] = field(default_factory=list)
    """Why, in the order of `failed`."""
    seconds: float = 0.0
    """Decoding and preprocessing."""


def list_questions(dataset, max_examples: int | None = None) -> list[Question]:
    """Every question of a data set, or `max_examples` of them: from examples drawn without looking, but always the same."""
    indices = np.arange(len(dataset))
    if max_examples is not None:
        np.random.default_rng(SHUFFLE_SEED).shuffle(indices)
    questions: list[Question] = []
    for index in indices.tolist():
        if max_examples is not None and len(questions) >= max_examples:
            break
        questions += split_example(dataset.get(index, np.random.default_rng(0)), index)
    questions = questions if max_examples is None else questions[:max_examples]
    return _told_apart(sorted(questions, key=lambda q: q.order))


def _told_apart(questions: Sequence[Question]) -> list[Question]:
    """Published ids are not always unique; answers are found again by them, so one that occurs again gets its place behind it."""
    seen: set[str] = set()
    found = []
    for question in questions:
        name = question.record["example_id"]
        if name in seen:
            question = replace(question, record=question.record | {"example_id": f"{name}#{question.order}"})
        seen.add(name)
        found.append(question)
    return found


def split_example(example: dict[str, Any], index: int) -> list[Question]:
    """The questions of one example of a data set, each an example of its own."""
    shared = {k: v for k, v in example.items() if k not in ("message_list", "metadata")}
    metadata = example.get("metadata", {})
    messages = example.get("message_list")
    rows = messages if messages is not None else [{}]
    assert len(rows) <= MAX_MESSAGES, f"example {index} has {len(rows)} questions"
    questions = []
    for k, message in enumerate(rows):
        own = metadata | message.get("metadata", {})
        asked = shared | {n: v for n, v in message.items() if n != "metadata"} | ({"metadata": own} if own else {})
        record = {
            "example_id": str(own.get("example_id", index)) + (f"/{k}" if messages is not None else ""),
            "order": MAX_MESSAGES * index + k,
            "video": str(example.get("video", example.get("image", ""))),
            "question_type": own.get("question_type", "all"),
            **_asked_and_true(asked),
            "chance": 1 / len(options) if (options := own.get("options") or asked.get("options")) else None,
            "metadata": as_json(own),
        }
        questions.append(Question(record["order"], asked, record))
    return questions


def _asked_and_true(asked: dict[str, Any]) -> dict[str, Any]:
    """What a record tells about the question and the right answer; of a conversation of several turns the last is asked."""
    if "messages" in asked:
        *_, question, answer = asked["messages"]
        return {"question": question, "answer": answer}
    told = {"question": asked.get("question", "")}
    if "options" in asked:
        told["options"] = asked["options"]
    if asked.get("answer_idx") is None:
        return told | {"answer": asked.get("answers", asked.get("answer"))}
    return told | {"answer": asked["options"][asked["answer_idx"]], "answer_idx": asked["answer_idx"]}


def as_json(value: Any) -> Any:
    """What a file in JSON gives back: arrays as lists, names of entries as text."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise TypeError(f"metadata of type {type(value).__name__} cannot be written as JSON")


def share_of(questions: Sequence[Question], rank: int, world_size: int) -> list[Question]:
    """The questions of one rank. All questions of a video go to the same rank."""
    videos = {v: i for i, v in enumerate(dict.fromkeys(cluster_of(q.record) for q in questions))}
    return [q for q in questions if videos[cluster_of(q.record)] % world_size == rank]


class QuestionBatches(torch.utils.data.Dataset):
    """Batches of consecutive questions, prepared in this process or in workers."""

    def __init__(self, questions: Sequence[Question], reader: ExampleReader, batch_size: int) -> None:
        self.chunks = [questions[i : i + batch_size] for i in range(0, len(questions), batch_size)]
        self.reader = reader

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> QuestionBatch:
        start = time.perf_counter()
        examples, records, failed, failures = [], [], [], []
        for question in self.chunks[index]:
            try:
                prepared = self.reader.read(question.example)
            except OLMoDataError as err:
                failed.append(question.record | nothing_shown(err))
                failures.append(err)
                continue
            examples.append(prepared)
            records.append(question.record | what_is_shown(prepared, self.reader))
        batch = self.reader.collate(examples) if examples else None
        return QuestionBatch(batch, records, failed, failures, time.perf_counter() - start)

    def iterate(self, num_workers: int) -> Iterator[QuestionBatch]:
        """All batches in order."""
        if num_workers == 0:
            yield from (self[i] for i in range(len(self)))
            return
        loader = torch.utils.data.DataLoader(self, batch_size=None, num_workers=num_workers, prefetch_factor=2)
        yield from loader


def what_is_shown(prepared: ProcessedExample, reader: ExampleReader) -> dict[str, Any]:
    """The prompt as text, the seconds of the frames, and how many visual tokens there are before and after pruning."""
    visual = prepared.num_pooled
    return {
        "prompt": prompt_text(prepared.input_tokens, reader.tokenizer),
        "frame_times": prepared.metadata.get("frame_times", []),
        "visual_before": visual + prepared.num_spared,
        "visual_after": visual - prepared.dropped_cells,
    }


def nothing_shown(err: OLMoDataError) -> dict[str, Any]:
    """What a record tells about a question that the model was never asked, and why."""
    cause, file = cause_and_file(err)
    return {
        "prompt": "",
        "frame_times": [],
        "kept": [],
        **dict.fromkeys(("visual_before", "visual_after", "tokens_before", "tokens_after"), 0),
        "prediction": "",
        "failed": {"file": file, "cause": cause, "message": str(err)},
    }


def kept_per_frame(segments: Sequence[VisualSegment], keep: np.ndarray | None) -> list[int]:
    """Visual tokens that are left of every frame of the videos of one row; `keep` [P] over its cells, None = all of them.

    Images have no cells per frame and are never pruned: they are not counted.
    """
    cells = [n for segment in segments if segment.kind == MultimodalType.VIDEO for n in segment.frame_cells]
    if keep is None:
        return cells
    return [int(keep[end - n : end].sum()) for n, end in zip(cells, np.cumsum(cells, dtype=int), strict=True)]
