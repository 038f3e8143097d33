"""Benchmarks of long videos with or without subtitles: Video-MME, LongVideoBench."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from olmo.data.annotations import Entry, read_json, read_json_list, unique
from olmo.data.families.asking import (
    LETTER_DIRECTLY,
    benchmark_example,
    letter,
    lettered,
    number_of,
    number_of_letter,
    option_texts,
    parquet_rows,
    worded,
)
from olmo.data.records import EVAL_MC, EVAL_MC_SUBTITLE, DatasetRow, Record
from olmo.data.sources import Hub
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.points import parse_timestamp


def _time(entry: Entry, key: str) -> float:
    """Seconds, written as a number or as HH:MM:SS with . or , before the fraction."""
    value = entry.get(key)
    if not isinstance(value, str):
        return entry.need(key, float)
    try:
        return parse_timestamp(value.replace(",", "."))
    except OLMoDataError as err:
        raise OLMoDataError(f"{entry.where}: '{key}': {err}") from None


# -- Video-MME: three questions on each video; subtitles of those that have some in one file

VIDEO_MME_TABLE, VIDEO_MME_SUBTITLES = "videomme/test-*.parquet", "subtitles.json"
VIDEO_MME_DURATIONS = ("short", "medium", "long")
VIDEO_MME_LEAD = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
VIDEO_MME_REQUEST = "The best answer is:"


def _video_mme_files(split: str, subtitles: bool) -> list[str]:
    return [VIDEO_MME_TABLE, *([VIDEO_MME_SUBTITLES] if subtitles else [])]


def _video_mme_records(folder: Path, split: str, subtitles: bool, durations: tuple[str, ...] = VIDEO_MME_DURATIONS) -> Iterator[Record]:
    spoken = _all_subtitles(folder / VIDEO_MME_SUBTITLES) if subtitles else {}
    for entry in unique(parquet_rows(folder, VIDEO_MME_TABLE), "question_id"):
        duration = entry.need("duration", str)
        if duration not in VIDEO_MME_DURATIONS:
            raise OLMoDataError(f"{entry.where}: 'duration' should be one of {', '.join(VIDEO_MME_DURATIONS)}, but is '{duration}'")
        if duration not in durations:
            continue
        options, video = option_texts(entry, "options"), entry.need("videoID", str)
        record = {
            "video": f"data/{video}.mp4",
            "question": worded(f"{VIDEO_MME_LEAD}\n{entry.need('question', str)}", options, VIDEO_MME_REQUEST),
            "answer": letter(number_of_letter(entry, "answer", len(options))),
            "metadata": {
                "example_id": entry["question_id"],
                "video_id": entry.need("video_id", str),
                "question_id": entry["question_id"],
                "duration": duration,
                **{key: entry.need(key, str) for key in ("domain", "sub_category", "task_type")},
            },
        }
        yield record | ({"subtitle": spoken[video], "style": EVAL_MC_SUBTITLE} if spoken.get(video) else {})


def _all_subtitles(path: Path) -> dict[str, list]:
    """Video -> what is said: [start, end, text]."""
    videos = read_json(path)
    if not isinstance(videos, Entry):
        raise OLMoDataError(f"{path} should be a mapping from videos to subtitles")
    spoken: dict[str, list] = {}
    for video in videos:
        lines = videos.need(video, dict)
        entries = [lines.need(number, dict) for number in lines]
        spoken[video] = [[_time(line, "start"), _time(line, "end"), line.need("text", str)] for line in entries]
    return spoken


# -- LongVideoBench: a file per split; subtitles in a file per video, in one of two forms, counted from the start of a longer one

LONG_VIDEO_BENCH_FILES = {"validation": "lvb_val.json", "test": "lvb_test_wo_gt.json"}


def _long_video_bench_files(split: str, subtitles: bool) -> list[str]:
    return [LONG_VIDEO_BENCH_FILES[split], *(["subtitles"] if subtitles else [])]


def _long_video_bench_records(folder: Path, split: str, subtitles: bool) -> Iterator[Record]:
    for entry in unique(read_json_list(folder / LONG_VIDEO_BENCH_FILES[split]), "id"):
        options = option_texts(entry, "candidates")
        record = {
            "video": f"videos/{entry.need('video_path', str)}",
            "question": worded(entry.need("question", str), lettered(options), LETTER_DIRECTLY),
            "metadata": {
                "example_id": entry["id"],
                "question_id": entry["id"],
                **{key: entry.need(key, str) for key in ("video_id", "level", "question_category")},
                "duration_group": entry.need("duration_group", int),
                "options": options,
            },
        }
        if split == "validation":
            record["answer"] = letter(number_of(entry, "correct_choice", len(options)))
        if subtitles and (lines := _subtitles_of(entry, folder / "subtitles" / entry.need("subtitle_path", str))):
            record |= {"subtitle": lines, "style": EVAL_MC_SUBTITLE}
        yield record


def _subtitles_of(entry: Entry, path: Path) -> list[list]:
    """What is said between the beginning and the end of the video of `entry`: [start, end, text]."""
    origin, duration = entry.need("starting_timestamp_for_subtitles", float), entry.need("duration", float)
    lines = []
    for line in read_json_list(path):
        if "timestamp" in line:
            span, text = line.need("timestamp", list), line.need("text", str)
            if len(span) != 2 or not isinstance(span[0], (int, float)):
                raise OLMoDataError(f"{line.where}: 'timestamp' should be a start and an end in seconds, but is {span}")
            start, end = span[0] - origin, (duration if span[1] is None else span[1] - origin)
        else:
            start, end, text = _time(line, "start") - origin, _time(line, "end") - origin, line.need("line", str)
        if end > 0 and start < duration:
            lines.append([round(max(start, 0.0), 3), round(min(end, duration), 3), text])
    return lines


# -- rows


def _video_mme(name: str, title: str, *, subtitles: bool = False, durations: tuple[str, ...] = VIDEO_MME_DURATIONS) -> DatasetRow:
    return DatasetRow(
        name=name,
        title=title,
        folder="Video-MME",
        sources=(
            Hub("lmms-lab/Video-MME", patterns=("videomme/*", "videos_chunked_*.zip"), unpack=("videos_chunked_*.zip",)),
            *((Hub("allenai/Molmo2-VideoMME", patterns=(VIDEO_MME_SUBTITLES,)),) if subtitles else ()),
        ),
        style=EVAL_MC_SUBTITLE if subtitles else EVAL_MC,
        records=partial(_video_mme_records, subtitles=subtitles, durations=durations),
        example=partial(benchmark_example, style=EVAL_MC),
        files=partial(_video_mme_files, subtitles=subtitles),
        splits=("validation",),
        licence="academic research only (README of github.com/BradyFU/Video-MME)",
        # README of github.com/BradyFU/Video-MME; how many are short, medium or long it does not state
        counts={"validation": 2700} if durations == VIDEO_MME_DURATIONS else {},
    )


def _long_video_bench(name: str, title: str, *, subtitles: bool) -> DatasetRow:
    return DatasetRow(
        name=name,
        title=title,
        folder="LongVideoBench",
        sources=(Hub("longvideobench/LongVideoBench", unpack=("videos.tar.part.*", "subtitles.tar"), gated=True),),
        style=EVAL_MC_SUBTITLE if subtitles else EVAL_MC,
        records=partial(_long_video_bench_records, subtitles=subtitles),
        example=partial(benchmark_example, style=EVAL_MC),
        files=partial(_long_video_bench_files, subtitles=subtitles),
        splits=tuple(LONG_VIDEO_BENCH_FILES),
        licence="CC BY-NC-SA 4.0, non-commercial use only (dataset card of longvideobench/LongVideoBench)",
    )


ROWS = (
    _video_mme("video_mme", "VideoMME"),
    *(_video_mme(f"video_mme_{duration}", f"VideoMME, {duration}", durations=(duration,)) for duration in VIDEO_MME_DURATIONS),
    _video_mme("video_mme_w_subtitle", "VideoMME with subtitles", subtitles=True),
    _long_video_bench("long_video_bench_no_subtitle", "LongVideoBench", subtitles=False),
    _long_video_bench("long_video_bench_w_subtitle", "LongVideoBench with subtitles", subtitles=True),
)
