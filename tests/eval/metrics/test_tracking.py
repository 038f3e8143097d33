"""Tracks in videos: scores by hand through the text of an answer, and the published way of lining up masks beside them."""

import json
from math import sqrt

import pytest

from olmo.eval.metrics.tracking import METRICS, tracked_frames
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.points import PointFormatter
from tests.eval.metrics.masks import box, rle

SIZE = (200, 100)
FPS = 6
POINTS, TRACKS = METRICS["video_track"], METRICS["video_track_hota"]


def place(name: int, frame: int) -> tuple[float, float]:
    """Objects 1, 2, 3 one above the other, moving to the right."""
    return 20.0 + frame, 20.0 + 30 * (name - 1)


def mask(name: int, frame: int) -> dict:
    x, y = map(int, place(name, frame))
    return rle(box(SIZE[1], SIZE[0], y - 10, x - 10, y + 10, x + 10))


def record(prediction: str, present: dict[int, list[int]], every_frame: bool = False, fps: int = FPS, **changes) -> dict:
    """`present`: frame -> objects there. Masks are a list of {frame, mask}, or one mask or None per frame of the video."""
    names = sorted({name for there in present.values() for name in there})
    points = [
        {"frame": frame, "time": frame / fps, "points": {name: {"point": list(place(name, frame)), "occluded": False} for name in there}}
        for frame, there in present.items()
    ]
    sparse = {name: [{"frame": f, "mask": mask(name, f)} for f, there in present.items() if name in there] for name in names}
    last = max(present, default=-1)
    full = {name: [mask(name, f) if name in present.get(f, []) else None for f in range(last + 1)] for name in names}
    metadata = {"image_size": list(SIZE), "video_fps": fps, "points": points, "masks": full if every_frame else sparse}
    return {"example_id": "clip", "prediction": prediction, "metadata": metadata | changes}


def says(frames: dict[int, dict[int, tuple[float, float]]], fps: int = FPS) -> str:
    """Frame -> id -> point, written as a model writes it. Ids are kept where they first appear in order of place."""
    points = [
        {"time": f / fps, "points": [{"object_id": i, "point": p, "occluded": False} for i, p in there.items()]}
        for f, there in frames.items()
    ]
    return PointFormatter().tracks(points, "cars", SIZE)


def perfect(present: dict[int, list[int]], fps: int = FPS) -> str:
    return says({f: {name: place(name, f) for name in there} for f, there in present.items()}, fps)


def values(answer: dict) -> tuple[float, ...]:
    return tuple(POINTS.more[name](answer) for name in ("precision", "recall")) + (POINTS.grade(answer).value,)


def hota_values(answer: dict) -> tuple[float, ...]:
    return tuple(POINTS.more[name](answer) for name in ("HOTA", "DetA", "AssA"))


STEADY = {0: [1, 2], 3: [1, 2], 6: [1, 2], 9: [1, 2]}


@pytest.mark.parametrize("every_frame", [False, True])
def test_a_perfect_answer(every_frame):
    answer = record(perfect(STEADY), STEADY, every_frame)
    assert values(answer) == (1, 1, 1) and hota_values(answer) == (1, 1, 1)
    assert POINTS.published(answer) == TRACKS.published(answer) == 1
    assert POINTS.grade(answer).parsed and TRACKS.grade(answer).parsed


def test_ids_that_swap_half_way():
    """The points are all right, the tracks are not."""
    swapped = {f: {1 + (n - 1 + (f >= 6)) % 2: place(n, f) for n in (1, 2)} for f in STEADY}
    answer = record(says(swapped), STEADY)
    assert values(answer) == (1, 1, 1)
    assert hota_values(answer) == pytest.approx((sqrt(1 / 3), 1, 1 / 3)) and TRACKS.grade(answer).value == pytest.approx(0.5774, abs=1e-4)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ({0: {1: place(1, 0)}}, (1, 1 / 2, 2 / 3)),
        ({0: {1: place(1, 0), 2: (150, 90)}}, (1 / 2, 1 / 2, 1 / 2)),
        ({0: {1: place(1, 0), 2: place(1, 0)}}, (1 / 2, 1 / 2, 1 / 2)),  # two points on one object
        ({0: {1: place(1, 0), 2: place(2, 0)}, 6: {1: place(1, 6)}}, (1 / 2, 1 / 2, 1 / 2)),  # a frame in which nothing is
        ({6: {1: place(1, 6)}}, (0, 0, 0)),
    ],
)
def test_by_hand(frames, expected):
    """One true frame with two objects. Means over the frames that the truth or the answer names."""
    assert values(record(says(frames), {0: [1, 2]})) == pytest.approx(expected)


