"""Points in videos: hits by hand, the rule for the moment, and the published rule beside it."""

import json
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.eval.metrics.pointing import METRICS, video_point_scores
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.points import PointFormatter
from tests.eval.metrics.masks import box, rle

WIDTH, HEIGHT = 200, 100
METRIC = METRICS["video_point"]
LEFT, RIGHT = box(HEIGHT, WIDTH, 10, 10, 50, 50), box(HEIGHT, WIDTH, 50, 150, 90, 190)


def record(prediction: str, objects: list | None = None, **changes) -> dict:
    """Two objects, one on the left around second 2 and one on the right around second 5; masks every half second."""
    objects = [((2.0, 30, 30), LEFT, (1.5, 2.0, 2.5)), ((5.0, 170, 70), RIGHT, (4.5, 5.0))] if objects is None else objects
    metadata = {
        "video_width": WIDTH,
        "video_height": HEIGHT,
        "video_duration": 10.0,
        "masks_fps": 2,
        "gt_abs_triplets": [list(point) for point, _, _ in objects],
        "gt_abs_masks": [{time: rle(mask) for time in times} for _, mask, times in objects],
    }
    return {"example_id": "abc_0", "prediction": prediction, "metadata": metadata | changes}


def says(*points: tuple[float, float, float]) -> str:
    """Points (seconds, x, y) as a model writes them."""
    return PointFormatter().video([[(x, y)] for _, x, y in points], [t for t, _, _ in points], "car", (WIDTH, HEIGHT), "point_then_count")


def values(answer: dict) -> tuple[float, float, float]:
    return METRIC.more["precision"](answer), METRIC.more["recall"](answer), METRIC.grade(answer).value


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(2.0, 30, 30), (5.0, 170, 70)], (1, 1, 1)),
        ([(2.0, 12, 48), (4.5, 188, 52)], (1, 1, 1)),  # anywhere on the mask, at any of its times
        ([(2.0, 30, 30)], (1, 1 / 2, 2 / 3)),
        ([(2.0, 30, 30), (2.0, 31, 31), (5.0, 170, 70)], (2 / 3, 1, 4 / 5)),  # an object counts once
        ([(2.0, 60, 30), (5.0, 170, 70)], (1 / 2, 1 / 2, 1 / 2)),  # beside the mask
        ([(5.0, 30, 30), (2.0, 170, 70)], (0, 0, 0)),  # the right places at the wrong times
    ],
)
def test_by_hand(points, expected):
    answer = record(says(*points))
    assert values(answer) == pytest.approx(expected)
    assert METRIC.published(answer) == pytest.approx(expected[2])
    assert METRIC.grade(answer).parsed and METRIC.more["valid"](answer) == 1


@pytest.mark.parametrize(("time", "hit"), [(2.0, True), (1.8, True), (2.2, True), (1.3, True), (2.7, True), (1.2, False), (2.8, False)])
def test_the_mask_nearest_in_time_counts(time, hit):
    """Masks stand every half second from 1.5 to 2.5: a quarter of a second around them is theirs.

    The published rule wants the moment itself.
    """
    answer = record(says((time, 30, 30)), [((2.0, 30, 30), LEFT, (1.5, 2.0, 2.5))])
    assert METRIC.grade(answer).value == float(hit)
    assert METRIC.published(answer) == float(time == 2.0)


def test_of_two_masks_the_nearer_counts():
    objects = [((2.0, 30, 30), LEFT, (2.0,))]
    answer = record(says((2.3, 30, 30)), objects)
    answer["metadata"]["gt_abs_masks"][0][2.5] = rle(RIGHT)
    assert METRIC.grade(answer).value == 0
    assert METRIC.grade(record(says((2.2, 30, 30)), objects)).value == 1


def test_the_same_after_a_prediction_file():
    """Keys of JSON are text. Seen to fail when times are looked up as they are."""
    answer = record(says((2.0, 30, 30), (4.8, 170, 70)))
    again = json.loads(json.dumps(answer))
    assert values(again) == values(answer) == (1, 1, 1)
    assert METRIC.published(again) == METRIC.published(answer) == 0.5


@pytest.mark.parametrize(
    ("prediction", "value", "parsed", "valid"),
    [("There are none.", 1, True, 0), ("", 1, True, 0), (says((2.0, 30, 30)), 0, True, 1)],
)
def test_nothing_to_point_at(prediction, value, parsed, valid):
    answer = record(prediction, [])
    assert values(answer) == (value, value, value) and METRIC.published(answer) == value
    assert (METRIC.grade(answer).parsed, METRIC.more["valid"](answer)) == (parsed, valid)


@pytest.mark.parametrize(("prediction", "parsed"), [("There are none.", True), ("", False), ("A car.", False)])
def test_nothing_pointed_at(prediction, parsed):
    answer = record(prediction)
    assert values(answer) == (0, 0, 0) and METRIC.grade(answer).parsed == parsed and METRIC.more["valid"](answer) == 0


def test_a_video_that_could_not_be_read_is_wrong():
    """Even where the empty answer would be right."""
    answer = record("", []) | {"failed": {"file": "a.mp4", "cause": "decode", "message": "broken"}}
    assert values(answer) == (0, 0, 0) and not METRIC.grade(answer).parsed and METRIC.published(answer) == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gt_abs_masks": []}, "'gt_abs_masks' should have the masks of 2 objects, but has 0"),
        ({"masks_fps": None}, "the key 'masks_fps' is missing"),
        ({"gt_abs_masks": [{"2.0": {"size": [1]}}] * 2}, "the size of a mask should be"),
    ],
)
def test_wrong_metadata_is_named(changes, sentence):
    with pytest.raises(OLMoDataError) as err:
        METRIC.grade(record(says((2.0, 30, 30)), **changes))
    assert str(err.value).startswith("prediction of example abc_0, metadata: ") and sentence in str(err.value)


def most_hits(points: list, cells: list) -> set[int]:
    """Hits of every assignment whose summed distance is smallest, by trying all (several may be equally near)."""

    def distance(p, q):
        return sum((round(a / s * 100, 1) - round(b / s * 100, 1)) ** 2 for a, b, s in zip(p, q, (10.0, WIDTH, HEIGHT), strict=True)) ** 0.5

    few, many = sorted((points, cells), key=len)
    found: dict[float, set[int]] = {}
    for order in permutations(range(len(many)), len(few)):
        pairs = [(few[i], many[j]) for i, j in enumerate(order)]
        found.setdefault(round(sum(distance(*p) for p in pairs), 6), set()).add(sum(a == b for a, b in pairs))
    return found[min(found)]


CELLS = [(float(t), 10 + 20 * i, 10 + 20 * j) for t in (1, 4) for i in range(3) for j in range(2)]
"""Places of points, each the middle of a mask of its own that no other shares."""


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(CELLS), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(CELLS), min_size=1, max_size=4, unique=True),
)
def test_hits_against_all_assignments(truth, points):
    """Seen to fail when points are assigned one after another to what is nearest and left."""
    objects = [((t, x, y), box(HEIGHT, WIDTH, y - 5, x - 5, y + 5, x + 5), (t,)) for t, x, y in truth]
    scores = video_point_scores(record(says(*points), objects))
    assert scores.precision in {hits / len(points) for hits in most_hits(points, truth)}
    assert scores.recall * len(truth) == pytest.approx(scores.precision * len(points))
