"""Asking a model that is in use elsewhere: one that is being trained, and may be sharded over the ranks.

Every rank of a sharded model has to run it as often as the others, however many of its videos can be read. So the questions are dealt
out evenly, all are prepared before the first is asked, and a rank that has less to ask repeats an example whose answer it drops.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from olmo.distributed import World, gather_objects, on_all_ranks
from olmo.eval.questions import Question, QuestionBatch, nothing_shown, what_is_shown
from olmo.eval.runner import with_answers
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError, first_line
from olmo.inference.api import ExampleReader
from olmo.inference.generation import generate
from olmo.models.model import ModelBase
from olmo.preprocessing.example import ProcessedExample

Prepared = tuple[dict[str, Any], ProcessedExample]
"""The record of a question and what the model gets."""


def ask_live(
    model: ModelBase,
    reader: ExampleReader,
    questions: Sequence[Question],
    world: World,
    *,
    batch_size: int,
    max_new_tokens: int,
    autocast: torch.dtype | None = None,
) -> list[dict[str, Any]]:
    """The records of all questions with their answers, on every rank, in the order of the questions.

    Nothing of the model changes: neither its mode nor its weights nor who holds them.
    """
    good, failed = on_all_ranks(lambda: prepare(share(questions, world), reader), _cannot_prepare)
    answered = _answer(model, reader, good, world, batch_size, max_new_tokens, autocast)
    records = [record for part in gather_objects([*answered, *failed]) for record in part]
    return sorted(records, key=lambda record: record["order"])


def share(questions: Sequence[Question], world: World) -> Sequence[Question]:
    """Consecutive questions, as many as every other rank has, give or take one: those about one video stay together."""
    first, last = (len(questions) * rank // world.size for rank in (world.rank, world.rank + 1))
    return questions[first:last]


def prepare(questions: Sequence[Question], reader: ExampleReader) -> tuple[list[Prepared], list[dict[str, Any]]]:
    """(what can be asked, finished records of what cannot)."""
    good, failed = [], []
    for question in questions:
        try:
            example = reader.read(question.example)
        except OLMoDataError as err:
            failed.append(question.record | nothing_shown(err))
        else:
            good.append((question.record | what_is_shown(example, reader), example))
    return good, failed


def _cannot_prepare(err: BaseException) -> OLMoEnvironmentError:
    return OLMoEnvironmentError(f"cannot prepare the questions of the evaluation: {type(err).__name__}: {first_line(err)}")


def _answer(
    model: ModelBase,
    reader: ExampleReader,
    good: Sequence[Prepared],
    world: World,
    batch_size: int,
    max_new_tokens: int,
    autocast: torch.dtype | None,
) -> list[dict[str, Any]]:
    counts = gather_objects(len(good))
    spare = _spare(good, counts, world)
    group = dist.group.WORLD if world.size > 1 else None
    found: list[dict[str, Any]] = []
    for start in range(0, max(counts), batch_size):
        mine = good[start : start + batch_size]
        records, examples = [record for record, _ in mine], [example for _, example in mine] or [spare]
        batch = reader.collate(examples)
        with torch.autocast(world.device.type, autocast) if autocast is not None else nullcontext():
            output = generate(
                model, batch.to(world.device), max_new_tokens, reader.tokenizer.eos_token_id, process_group=group, capture=False
            )
        if records:
            texts = [reader.tokenizer.decode(ids).strip() for ids in output.token_ids]
            found += with_answers(QuestionBatch(batch, records), output, texts)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # without a backward pass some would stay whole
            module.reshard()
    return found


def _spare(good: Sequence[Prepared], counts: Sequence[int], world: World) -> ProcessedExample | None:
    """What a rank asks again when it has nothing left: an example of its own, or where any rank has none that of another."""
    if min(counts) or not max(counts):
        return good[0][1] if good else None
    giver = next(rank for rank, count in enumerate(counts) if count)
    return gather_objects(good[0][1] if world.rank == giver else None)[giver]