def test_masks_belong_to_objects_by_their_ids():
    """The first object is gone in the second frame: the published evaluator takes its mask for the second object, and misses it."""
    present = {0: [1, 2], 3: [2]}
    answer = record(perfect(present), present)
    assert values(answer) == (1, 1, 1)
    assert POINTS.published(answer) == pytest.approx(1 / 2)
    assert hota_values(answer) == (1, 1, 1) and TRACKS.published(answer) < 1


def test_recall_counts_the_objects_that_are_there():
    """The last object is gone: masks by order are the right ones, but the published recall still asks for it."""
    present = {0: [1, 2], 3: [1]}
    answer = record(perfect(present), present)
    assert values(answer) == (1, 1, 1)
    assert POINTS.published(answer) == pytest.approx((1 + 2 / 3) / 2)


def test_what_is_occluded_need_not_be_shown():
    answer = record(perfect({0: [1]}), {0: [1, 2]})
    assert POINTS.more["recall"](answer) == 0.5
    answer = json.loads(json.dumps(answer))
    answer["metadata"]["points"][0]["points"]["2"]["occluded"] = True
    assert POINTS.more["recall"](answer) == 1


@pytest.mark.parametrize("fps", [6, 10, 24, 25, 30, 60])
def test_a_perfect_answer_at_any_rate(fps):
    """Times are written to a tenth of a second. Seen to fail when they are turned into frames of the video."""
    step = fps // 6 or 1
    present = {f: [1] for f in range(0, 8 * step, step)}
    answer = record(perfect(present, fps), present, fps=fps)
    assert values(answer) == (1, 1, 1) and hota_values(answer) == (1, 1, 1)
    assert [f.wanted for f in tracked_frames(answer)] == [1] * 8
    if fps == 30:
        assert POINTS.published(answer) < 1


def test_the_same_after_a_prediction_file():
    """Keys of JSON are text."""
    present = {0: [1, 2], 3: [2, 3], 6: [3]}
    answer = record(perfect({0: [1], 3: [2, 3], 9: [3]}), present)
    again = json.loads(json.dumps(answer))
    assert values(again) == values(answer) and hota_values(again) == hota_values(answer)
    assert POINTS.published(again) == POINTS.published(answer)


@pytest.mark.parametrize(
    ("prediction", "parsed"), [("There are none.", True), ("No tracks available.", True), ("", False), ("Cars.", False)]
)
def test_no_tracks(prediction, parsed):
    answer = record(prediction, STEADY)
    assert values(answer) == (0, 0, 0) and hota_values(answer) == (0, 0, 0)
    assert POINTS.grade(answer).parsed == TRACKS.grade(answer).parsed == parsed
    nothing = record(prediction, {})
    assert values(nothing) == (1, 1, 1) and hota_values(nothing) == (1, 1, 1) and POINTS.grade(nothing).parsed


def test_tracks_of_nothing():
    answer = record(perfect(STEADY), {})
    assert values(answer) == (0, 0, 0) and hota_values(answer) == (0, 0, 0)


def test_a_video_that_could_not_be_read_is_wrong():
    answer = record("", {}) | {"failed": {"file": "a.mp4", "cause": "decode", "message": "broken"}}
    assert values(answer) == (0, 0, 0) and hota_values(answer) == (0, 0, 0)
    assert not POINTS.grade(answer).parsed and POINTS.published(answer) == TRACKS.published(answer) == 0


def test_the_category_is_a_group():
    assert POINTS.groups(record("", {})) == () and TRACKS.groups(record("", {}, category="dance")) == ("dance",)


def test_size_by_its_other_names():
    answer = record(perfect(STEADY), STEADY)
    del answer["metadata"]["image_size"]
    answer["metadata"] |= {"w": SIZE[0], "h": SIZE[1]}
    assert values(answer) == (1, 1, 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"masks": {}}, "metadata: 'masks' should have an entry for every object of 'points', but has none for 1"),
        ({"masks": {1: [{"frame": "x", "mask": None}], 2: []}}, "metadata, masks, 1[0]: 'frame' should be a whole number"),
        ({"masks": {1: [{"size": [1, 1]}], 2: []}}, "metadata: the counts of a mask should be"),
        ({"points": [{"time": 0.0, "points": {}}]}, "metadata, points[0]: the key 'frame' is missing"),
        ({"image_size": None}, "metadata: the key 'w' is missing"),
    ],
)
def test_wrong_metadata_is_named(changes, sentence):
    with pytest.raises(OLMoDataError) as err:
        POINTS.grade(record(perfect(STEADY), STEADY, **changes))
    assert str(err.value).startswith("prediction of example clip, ") and sentence in str(err.value)
