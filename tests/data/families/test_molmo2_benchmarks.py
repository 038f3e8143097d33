"""Molmo2's own benchmarks: captions, counting and pointing in videos."""

import pytest

from tests.data.families.asking import asked, raises, told, wordings
from tests.data.families.fixtures import example, open_split

# -- captions


def captions(files, **changes):
    row = {
        "video_id": "v1",
        "source": "vimeo",
        "clip_start_time": None,
        "clip_end_time": None,
        "duration": 31.5,
        "atomic_statements": ["A dog runs.", "It is brown."],
        "categories": ["action", "attribute"],
        "aggregated_annotations": "A brown dog runs.",
    }
    parts = [row | {"source": source, "clip_start_time": 4.0, "clip_end_time": 9.5} for source in ("ego4d", "bdd100k")]
    files.parquet("data/test-00000-of-00001.parquet", [row | changes, *parts])


def test_captions(miniature):
    captions(miniature("Molmo2-CapEval"))
    data = {
        "atomic_statements": ["A dog runs.", "It is brown."],
        "categories": ["action", "attribute"],
        "aggregated_annotations": "A brown dog runs.",
    }
    assert example("molmo2_captions_eval", "test") == {
        "video": "vimeo/v1.mp4",
        "style": "video_long_caption",
        "metadata": {"example_id": "v1_0", "video_id": "v1", "source": "vimeo", "duration": 31.5, "data": data},
    }
    assert len(open_split("vixmo_caps_eval2")) == 3
    texts = {asked("molmo2_captions_eval", "test", seed=seed) for seed in range(60)}
    assert texts <= wordings("long_caption") and len(texts) > 5


def test_files_that_hold_the_clip_are_not_cut_again(miniature):
    """Seen to fail when the times of a cut file stay where the reader of videos looks for a clip."""
    captions(miniature("Molmo2-CapEval"))
    cut, whole = (example("molmo2_captions_eval", "test", i) for i in (1, 2))
    assert cut["video"] == "ego4d/v1_4.000_9.500_custom_clip.mp4" and whole["video"] == "bdd100k/v1.mov"
    assert not {"clip_start_time", "clip_end_time"} & set(cut["metadata"])
    assert (cut["metadata"]["cut_start_time"], cut["metadata"]["cut_end_time"]) == (4.0, 9.5)
    assert (whole["metadata"]["clip_start_time"], whole["metadata"]["clip_end_time"]) == (4.0, 9.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source": "ego4d"}, "row 0: a video of ego4d needs clip_start_time and clip_end_time"),
        ({"source": "web"}, "row 0: 'source' should be one of vimeo, bdd100k, ego4d, but is 'web'"),
        ({"clip_start_time": 3.0}, "row 0: clip_start_time and clip_end_time should be seconds in that order, but are 3.0 and None"),
        ({"aggregated_annotations": None}, "data/test-00000-of-00001.parquet, row 0: the key 'aggregated_annotations' is missing"),
    ],
)
def test_mistakes_in_captions(miniature, changes, sentence):
    captions(miniature("Molmo2-CapEval"), **changes)
    raises(sentence, "molmo2_captions_eval", "test")


# -- counting


def counts(files, **changes):
    row = {"video_id": "abc", "video_source": "youtube", "question": "How many dogs are there?", "label": "dog", "category": "animal"}
    row |= {"count": 2, "clip_start_time": 1.0, "clip_end_time": 30.5}
    files.parquet("data/val-00000-of-00001.parquet", [row | changes, row | {"clip_start_time": None, "clip_end_time": None}])


def test_counting(miniature):
    counts(miniature("Molmo2-VideoCountEval"))
    name = "molmo2_video_count_eval"
    assert example(name, "val") == {
        "video": "youtube/abc.mp4",
        "question": "How many dogs are there?",
        "label": "dog",
        "answer": "2",
        "style": "video_count",
        "metadata": {
            "example_id": "abc_0",
            "video_id": "abc",
            "count": 2,
            "question_type": "0_5",
            "subset": "animal",
            "clip_start_time": 1.0,
            "clip_end_time": 30.5,
        },
    }
    assert len(open_split("vixmo_points_count_clip_63s")) == len(open_split("vixmo_points_count")) == 2
    assert asked(name, "val") == "How many dogs are there?" and told(name, "val")["count"] == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": -1}, "data/val-00000-of-00001.parquet, row 0: 'count' should be 0 or more, but is -1"),
        ({"video_source": "tape"}, "row 0: 'video_source' should be one of youtube, generated, MammalNet, but is 'tape'"),
        ({"question": None}, "row 0: the key 'question' is missing"),
        ({"clip_end_time": 0.5}, "row 0: clip_start_time and clip_end_time should be seconds in that order, but are 1.0 and 0.5"),
    ],
)
def test_mistakes_in_counting(miniature, changes, sentence):
    counts(miniature("Molmo2-VideoCountEval"), **changes)
    raises(sentence, "molmo2_video_count_eval", "val")


# -- pointing


def points(files, **changes):
    row = {
        "video_id": "abc",
        "video_source": "generated",
        "label": "red car",
        "count": 2,
        "width": 640,
        "height": 360,
        "video_duration": 12.0,
        "two_fps_timestamps": [0.5, 3.0],
        "points": [[{"x": 50.0, "y": 25.0}], [{"x": 10.0, "y": 100.0}]],
        "masks": [
            [{"frame_id": 1, "mask": {"size": [360, 640], "counts": "a1"}}],
            [{"frame_id": 6, "mask": {"size": [360, 640], "counts": "b2"}}],
        ],
    }
    files.parquet("data/val-00000-of-00001.parquet", [row | changes])


def test_pointing(miniature):
    """Points in pixels; masks by the second of their frame."""
    points(miniature("Molmo2-VideoPointEval"))
    name = "molmo2_video_point_eval"
    assert example(name, "val") == {
        "video": "generated_videos/abc.mp4",
        "question": 'How many "red car" are there in the video?',
        "label": "red car",
        "answer": "2",
        "style": "video_point_count",
        "metadata": {
            "example_id": "abc_0",
            "video_id": "abc",
            "video_duration": 12.0,
            "video_width": 640,
            "video_height": 360,
            "gt_abs_triplets": [[0.5, 320.0, 90.0], [3.0, 64.0, 360.0]],
            "masks_fps": 2,
            "gt_abs_masks": [{0.5: {"size": [360, 640], "counts": "a1"}}, {3.0: {"size": [360, 640], "counts": "b2"}}],
        },
    }
    assert len(open_split("vixmo_points_point_eval")) == 1
    assert asked(name, "val") == 'How many "red car" are there in the video?'


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"two_fps_timestamps": [0.5]}, "row 0: 'points' should have a list for each of the 1 times, but has 2"),
        ({"points": [[{"x": 1.0}], []]}, "row 0, points: the key 'y' is missing; there is x"),
        ({"label": None}, "data/val-00000-of-00001.parquet, row 0: the key 'label' is missing"),
        ({"video_duration": 0.0}, "row 0: 'video_duration' should be above 0, but is 0.0"),
        ({"masks": []}, "row 0: 'masks' should have a list for each of the 2 points, but has 0"),
        (
            {"masks": [[{"frame_id": "one", "mask": {"size": [1], "counts": ""}}]]},
            r"row 0, masks\[0\]: 'frame_id' should be a whole number",
        ),
    ],
)
def test_mistakes_in_pointing(miniature, changes, sentence):
    points(miniature("Molmo2-VideoPointEval"), **changes)
    raises(sentence, "molmo2_video_point_eval", "val")
