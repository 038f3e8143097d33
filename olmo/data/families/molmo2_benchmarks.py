"""Molmo2's own benchmarks: captions judged by statements, counting in videos, and pointing in videos."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data.annotations import Entry, having
from olmo.data.dataset import Example
from olmo.data.families.asking import benchmark_example, benchmark_row, parquet_rows
from olmo.data.records import DatasetRow, Record
from olmo.data.sources import ByHand, Hub
from olmo.exceptions import OLMoDataError


def _files(split: str) -> list[str]:
    return [f"data/{split}-*.parquet"]


def _rows(folder: Path, split: str, columns: str) -> Iterator[Entry]:
    return having(parquet_rows(folder, _files(split)[0]), *columns.split())


def _placed(entry: Entry, key: str, places: dict[str, str]) -> str:
    """The video of an entry below the folder of its source, which `key` names."""
    source = entry.need(key, str)
    if source not in places:
        raise OLMoDataError(f"{entry.where}: '{key}' should be one of {', '.join(places)}, but is '{source}'")
    return places[source]


def _clip(entry: Entry) -> list[float] | None:
    start, end = (entry.optional(key, float) for key in ("clip_start_time", "clip_end_time"))
    if start is None and end is None:
        return None
    if start is None or end is None or not 0 <= start < end:
        raise OLMoDataError(f"{entry.where}: clip_start_time and clip_end_time should be seconds in that order, but are {start} and {end}")
    return [start, end]


# -- captions

CAPTION_STYLE = "video_long_caption"
CAPTION_COLUMNS = "video_id source duration atomic_statements categories aggregated_annotations"
CAPTION_PLACES = {"vimeo": "vimeo/{id}.mp4", "bdd100k": "bdd100k/{id}.mov", "ego4d": "ego4d/{id}_{start:.3f}_{end:.3f}_custom_clip.mp4"}


def _caption_records(folder: Path, split: str) -> Iterator[Record]:
    """Files of Ego4D hold the clip and nothing else. Where it lay in the long video is told under other names, because the reader
    of videos would cut the file at `clip_start_time` once more."""
    for number, entry in enumerate(_rows(folder, split, CAPTION_COLUMNS)):
        video_id, clip = entry.need("video_id", str), _clip(entry)
        place, source = _placed(entry, "source", CAPTION_PLACES), entry["source"]
        if source == "ego4d" and clip is None:
            raise OLMoDataError(f"{entry.where}: a video of ego4d needs clip_start_time and clip_end_time")
        start, end = clip or (0.0, 0.0)
        record = {
            "video": place.format(id=video_id, start=start, end=end),
            "metadata": {
                "example_id": f"{video_id}_{number}",
                "video_id": video_id,
                "source": source,
                "duration": entry.need("duration", float),
                "data": {
                    "atomic_statements": entry.texts("atomic_statements"),
                    "categories": entry.texts("categories"),
                    "aggregated_annotations": entry.need("aggregated_annotations", str),
                },
            },
        }
        if source == "ego4d":
            record["metadata"] |= {"cut_start_time": start, "cut_end_time": end}
        elif clip is not None:
            record["clip"] = clip
        yield record


# -- counting and pointing

COUNT_COLUMNS = "video_source video_id question label count category"
POINT_COLUMNS = "video_source video_id label count video_duration width height two_fps_timestamps points masks"
POINT_PLACES = {"youtube": "youtube/{id}.mp4", "generated": "generated_videos/{id}.mp4", "MammalNet": "MammalNet/{id}.mp4"}
ANNOTATED_FPS = 2
"""Frames of the masks are numbered at this rate: there is one every half second."""


def _asked_video(entry: Entry) -> str:
    return _placed(entry, "video_source", POINT_PLACES).format(id=entry.need("video_id", str))


COUNT_RANGES = ((0, 5), (5, 10), (10, 15), (15, 20), (20, 25))
"""True counts, [from, to), that are one type of question."""


def count_range(count: int) -> str:
    """`0_5`, `5_10`, ... or `25_up`."""
    return next((f"{low}_{high}" for low, high in COUNT_RANGES if low <= count < high), f"{COUNT_RANGES[-1][1]}_up")


def _count_records(folder: Path, split: str) -> Iterator[Record]:
    for number, entry in enumerate(_rows(folder, split, COUNT_COLUMNS)):
        count = entry.need("count", int)
        if count < 0:
            raise OLMoDataError(f"{entry.where}: 'count' should be 0 or more, but is {count}")
        yield {
            "video": _asked_video(entry),
            "question": entry.need("question", str),
            "label": entry.need("label", str),
            "answer": str(count),
            "clip": _clip(entry),
            "metadata": {
                "example_id": f"{entry['video_id']}_{number}",
                "video_id": entry["video_id"],
                "count": count,
                "question_type": count_range(count),
                "subset": entry.need("category", str),
            },
        }


def _point_records(folder: Path, split: str) -> Iterator[Record]:
    for number, entry in enumerate(_rows(folder, split, POINT_COLUMNS)):
        label, count = entry.need("label", str), entry.need("count", int)
        width, height, duration = (
            _above_zero(entry, "width", int),
            _above_zero(entry, "height", int),
            _above_zero(entry, "video_duration", float),
        )
        triplets, masks = list(_triplets(entry, width, height)), [_mask_frames(frames) for frames in _mask_lists(entry)]
        if len(masks) < len(triplets):
            raise OLMoDataError(f"{entry.where}: 'masks' should have a list for each of the {len(triplets)} points, but has {len(masks)}")
        yield {
            "video": _asked_video(entry),
            "question": f'How many "{label}" are there in the video?',
            "label": label,
            "answer": str(count),
            "masks": masks,
            "metadata": {
                "example_id": f"{entry['video_id']}_{number}",
                "video_id": entry["video_id"],
                "video_duration": duration,
                "video_width": width,
                "video_height": height,
                "gt_abs_triplets": triplets,
            },
        }


def _above_zero(entry: Entry, key: str, kind: type) -> float:
    value = entry.need(key, kind)
    if value <= 0:
        raise OLMoDataError(f"{entry.where}: '{key}' should be above 0, but is {value}")
    return value


def _triplets(entry: Entry, width: int, height: int) -> Iterator[list[float]]:
    """[seconds, x, y] in pixels; the file has percentages, a list of points per time."""
    times, points = entry.need("two_fps_timestamps", list), entry.need("points", list)
    if len(times) != len(points):
        raise OLMoDataError(f"{entry.where}: 'points' should have a list for each of the {len(times)} times, but has {len(points)}")
    for time, at in zip(times, points, strict=True):
        for point in at:
            place = Entry(point, f"{entry.where}, points")
            yield [float(time), place.need("x", float) / 100 * width, place.need("y", float) / 100 * height]


def _mask_lists(entry: Entry) -> list[list[Entry]]:
    """Per object its masks, each with the number of its frame."""
    return [[Entry(mask, f"{entry.where}, masks[{i}]") for mask in masks] for i, masks in enumerate(entry.need("masks", list))]


def _mask_frames(frames: list[Entry]) -> list[list]:
    """[seconds, mask as run lengths (`size`, `counts`)] of one object."""
    found = []
    for frame in frames:
        mask = frame.need("mask", dict)
        found.append([frame.need("frame_id", int) / ANNOTATED_FPS, {"size": mask.need("size", list), "counts": mask.need("counts", str)}])
    return found


def _point_example(record: Record, rng: np.random.Generator) -> Example:
    example = benchmark_example(record, rng, style="video_point_count")
    masks = [{time: mask for time, mask in frames} for frames in record["masks"]]
    return {**example, "metadata": {**example["metadata"], "gt_abs_masks": masks, "masks_fps": ANNOTATED_FPS}}


_VIDEOS_BY_HAND = ByHand(
    "videos named by video_source: YouTube by id (youtube_id_to_urls_mapping.json of allenai/Molmo2-VideoPoint has their addresses), "
    "generated ones (generated_videos/ there), MammalNet (github.com/Vision-CAIR/MammalNet)"
)

ROWS = (
    benchmark_row(
        name="molmo2_captions_eval",
        title="Molmo2-CapEval",
        folder="Molmo2-CapEval",
        sources=(
            Hub("allenai/Molmo2-CapEval", unpack=("*.zip",)),
            ByHand("BDD100K videos, from bdd-data.berkeley.edu", into="bdd100k"),
            ByHand("Ego4D clips, from ego4d-data.org (licence needed)", into="ego4d"),
        ),
        style=CAPTION_STYLE,
        records=_caption_records,
        files=_files,
        splits=("test",),
        inferred="columns of its table, folder in its archive",
    ),
    benchmark_row(
        name="molmo2_video_count_eval",
        title="Molmo2-VideoCountEval",
        folder="Molmo2-VideoCountEval",
        sources=(Hub("allenai/Molmo2-VideoCountEval"), _VIDEOS_BY_HAND),
        style="video_count",
        records=_count_records,
        files=_files,
        splits=("val",),
        counts={"val": 533},  # Molmo2 paper, section 4.2
        inferred="columns of its table",
    ),
    DatasetRow(
        name="molmo2_video_point_eval",
        title="Molmo2-VideoPointEval",
        folder="Molmo2-VideoPointEval",
        sources=(Hub("allenai/Molmo2-VideoPointEval"), _VIDEOS_BY_HAND),
        style="video_point_count",
        records=_point_records,
        example=_point_example,
        files=_files,
        splits=("val",),
        inferred="columns of its table",
    ),
)
