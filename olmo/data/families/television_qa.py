"""Questions about television, films and news: TVQA, CinePile, NewsVideoQA."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from olmo.data.annotations import Entry, one_file, read_json, read_jsonl, read_lines, read_parquet, unique
from olmo.data.families.questions import choice, choices, grouped, numbered_options, short_answers
from olmo.data.families.video_files import Listing, with_videos
from olmo.data.frame_folder import FPS
from olmo.data.records import MC_SUBTITLE, OE, DatasetRow, Record
from olmo.data.sources import ByHand, Hub
from olmo.exceptions import OLMoDataError

# -- TVQA: questions on a part of a clip, which is a folder of frames; subtitles for the whole clip

TVQA_FRAMES = "video-frames/frames_hq"
TVQA_SUBTITLES = "tvqa_preprocessed_subtitles.jsonl"
TVQA_MISSING = "missing_clips.txt"
TVQA_FIRST_SHOW = "bbt"
"""The Big Bang Theory, whose clips are named without their show (`s03e02_seg02_clip_10`, not `met_s03e02_...`)."""


def _tvqa_files(split: str) -> list[str]:
    return [f"tvqa_{'test_public' if split == 'test' else split}.jsonl", TVQA_SUBTITLES, TVQA_MISSING]


def _tvqa_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on the same part of a clip are one example; clips without frames are left out."""
    subtitles = {e.need("vid_name", str): e for e in unique(read_jsonl(folder / TVQA_SUBTITLES), "vid_name")}
    missing = {line.strip() for line in read_lines(folder / TVQA_MISSING)}
    entries = unique(read_jsonl(folder / _tvqa_files(split)[0]), "qid")
    parts = grouped(((e.need("vid_name", str), e.need("ts", str)), e) for e in entries if e.need("vid_name", str) not in missing)
    for (name, ts), questions in parts.items():
        clip = _tvqa_clip(questions[0])
        yield {
            "video": f"{TVQA_FRAMES}/{_tvqa_show(name)}_frames/{name}",
            "clip": clip,
            "questions": [_tvqa_question(entry, split) for entry in questions],
            "subtitle": _tvqa_subtitle(subtitles[name], clip) if name in subtitles else [],
            "metadata": {"show_name": questions[0].need("show_name", str), "ts": ts},
        }


def _tvqa_show(name: str) -> str:
    """castle_s01e02_seg02_clip_04 -> castle."""
    first = name.partition("_")[0]
    return TVQA_FIRST_SHOW if re.fullmatch(r"s\d+e\d+", first) else first


def _tvqa_clip(entry: Entry) -> list[float] | None:
    """From frame to frame, at least one; a few questions have no times (nan-nan) and are about the whole clip."""
    ts = entry.need("ts", str)
    try:
        start, end = map(float, ts.split("-"))
    except ValueError:
        raise OLMoDataError(f"{entry.where}: 'ts' should be start-end in seconds, but is {ts}") from None
    if math.isnan(start) or math.isnan(end):
        return None
    if end < start:
        raise OLMoDataError(f"{entry.where}: 'ts' ends before it starts ({ts})")
    first, last = int(start * FPS), int(end * FPS)
    return [first / FPS, max(last, first + 1) / FPS]


def _tvqa_question(entry: Entry, split: str) -> dict:
    """The answers of the test split are not published."""
    answer = None if split == "test" else entry.need("answer_idx", int)
    return choice(entry, entry.need("q", str), numbered_options(entry, 5), answer)


def _tvqa_subtitle(entry: Entry, clip: list[float] | None) -> list:
    """What is said during the part, in seconds from its start."""
    start, end = clip or (0.0, math.inf)
    lines = [(line.need("start", float), line.need("end", float), line.need("text", str)) for line in entry.need("sub", list)]
    spoken = ((max(s - start, 0.0), min(e, end) - start, text) for s, e, text in lines if s < end and e > start)
    return [[round(s, 3), round(e, 3), text] for s, e, text in spoken]


# -- CinePile: scenes of films on YouTube, with subtitles as one text


def _cinepile_files(split: str) -> list[str]:
    return [f"data/{split}-*.parquet", "videos"]


def _cinepile_records(folder: Path, split: str) -> Iterator[Record]:
    records = (_cinepile_record(e) for file in sorted(folder.glob(_cinepile_files(split)[0])) for e in read_parquet(file))
    yield from with_videos(records, Listing(folder).path, folder)


def _cinepile_record(entry: Entry) -> tuple[str, Record]:
    video = entry.need("video_id", str)
    return f"videos/{video}/{video}.mp4", {
        "questions": [
            choice(q, q.need("question", str), q.texts("choices"), q.need("answer_key_position", int)) for q in entry.need("examples", list)
        ],
        "subtitle": entry.need("subtitles", str).replace("<subtitle> ", ""),
        "metadata": {"video_id": video, "movie_name": entry.need("movie_name", str)},
    }


# -- NewsVideoQA: answers that are read off the screen; some are empty


def _news_files(split: str) -> list[str]:
    return [f"*{split}*.json"]


def _news_records(folder: Path, split: str) -> Iterator[Record]:
    """All questions on a clip are one example; those with an empty answer are left out."""
    by_clip = grouped(
        (entry.need("uni_clipped_id", str), {"question": entry.need("question", str), "answer": answer})
        for entry in _news_entries(one_file(folder, _news_files(split)[0]))
        if (answer := entry.need("answer", str).strip())
    )
    for name, questions in by_clip.items():
        yield {"video": f"final_data_feb_16/videos/{split}/{name}.mp4", "questions": questions}


def _news_entries(file: Path) -> list[Entry]:
    """A list, or a mapping that has it under `data`."""
    content = read_json(file)
    entries = content.need("data", list) if isinstance(content, Entry) else content
    if not isinstance(entries, list) or not all(isinstance(e, Entry) for e in entries):
        raise OLMoDataError(f"{file} should be a list of mappings, or a mapping with such a list under 'data'")
    return entries


ROWS = (
    DatasetRow(
        name="tvqa_with_sub",
        title="TVQA with subtitles",
        folder="TVQA",
        sources=(
            Hub("allenai/Molmo2-TVQA"),
            ByHand("tvqa_video_frames_fps3_hq.tar.gz, after the form on tvqa.cs.unc.edu/download_tvqa.html", "video-frames"),
        ),
        style=MC_SUBTITLE,
        records=_tvqa_records,
        example=choices(MC_SUBTITLE),
        files=_tvqa_files,
        splits=("train", "val", "test"),
        inferred="names of its files on the hub",
    ),
    DatasetRow(
        name="cinepile_with_sub",
        title="CinePile with subtitles",
        folder="cinepile",
        sources=(Hub("allenai/Molmo2-cinepile"), ByHand("the videos of YouTube, as ID/ID.mp4", "videos")),
        style=MC_SUBTITLE,
        records=_cinepile_records,
        example=choices(MC_SUBTITLE),
        files=_cinepile_files,
        splits=("train", "test"),
        inferred="names of its files on the hub",
    ),
    DatasetRow(
        name="news_video_qa_filtered",
        title="NewsVideoQA",
        folder="NewsVideoQA",
        sources=(
            Hub("allenai/Molmo2-NewsVideoQA"),
            ByHand("the clips, from the downloads of task 24 on rrc.cvc.uab.es", "final_data_feb_16/videos"),
        ),
        style=OE,
        records=_news_records,
        example=short_answers,
        files=_news_files,
        splits=("train", "val"),
        inferred="names of its files on the hub",
    ),
)
