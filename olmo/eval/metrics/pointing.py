"""Points in a video: each names a moment and a place, and is right if it lies on the mask of an object that no other point has.

Masks are annotated at a fixed rate, answers name the moments of the frames that a model has seen, to a tenth of a second. So the mask
that counts is the nearest in time, at most half an interval of the annotation away. The published evaluator looks for a mask at the
very moment, and finds none unless the frames were sampled at the rate of the annotation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from olmo.data.annotations import Entry
from olmo.eval.metrics.metric import Grade, Metric, Record
from olmo.eval.metrics.points_on_masks import (
    WRONG,
    PointScores,
    assignment,
    distances,
    lies_on,
    point_scores,
    says_nothing_there,
)
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.point_parsing import parse_frame_points

Masks = Mapping[float, Mapping[str, Any]]
"""The masks of one object, as run lengths, by their time in seconds."""
MaskAt = Callable[[Masks, float], Mapping[str, Any] | None]
"""The mask of an object that counts for a point of that time, if any."""


def video_point_scores(record: Record, published: bool = False) -> PointScores:
    """Scores of one answer. `published`: a mask counts at its very moment only."""
    if record.get("failed"):
        return WRONG
    data = _metadata(record)
    truth, masks = data.need("gt_abs_triplets", list), [_by_time(m) for m in data.need("gt_abs_masks", list)]
    width, height = data.need("video_width", int), data.need("video_height", int)
    points = parse_frame_points(record["prediction"], width, height)
    if not truth or not points:
        return point_scores(0, len(points), len(masks) if truth else 0)
    if len(masks) < len(truth):
        raise OLMoDataError(f"{data.where}: 'gt_abs_masks' should have the masks of {len(truth)} objects, but has {len(masks)}")
    reach = 0.5 / data.need("masks_fps", float)
    hits = 0
    for i, j in _nearest(truth, points, (data.need("video_duration", float), width, height)):
        time, x, y = points[j]
        mask = masks[i].get(time) if published else _mask_near(masks[i], time, reach)
        hits += mask is not None and lies_on(mask, x, y, width, height, data.where)
    return point_scores(hits, len(points), len(masks))


def _metadata(record: Record) -> Entry:
    return Entry(record["metadata"], f"prediction of example {record['example_id']}, metadata")


def _by_time(masks: Mapping[Any, Any]) -> Masks:
    """In a prediction file the times are text, as all keys of JSON."""
    return {float(time): mask for time, mask in masks.items()}


def _nearest(truth: list, points: list, sizes: tuple[float, float, float]) -> list[tuple[int, int]]:
    """Which point stands for which true one: by their distance in time and place, in tenths of a percent of the video's sizes."""
    first, second = (np.round(np.asarray(p, dtype=float) / sizes * 100, 1) for p in (truth, points))
    return assignment(distances(first, second))


def _mask_near(masks: Masks, time: float, reach: float) -> Mapping[str, Any] | None:
    """The mask nearest in time, unless it is more than `reach` seconds away."""
    nearest = min(masks, key=lambda t: abs(t - time), default=None)
    return masks[nearest] if nearest is not None and abs(nearest - time) <= reach + 1e-6 else None


def _has_points(record: Record) -> bool:
    data = _metadata(record)
    return bool(parse_frame_points(record["prediction"], data.need("video_width", int), data.need("video_height", int)))


def _grade(record: Record) -> Grade:
    """F1. An answer is read if it shows points or says that there are none; where nothing is to be shown, silence says so too."""
    empty = not record["metadata"].get("gt_abs_triplets")
    read = not record.get("failed") and (_has_points(record) or says_nothing_there(record["prediction"]) or empty)
    return Grade(video_point_scores(record).f1, parsed=read)


METRICS: dict[str, Metric] = {
    "video_point": Metric(
        grade=_grade,
        more={
            "precision": lambda record: video_point_scores(record).precision,
            "recall": lambda record: video_point_scores(record).recall,
            "valid": lambda record: float(_has_points(record)),
        },
        published=lambda record: video_point_scores(record, published=True).f1,
    )
}
"""Name in a task record -> metric."""
