"""Tracks in a video: at every moment a point for each object, which is right if it lies on the mask of an object of its own.

`metadata` of a prediction holds `points`, the true frames `{frame, time, points: {id: {point, occluded}}}`; `masks`, by the same ids
either a list with a mask or None for every frame of the video, or a list of `{frame, mask}`; `video_fps`; and the size of the picture
as `image_size` or as `w` and `h`. An object that is occluded need not be shown.

The published evaluator takes the masks of a frame's objects by their order, which is wrong where an object is absent, and divides the
recall by the number of all objects, absent ones too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo.data.annotations import Entry
from olmo.eval.metrics.hota import Hota, HotaFrame, hota
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
from olmo.preprocessing.point_parsing import parse_tracks
from olmo.preprocessing.points import output_timestamp

Places = dict[str, tuple[float, float]]
"""Id -> (x, y) in pixels."""


@dataclass(frozen=True)
class TrackedFrame(HotaFrame):
    """One frame of a video: what is there, what was predicted, and which point lies on what."""

    distance: np.ndarray
    """Of every true point from every predicted one in pixels, [objects, tracks]."""
    wanted: int
    """Objects that a full recall has to hit."""

    def scores(self) -> PointScores:
        if not self.objects or not self.tracks:
            return point_scores(0, len(self.tracks), len(self.objects))
        hits = sum(bool(self.on_object[pair]) for pair in assignment(self.distance))
        return point_scores(hits, len(self.tracks), self.wanted)


def tracked_frames(record: Record, published: bool = False) -> list[TrackedFrame]:
    """The frames that the truth or the answer names, in order. `published`: paired as by that evaluator."""
    data = Entry(record["metadata"], f"prediction of example {record['example_id']}, metadata")
    size = _size(data)
    masks = _masks_by_frame(data)
    truth = {frame.need("frame", int): frame for frame in data.entries("points")}
    seen = _predicted_frames(record["prediction"], data, truth.values(), size, published)
    frames = []
    for number in sorted(truth.keys() | seen.keys()):
        objects = _true_places(truth[number], occluded_too=published) if number in truth else {}
        tracks = seen.get(number, {})
        names = list(masks)[: len(objects)] if published else list(objects)
        on_object = np.zeros((len(objects), len(tracks)), dtype=bool)
        if tracks:
            for row, name in enumerate(names):
                if name not in masks:
                    raise OLMoDataError(f"{data.where}: 'masks' should have an entry for every object of 'points', but has none for {name}")
                if (mask := masks[name].get(number)) is not None:
                    on_object[row] = [lies_on(mask, x, y, *size, data.where) for x, y in tracks.values()]
        distance = distances(_array(objects), _array(tracks))
        frames.append(TrackedFrame(list(objects), list(tracks), on_object, distance, len(masks) if published else len(objects)))
    return frames


def track_scores(frames: Sequence[TrackedFrame]) -> PointScores:
    """Means over the frames of a video; all 1 where there are neither objects nor points at all."""
    if not frames:
        return point_scores(0, 0, 0)
    scores = [frame.scores() for frame in frames]
    return PointScores(*(float(np.mean([getattr(s, name) for s in scores])) for name in ("precision", "recall", "f1")))


def _size(data: Entry) -> tuple[float, float]:
    if data.get("image_size") is not None:
        width, height = data.need("image_size", list)
        return width, height
    return data.need("w", float), data.need("h", float)


def _array(places: Places) -> np.ndarray:
    return np.array(list(places.values()), dtype=float).reshape(-1, 2)


def _true_places(frame: Entry, occluded_too: bool) -> Places:
    points = {str(name): point for name, point in frame.need("points", dict).items()}
    return {name: tuple(p["point"]) for name, p in points.items() if p.get("point") and (occluded_too or not p.get("occluded"))}


def _masks_by_frame(data: Entry) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Object -> number of a frame -> its mask there."""
    found = {}
    masks = data.need("masks", dict)
    for name in masks:
        numbered = list(enumerate(masks.need(name, list)))
        if any("frame" in mask for _, mask in numbered if mask is not None):
            numbered = [(mask.need("frame", int), mask.optional("mask", dict)) for _, mask in numbered]
        found[str(name)] = {number: mask for number, mask in numbered if mask is not None}
    return found


def _predicted_frames(text: str, data: Entry, truth: Iterable[Entry], size: tuple[float, float], published: bool) -> dict[int, Places]:
    """Number of a frame -> the points predicted there.

    Answers name times to a tenth of a second, which the true frame may miss by several frames. So a time means the true frame whose
    time is written the same; any other, and to the published evaluator all, mean the frame nearest in time.
    """
    written = {} if published else {output_timestamp(frame.need("time", float)): frame.need("frame", int) for frame in truth}
    frames: dict[int, Places] = {}
    for frame in parse_tracks(text, *size, data.need("video_fps", float)):
        places = frames.setdefault(written.get(output_timestamp(frame["time"]), frame["frame"]), {})
        for name, point in frame["points"].items():
            places.setdefault(name, tuple(point["point"]))
    return frames


def _scores(record: Record, published: bool = False) -> PointScores:
    return WRONG if record.get("failed") else track_scores(tracked_frames(record, published))


def _hota(record: Record, published: bool = False) -> Hota:
    return Hota(0.0, 0.0, 0.0) if record.get("failed") else hota(tracked_frames(record, published))


def _read(record: Record) -> bool:
    """Whether there is an answer: points, a sentence that there are none, or silence where nothing is to be shown."""
    if record.get("failed"):
        return False
    frames = tracked_frames(record)
    return any(f.tracks for f in frames) or not any(f.objects for f in frames) or says_nothing_there(record["prediction"])


def _category(record: Record) -> Sequence[str]:
    category = record["metadata"].get("category")
    return () if category is None else (str(category),)


METRICS: dict[str, Metric] = {
    "video_track": Metric(
        grade=lambda record: Grade(_scores(record).f1, parsed=_read(record)),
        groups=_category,
        more={
            "precision": lambda record: _scores(record).precision,
            "recall": lambda record: _scores(record).recall,
            "HOTA": lambda record: _hota(record).hota,
            "DetA": lambda record: _hota(record).det_a,
            "AssA": lambda record: _hota(record).ass_a,
        },
        published=lambda record: _scores(record, published=True).f1,
    ),
    "video_track_hota": Metric(
        grade=lambda record: Grade(_hota(record).hota, parsed=_read(record)),
        groups=_category,
        published=lambda record: _hota(record, published=True).hota,
    ),
}
"""Name in a task record -> metric: the points themselves, or the tracks that they make."""
