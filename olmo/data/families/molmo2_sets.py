"""Molmo2's own sets: questions and captions made from captions, subtitles and people."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, read_parquet
from olmo.data.dataset import Example
from olmo.data.families.common import LeftOut, fixed_example, inserted_choice
from olmo.data.families.questions import grouped
from olmo.data.families.video_files import videos_below, with_videos
from olmo.data.records import MC, DatasetRow, Record
from olmo.data.sources import ByHand, Hub
from olmo.exceptions import OLMoDataError

FOLDER = "youtube-cc"
"""Videos lie in {part}/{video}/ below it, the tables of each set in a folder of their own."""

VIDEOS = ByHand("the YouTube videos that the dataset card lists, each in a folder {part}/{video}/")


INFERRED = "names of its tables on the hub"


def _with_videos(records: Iterable[tuple[str, Record]], folder: Path) -> Iterator[Record]:
    return with_videos(records, videos_below(folder, "", lambda path: path.parent.name), folder)


def _rows(folder: Path, pattern: str, columns: list[str]) -> Iterator[Entry]:
    for path in sorted(folder.glob(pattern)):
        yield from read_parquet(path, columns)


# -- multiple choice from captions, or from captions and subtitles

CAPTION_QA = "VideoCapQA/**/CapQA*.parquet"
SUBTITLE_QA = "VideoSubtitleQA/**/SubtitleQA*.parquet"
_QA_COLUMNS = ["video_id", "Question", "Answer", "NegativeAnswers", "Category"]


def _caption_qa_records(folder: Path, split: str) -> Iterator[Record]:
    left_out = LeftOut()
    questions = grouped(_caption_questions(_rows(folder, CAPTION_QA, _QA_COLUMNS), left_out))
    yield from _with_videos(((video, {"id": video, "questions": asked}) for video, asked in questions.items()), folder)
    left_out.tell()


def _caption_questions(rows: Iterable[Entry], left_out: LeftOut) -> Iterator[tuple[str, dict]]:
    for entry in rows:
        answer = entry.need("Answer", str)
        if wrong := left_out.wrong_answers(entry, answer):
            category = entry.optional("Category", str)
            question = {"question": entry.need("Question", str), "answer": answer, "wrong": wrong, "category": category}
            yield entry.need("video_id", str), question


def _subtitle_qa_records(folder: Path, split: str) -> Iterator[Record]:
    """What is said stands beside every question on a video; it is kept once."""
    left_out = LeftOut()
    subtitles: dict[str, list] = {}
    questions = grouped(_caption_questions(_noting_subtitles(folder, subtitles), left_out))
    records = ((video, {"id": video, "questions": asked, "subtitle": subtitles[video]}) for video, asked in questions.items())
    yield from _with_videos(records, folder)
    left_out.tell()


def _noting_subtitles(folder: Path, subtitles: dict[str, list]) -> Iterator[Entry]:
    for entry in _rows(folder, SUBTITLE_QA, [*_QA_COLUMNS, "subtitle"]):
        video = entry.need("video_id", str)
        if video not in subtitles:
            lines = entry.entries("subtitle")
            subtitles[video] = [[x.need("start", float), x.need("end", float), x.need("text", str)] for x in lines]
        yield entry


def _choices_example(record: Record, rng: np.random.Generator) -> Example:
    messages = [
        inserted_choice(q, rng, record["video"], **({} if q["category"] is None else {"category": q["category"]}))
        for q in record["questions"]
    ]
    example = {"video": record["video"], "message_list": messages, "metadata": {"example_id": record["id"]}}
    if "subtitle" in record:
        example["subtitle"] = {(start, end): text for start, end, text in record["subtitle"]}
    return example


# -- questions that people have asked and answered

HUMAN_QA = "AskModelAnything/**/HumanQA*.parquet"


def _human_qa_records(folder: Path, split: str) -> Iterator[Record]:
    pairs = (
        (e.need("video_id", str), {"question": e.need("question", str), "answer": e.need("answer", str), "style": "user_qa"})
        for e in _rows(folder, HUMAN_QA, ["video_id", "question", "answer"])
    )
    return _with_videos(((video, {"messages": messages}) for video, messages in grouped(pairs).items()), folder)


# -- captions that people have spoken, and what was merged from them

CAPTION_STYLES = {
    "video_caption": "video_short_caption",
    "merged_caption": "video_merged_caption",
    "video_frame_merged_caption": "video_long_caption",
}
"""Column -> style; a video may lack one or the other."""

LEAST_SCORE = 3
"""Captions that were scored lower are not used."""


def _captions_pattern(split: str) -> str:
    return f"Cap/**/{split}*.parquet"


def _captions_records(folder: Path, split: str) -> Iterator[Record]:
    return _with_videos(_captions(_rows(folder, _captions_pattern(split), ["video_id", "annotation_score", *CAPTION_STYLES])), folder)


def _captions(rows: Iterable[Entry]) -> Iterator[tuple[str, Record]]:
    for entry in rows:
        if entry.need("annotation_score", float) < LEAST_SCORE:
            continue
        texts = {style: entry.optional(column, str, "").strip() for column, style in CAPTION_STYLES.items()}
        messages = [{"text": text, "style": style} for style, text in texts.items() if text]
        if not messages:
            raise OLMoDataError(f"{entry.where}: has no caption; one of {', '.join(CAPTION_STYLES)} should be there")
        yield entry.need("video_id", str), {"messages": messages}


ROWS = (
    DatasetRow(
        name="molmo2_syn_captions_qa",
        title="Molmo2 synthetic caption QA",
        folder=FOLDER,
        sources=(Hub("allenai/Molmo2-VideoCapQA", into="VideoCapQA"), VIDEOS),
        style=MC,
        records=_caption_qa_records,
        example=_choices_example,
        files=lambda split: [CAPTION_QA, "*/"],
        inferred=INFERRED,
    ),
    DatasetRow(
        name="molmo2_syn_captions_subtitle_qa",
        title="Molmo2 synthetic subtitle QA",
        folder=FOLDER,
        sources=(Hub("allenai/Molmo2-VideoSubtitleQA", into="VideoSubtitleQA"), VIDEOS),
        style=MC,
        records=_subtitle_qa_records,
        example=_choices_example,
        files=lambda split: [SUBTITLE_QA, "*/"],
        licence="ODC-BY (dataset card of allenai/Molmo2-VideoSubtitleQA)",
        inferred=INFERRED,
    ),
    DatasetRow(
        name="molmo2_human_qa",
        title="Molmo2 questions and answers by people",
        folder=FOLDER,
        sources=(Hub("allenai/Molmo2-AskModelAnything", into="AskModelAnything"), VIDEOS),
        style="user_qa",
        records=_human_qa_records,
        example=fixed_example,
        files=lambda split: [HUMAN_QA, "*/"],
        inferred=INFERRED,
    ),
    DatasetRow(
        name="molmo2_captions",
        title="Molmo2 captions",
        folder=FOLDER,
        sources=(Hub("allenai/Molmo2-Cap", into="Cap"), VIDEOS),
        style="+".join(CAPTION_STYLES.values()),
        records=_captions_records,
        example=fixed_example,
        files=lambda split: [_captions_pattern(split), "*/"],
        splits=("train", "val"),
        inferred=INFERRED,
    ),
)
