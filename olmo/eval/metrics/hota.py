"""HOTA of tracks: how well objects are found (DetA) and how steadily each keeps its track (AssA), through TrackEval.

A predicted point lies on an object or it does not, so the similarity is 0 or 1, and all thresholds of HOTA give the same numbers.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from olmo.exceptions import missing_package


@dataclass(frozen=True)
class Hota:
    """HOTA = sqrt(DetA * AssA), each in 0..1."""

    hota: float
    det_a: float
    ass_a: float


@dataclass(frozen=True)
class HotaFrame:
    """What one frame holds."""

    objects: Sequence[Hashable]
    """Ids of the true objects, each once."""
    tracks: Sequence[Hashable]
    """Ids of the predicted points, each once."""
    on_object: np.ndarray
    """Whether a point lies on an object, bool [objects, tracks]."""


def hota(frames: Sequence[HotaFrame]) -> Hota:
    """HOTA of the tracks of one video. 1 where there are neither objects nor points at all, 0 where only one of them is missing."""
    wanted, predicted = sum(len(f.objects) for f in frames), sum(len(f.tracks) for f in frames)
    if not wanted or not predicted:
        value = float(wanted == predicted)
        return Hota(value, value, value)
    objects, tracks = _numbers(f.objects for f in frames), _numbers(f.tracks for f in frames)
    result = _track_eval().eval_sequence(
        {
            "num_gt_dets": wanted,
            "num_tracker_dets": predicted,
            "num_gt_ids": len(objects),
            "num_tracker_ids": len(tracks),
            "gt_ids": [np.array([objects[name] for name in f.objects], dtype=int) for f in frames],
            "tracker_ids": [np.array([tracks[name] for name in f.tracks], dtype=int) for f in frames],
            "similarity_scores": [f.on_object.astype(float).reshape(len(f.objects), len(f.tracks)) for f in frames],
        }
    )
    return Hota(*(float(result[name][0]) for name in ("HOTA", "DetA", "AssA")))  # of the first threshold, as of any other


def _numbers(frames: Iterable[Sequence[Hashable]]) -> dict[Hashable, int]:
    """Every id -> a number from 0."""
    numbers: dict[Hashable, int] = {}
    for names in frames:
        assert len(set(names)) == len(names), f"an id stands twice in one frame: {list(names)}"
        for name in names:
            numbers.setdefault(name, len(numbers))
    return numbers


def _track_eval():
    try:
        from trackeval.metrics import HOTA
    except ImportError:
        raise missing_package("trackeval", "eval", "HOTA of tracks") from None
    return HOTA()
