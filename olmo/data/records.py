"""What a family of data sets is made of: rows of the catalogue, and the messages that their readers build.

A reader is two functions. `records` goes through the annotation files once, when the index is built, and yields what each
example needs as plain JSON. `example` turns one such record into a raw example, again and again, with every random choice
taken from the generator it is given. So nothing but an index is in memory, and an example depends on nothing else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.dataset import Example
from olmo.data.sources import Source
from olmo.exceptions import OLMoDataError

Record = dict[str, Any]
"""JSON of one example. `video`: path below the data set's folder; `clip`: [start, end] seconds of it, if not all; the rest is the
reader's own."""

MC, OE = "video_multiple_choice", "video_short_answer"
MC_SUBTITLE = f"{MC}_w_subtitle"
EVAL_MC, EVAL_MC_SUBTITLE = "video_eval_multiple_choice", "video_eval_multiple_choice_w_subtitle"


@dataclass(frozen=True)
class DatasetRow:
    """One data set of the catalogue."""

    name: str
    title: str
    folder: str
    """Below the folder of video data sets (MOLMO_DATA_DIR/video_datasets)."""
    sources: tuple[Source, ...]
    style: str
    """Style of its messages (an example may mix several, joined by +)."""
    records: Callable[[Path, str], Iterator[Record]]
    """(folder, split) -> the records, in the order of the files."""
    example: Callable[[Record, np.random.Generator], Example]
    """A record -> a raw example whose `video` is still relative to the folder."""
    files: Callable[[str], Sequence[str]]
    """Split -> annotation files that `records` reads, below the folder; patterns with * are allowed."""
    splits: tuple[str, ...] = ("train",)
    licence: str = "not stated here, see the home page of the set"
    """What its publisher says about use, and the document that says so."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Split -> examples, where a document of the publisher states their number; the row names that document."""
    inferred: str = ""
    """What of its files nobody has seen who wrote its reader: it follows from descriptions, and may be otherwise."""

    @property
    def source(self) -> str:
        """Where its files come from, as a sentence."""
        return "; ".join(map(str, self.sources))

    @property
    def caution(self) -> str:
        """What a user should know about the layout of its files, as a sentence; empty where it is documented."""
        if not self.inferred:
            return ""
        return f"layout inferred from the paper ({self.inferred}): check the first download with data_doctor"


# -- messages


def open_ended(question: str, answer: str, style: str = OE, **more: Any) -> dict[str, Any]:
    """A question with a text as answer."""
    return {"question": question, "answer": answer, "style": style, **more}


def multiple_choice(question: str, options: Sequence[str], answer: int, where: str, style: str = MC, **more: Any) -> dict[str, Any]:
    """A question with options, of which number `answer` (from 0) is right. `where`: how an error names the annotation."""
    if not 0 <= answer < len(options):
        raise OLMoDataError(f"{where}: the answer is option {answer}, but there are {len(options)} options, counted from 0")
    return {"question": question, "options": list(options), "answer_idx": answer, "style": style, **more}


def with_clip(metadata: Mapping[str, Any], clip: Sequence[float] | None) -> dict[str, Any]:
    """The metadata of an example, with the part of the video that it is about."""
    return dict(metadata) if clip is None else {**metadata, "clip_start_time": clip[0], "clip_end_time": clip[1]}


def insert_option(wrong: Sequence[str], right: str, rng: np.random.Generator) -> tuple[list[str], int]:
    """All options with the right one at a random place, and that place."""
    place = int(rng.integers(len(wrong) + 1))
    return [*wrong[:place], right, *wrong[place:]], place


def split_evenly(items: Sequence[Any], most: int) -> list[list[Any]]:
    """The fewest groups of at most `most` items, whose sizes differ by at most one; larger ones first."""
    groups = -(-len(items) // most)
    sizes = [len(items) // groups + (g < len(items) % groups) for g in range(groups)]
    starts = np.cumsum([0, *sizes]).tolist()
    return [list(items[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
