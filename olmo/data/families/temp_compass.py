"""TempCompass: four forms of question about actions, changes, directions, orders and speeds.

No reader of it is published. What is asked follows its own files and the standard form of multiple choice; the metadata is what
its evaluator looks at: `task`, `temporal_aspect`, `question` and `answer`, and for captions a question to judge them by.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from olmo.data.annotations import Entry, having
from olmo.data.families.asking import benchmark_example, lettered, number_of_letter, number_of_text, parquet_rows, split_options
from olmo.data.records import EVAL_MC, OE, DatasetRow, Record
from olmo.data.sources import Hub
from olmo.exceptions import OLMoDataError

MULTIPLE_CHOICE, YES_NO, MATCHING, CAPTIONING = FORMS = ("multi-choice", "yes_no", "caption_matching", "captioning")
ASPECTS = ("action", "attribute_change", "direction", "order", "speed")
CAPTION_STYLE = "user_qa"
"""A request in the words of its file, without a prefix."""

_SENTENCE = re.compile(r"(?:Option|Caption|Sentence) \w+: (.*)")


def _file(form: str) -> str:
    return f"{form}/test-*.parquet"


def _files(split: str, forms: tuple[str, ...]) -> list[str]:
    return [_file(form) for form in forms]


def _records(folder: Path, split: str, forms: tuple[str, ...]) -> Iterator[Record]:
    for form in forms:
        for number, entry in enumerate(having(parquet_rows(folder, _file(form)), *_columns(form))):
            aspect, video = entry.need("dim", str), entry.need("video_id", str)
            if aspect not in ASPECTS:
                raise OLMoDataError(f"{entry.where}: 'dim' should be one of {', '.join(ASPECTS)}, but is '{aspect}'")
            asked, metadata = _FORMS[form](entry)
            metadata = {"example_id": f"{form}_{number}", "video_id": video, "task": form, "temporal_aspect": aspect, **metadata}
            yield {"video": f"videos/{video}.mp4", **asked, "metadata": metadata}


def _columns(form: str) -> tuple[str, ...]:
    return ("dim", "video_id", "question", "answer") + (("mc_question", "mc_answer") if form == CAPTIONING else ())


def _choice(entry: Entry) -> tuple[Record, Record]:
    question, options = split_options(entry.need("question", str), entry.where)
    return _with_options(question, options, number_of_letter(entry, "answer", len(options)))


def _matching(entry: Entry) -> tuple[Record, Record]:
    """Its options are named in many ways ("Option 1", "Caption A"); they get letters like all others."""
    question, *lines = entry.need("question", str).split("\n")
    found = [_SENTENCE.fullmatch(line) for line in lines]
    if len(found) < 2 or None in found:
        raise OLMoDataError(f"{entry.where}: its question should have lines such as 'Option 1: ...' below it, but is '{question[:60]}'")
    return _with_options(question, [match[1] for match in found], number_of_text(entry, "answer", lines))


def _with_options(question: str, options: list[str], number: int) -> tuple[Record, Record]:
    lines = lettered(options)
    asked = {"question": question, "options": options, "answer_idx": number, "style": EVAL_MC}
    return asked, {"question": "\n".join([question, *lines]), "answer": lines[number]}


def _yes_no(entry: Entry) -> tuple[Record, Record]:
    question, answer = entry.need("question", str), entry.need("answer", str)
    if answer not in ("yes", "no"):
        raise OLMoDataError(f"{entry.where}: 'answer' should be yes or no, but is '{answer[:60]}'")
    told = {"question": question, "answer": answer}
    return told | {"style": OE}, told


def _captioning(entry: Entry) -> tuple[Record, Record]:
    told = {"question": entry.need("question", str), "answer": entry.need("answer", str)}
    judged = {"mc_question": entry.need("mc_question", str), "mc_answer": entry.need("mc_answer", str)}
    return told | {"style": CAPTION_STYLE}, told | judged


_FORMS = {MULTIPLE_CHOICE: _choice, YES_NO: _yes_no, MATCHING: _matching, CAPTIONING: _captioning}


def _row(name: str, title: str, forms: tuple[str, ...]) -> DatasetRow:
    return DatasetRow(
        name=name,
        title=title,
        folder="TempCompass",
        sources=(Hub("lmms-lab/TempCompass", unpack=("*.zip",)),),
        style="+".join(dict.fromkeys({YES_NO: OE, CAPTIONING: CAPTION_STYLE}.get(form, EVAL_MC) for form in forms)),
        records=partial(_records, forms=forms),
        example=partial(benchmark_example, style=EVAL_MC),
        files=partial(_files, forms=forms),
        splits=("validation",),
        inferred="the column dim of its tables",
    )


ROWS = (
    _row("temp_compass", "TempCompass", FORMS),
    _row("temp_compass_internal", "TempCompass without captions", FORMS[:3]),
    *(_row(f"temp_compass_{form}", f"TempCompass, {form}", (form,)) for form in FORMS),
)
