"""When something happens in a video: Ego4D's moments and language queries, QVHighlights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from olmo.data.annotations import Entry, read_json, read_jsonl, unique
from olmo.data.dataset import Example
from olmo.data.families.common import LeftOut, fixed_example, unanswered
from olmo.data.families.video_files import videos_below, with_videos
from olmo.data.records import OE, DatasetRow, Record, open_ended
from olmo.data.sources import ByHand, Url
from olmo.exceptions import OLMoDataError

Message = dict[str, Any]

# -- Ego4D: moments (events with a label) and natural language queries about the same clips. Times count from the start of a clip,
# and the videos are the clips that Ego4D cuts out, not the recordings that these come from

EGO4D_FILES = {
    "train": ("moments_train.json", "nlq_train.json"),
    "val": ("moments_val.json", "nlq_val.json"),
    "test": ("moments_test_unannotated.json", "nlq_test_unannotated.json"),
}
EGO4D = "v2"
EGO4D_STYLES = ("ego4d_mq_label_clip", "ego4d_mq_label_start_end", "ego4d_mq_temporal_grounding", "ego4d_nlq_temporal_grounding")
LABEL_CLIP, LABEL_START_END, FIND_EVENT, FIND_ANSWER = EGO4D_STYLES


def _ego4d_records(folder: Path, split: str) -> Iterator[Record]:
    """Every event as a part of its clip, then the clip with all questions about it. The test has queries without answers alone."""
    left_out = LeftOut()
    moments, queries = (folder / EGO4D / "annotations" / file for file in EGO4D_FILES[split])
    events = {} if split == "test" else _ego4d_events(moments, left_out)
    asked = _ego4d_queries(queries, left_out, answers=split != "test")
    for clip in [*events, *(c for c in asked if c not in events)]:
        video = f"{EGO4D}/clips/{clip}.mp4"
        for span, label in events.get(clip, []):
            yield {"video": video, "clip": list(span), "messages": [open_ended("Label the clip.", label, LABEL_CLIP)]}
        messages = [*_event_messages(events.get(clip, [])), *asked.get(clip, [])]
        if messages:
            yield {"video": video, "messages": messages}
    left_out.tell()


def _ego4d_clips(path: Path) -> Iterator[tuple[str, Entry]]:
    """(clip, one person's annotations of it)."""
    content = read_json(path)
    if not isinstance(content, Entry):
        raise OLMoDataError(f"{path} should be a mapping with the list 'videos'")
    for video in content.entries("videos"):
        for clip in video.entries("clips"):
            for annotation in clip.entries("annotations"):
                yield clip.need("clip_uid", str), annotation


def _ego4d_events(path: Path, left_out: LeftOut) -> dict[str, list[tuple[tuple[float, float], str]]]:
    """Clip -> (span, label) of its events by time; what several people have marked alike counts once.

    Labels that are not `primary` (those that too few people agree on) are no part of the task.
    """
    events: dict[str, set] = {}
    for clip, annotation in _ego4d_clips(path):
        found = events.setdefault(clip, set())
        for entry in annotation.entries("labels"):
            span = [entry.need("start_time", float), entry.need("end_time", float)]
            if entry.need("primary", bool) and left_out.unless_span(span, entry.where):
                found.add((tuple(span), entry.need("label", str)))
    return {clip: sorted(found) for clip, found in events.items()}


def _event_messages(events: list[tuple[tuple[float, float], str]]) -> list[Message]:
    spans: dict[str, list[str]] = {}
    messages = []
    for (start, end), label in events:
        spans.setdefault(label, []).append(f"{start:.2f} - {end:.2f}")
        messages.append(open_ended(f"Label the segment from {start:.2f} to {end:.2f}.", label, LABEL_START_END))
    for label, lines in spans.items():
        messages.append(open_ended(f"Localize the event {label} in the video.", "\n".join(lines), FIND_EVENT))
    return messages


def _ego4d_queries(path: Path, left_out: LeftOut, answers: bool) -> dict[str, list[Message]]:
    asked: dict[str, list[Message]] = {}
    for clip, annotation in _ego4d_clips(path):
        for entry in annotation.entries("language_queries"):
            query = entry.optional("query", str, "").strip()
            if not query:
                left_out.note("queries without words", entry.where)
            elif not answers:
                asked.setdefault(clip, []).append(unanswered(query, FIND_ANSWER))
            else:
                start, end = entry.need("clip_start_sec", float), entry.need("clip_end_sec", float)
                if left_out.unless_span([start, end], entry.where):
                    answer = f"Start: {start:.2f}, end: {end:.2f}"
                    asked.setdefault(clip, []).append(open_ended(query, answer, FIND_ANSWER))
    return asked


# -- QVHighlights: all segments that a query fits

QV_FILES = {"train": "highlight_train_release.jsonl", "validation": "highlight_val_release.jsonl"}
QV_MOST_WINDOWS = 5
QV_BEST_SCORE = 4
"""Highest score that an annotator can give to a clip of two seconds (`Very Good`)."""


def _qv_records(folder: Path, split: str) -> Iterator[Record]:
    return with_videos(_qv_queries(folder, split), videos_below(folder, ""), folder)


def _qv_queries(folder: Path, split: str) -> Iterator[tuple[str, Record]]:
    """Queries with more than five windows are left out, as published."""
    for entry in unique(read_jsonl(folder / QV_FILES[split]), "qid"):
        windows = [_qv_window(w, i, entry) for i, w in enumerate(entry.need("relevant_windows", list))]
        if not windows:
            raise OLMoDataError(f"{entry.where}: 'relevant_windows' is empty; there should be at least one window")
        if len(windows) > QV_MOST_WINDOWS:
            continue
        scores = entry.need("saliency_scores", list)
        metadata = {
            "example_id": entry["qid"],
            "relevant_windows": windows,
            "scaled_avg_scores": [_qv_score(s, i, entry) for i, s in enumerate(scores)],
        }
        yield entry.need("vid", str), {"query": entry.need("query", str), "metadata": metadata}


def _qv_window(window: Any, number: int, entry: Entry) -> list[float]:
    numbers = isinstance(window, list) and len(window) == 2 and all(isinstance(v, (int, float)) for v in window)
    if not numbers or not 0 <= window[0] < window[1]:
        raise OLMoDataError(f"{entry.where}: 'relevant_windows[{number}]' should be [start, end] in seconds, but is {window}")
    return window


def _qv_score(scores: Any, number: int, entry: Entry) -> float:
    """The mean of the annotators' scores of a clip, as a share of the highest."""
    numbers = isinstance(scores, list) and scores and all(isinstance(v, (int, float)) and 0 <= v <= QV_BEST_SCORE for v in scores)
    if not numbers:
        raise OLMoDataError(f"{entry.where}: 'saliency_scores[{number}]' should be scores from 0 to {QV_BEST_SCORE}, but is {scores}")
    return sum(scores) / len(scores) / QV_BEST_SCORE


def _qv_example(record: Record, rng: np.random.Generator) -> Example:
    question = f"Here is a query: {record['query']}. Where are all the segments for the query? Report the segments in seconds."
    windows = ", ".join(f"[{start:g}-{end:g}]" for start, end in record["metadata"]["relevant_windows"])
    return {"video": record["video"], **open_ended(question, f"Segments: {windows}"), "metadata": dict(record["metadata"])}


_QV = "https://raw.githubusercontent.com/jayleicn/moment_detr/main/data"

ROWS = (
    DatasetRow(
        name="ego4d_all",
        title="Ego4D clips",
        folder="ego4d",
        sources=(
            ByHand(
                "version 2 of the annotations and clips of the benchmarks mq and nlq from ego4d-data.org (licence needed): "
                "the output folder of its command-line tool"
            ),
        ),
        style="+".join(EGO4D_STYLES),
        records=_ego4d_records,
        example=fixed_example,
        files=lambda split: [f"{EGO4D}/annotations/{file}" for file in EGO4D_FILES[split]],
        splits=("train", "val", "test"),
        licence="after signing a licence agreement (ego4d-data.org/docs/start-here)",
    ),
    DatasetRow(
        name="qv_highlights",
        title="QVHighlights",
        folder="QVHighlights",
        sources=(
            *(Url(f"{_QV}/{file}") for file in QV_FILES.values()),
            Url("https://nlp.cs.unc.edu/data/jielei/qvh/qvhilights_videos.tar.gz", unpack=True),
        ),
        style=OE,
        records=_qv_records,
        example=_qv_example,
        files=lambda split: [QV_FILES[split], "**/"],
        splits=("train", "validation"),
    ),
)
