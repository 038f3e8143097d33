"""Benchmarks with options: from their files, in the published formats, to grades and groups."""

import pytest

from olmo.eval.metrics.metric import Grade
from olmo.eval.metrics.multiple_choice import METRICS
from olmo.eval.metrics.published_options import guessed_option
from olmo.eval.questions import split_example
from olmo.exceptions import OLMoDataError
from tests.data.families import test_benchmarks, test_general_qa, test_long_benchmarks, test_subtitle_benchmarks, test_temp_compass
from tests.data.families.conftest import miniature  # noqa: F401
from tests.data.families.fixtures import example
from tests.data.families.test_grounding import QV_FILES, qv

WRONG = {"A": "B", "B": "A", "C": "A", "D": "A"}


def nextqa(files):
    files.parquet("MC/test-00000-of-00001.parquet", [test_general_qa.NEXTQA | {"video": 4010069381, "answer": 2, "qid": 6}])


def perception_test(files):
    files.parquet("mc_question_val/validation-00000-of-00001.parquet", [test_general_qa.PERCEPTION_ROW])


BENCHMARKS = {
    "mvbench": ("mvbench", "validation", "MVBench", test_benchmarks.mvbench, "B", ["action_antonym"]),
    "tomato": ("tomato", "test", "TOMATO", test_benchmarks.tomato, "B", ["count"]),
    "motionbench": ("motionbench", "validation", "MotionBench", test_benchmarks.motionbench, "B", ["Motion Recognition"]),
    "ego_schema": ("ego_schema", "validation", "EgoSchema", test_benchmarks.ego_schema, "D", []),
    "temporal_bench": ("temporal_bench", "test", "TemporalBench", test_benchmarks.temporal_bench, "B", ["long_qa"]),
    "temporal_bench_mc": ("temporal_bench_mc", "test", "TemporalBench", test_benchmarks.temporal_bench, "B", ["long_qa"]),
    "mlvu_mc": ("mlvu_mc", "validation", "MVLU", test_long_benchmarks.mlvu, "B", ["plotQA"]),
    "lvbench": (
        *("lvbench", "test", "LVBench", test_long_benchmarks.lvbench, "D"),
        ["all_key information retrieval", "all_reasoning"],
    ),
    "video_eval_pro_mc": (
        *("video_eval_pro_mc", "test", "VideoEvalPro", test_long_benchmarks.video_eval_pro, "B"),
        ["Local Perception", "Entity Recognition"],
    ),
    "video_mme": (
        *("video_mme", "validation", "Video-MME", test_subtitle_benchmarks.video_mme, "C"),
        ["short", "all_category_Humanity & History", "all_task_Counting Problem"],
    ),
    "long_video_bench": (
        *("long_video_bench_no_subtitle", "validation", "LongVideoBench", test_subtitle_benchmarks.long_video_bench, "B"),
        ["duration_600", "all_TOS"],
    ),
    "nextqa_mc": ("nextqa_mc", "test", "NeXTQA", nextqa, "C", ["CH", "causal"]),
    "perception_test": ("perception_test", "validation", "perception_test", perception_test, "B", ["physics", "descriptive"]),
    "temp_compass": (
        *("temp_compass", "validation", "TempCompass", test_temp_compass.temp_compass, "B"),
        ["multi-choice", "multi-choice_action"],
    ),
}
"""Metric -> data set, split, folder, what writes it, right letter and groups of its first question."""


def first_record(miniature, name):  # noqa: F811
    dataset, split, folder, write, _, _ = BENCHMARKS[name]
    write(miniature(folder))
    asked = example(dataset, split)
    return split_example(asked, 0)[0].record | {"metadata": asked["metadata"]}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_from_the_file_to_the_grade(miniature, name):  # noqa: F811
    """Both readings of a plain letter agree; an answer in words or none is read alike in all benchmarks. Seen to fail with the
    instruction below the last option taken for a part of it."""
    record, metric = first_record(miniature, name), METRICS[name]
    *_, letter, groups = BENCHMARKS[name]
    published = 1.0 if name == "temporal_bench" else 0.0  # which compares the truth with itself
    for said, value in ((letter, 1.0), (f"{letter}.", 1.0), (WRONG[letter], 0.0), (f"{WRONG[letter]}.", 0.0)):
        answered = record | {"prediction": said}
        assert metric.grade(answered) == Grade(value) and metric.published(answered) == (value or published), said
    for said in (f"({letter})", f"The answer is {letter}", f"Answer: {letter}"):
        assert metric.grade(record | {"prediction": said}) == Grade(1.0), said
    for said in ("", "A man", f"{letter} or {WRONG[letter]}"):
        assert metric.grade(record | {"prediction": said}) == Grade(0.0, parsed=False), said
    assert list(metric.groups(record)) == groups


WORDS = {"mvbench": "lifting up", "ego_schema": "C does less", "lvbench": "1633", "video_mme": "Berries", "video_eval_pro_mc": "a dog"}


@pytest.mark.parametrize("name", WORDS)
def test_options_are_found_in_the_question(miniature, name):  # noqa: F811
    record = first_record(miniature, name)
    assert METRICS[name].grade(record | {"prediction": WORDS[name]}) == Grade(1.0)


def test_mlvu_is_the_mean_over_its_tasks(miniature):  # noqa: F811
    record = first_record(miniature, "mlvu_mc")
    assert METRICS["mlvu_mc"].headline == "average" and record["question_type"] == "plotQA"
    rule = METRICS["mlvu_mc"].more["mlvu_rule"]
    assert [rule(record | {"prediction": said}) for said in ("B", "(B) x", "B)", "B.", "(A) x")] == [1, 1, 1, 0, 0]


def test_groups_of_video_mme():
    kinds = {"sub_category": "Chess", "task_type": "OCR Problems"}
    groups = [METRICS["video_mme"].groups({"example_id": "1", "metadata": kinds | {"duration": d}}) for d in ("short", "medium", "long")]
    assert [names[0] for names in groups] == ["short", "medium", "long"]
    assert ["medium_long" in names for names in groups] == [False, True, True]
    assert all("all_category_Chess" in names and "all_task_OCR Problems" in names for names in groups)


@pytest.mark.parametrize(
    ("name", "prediction", "value", "published"),
    [
        ("mvbench", "Both of them", 0.0, 1.0),
        ("mvbench", "(B)", 1.0, 0.0),
        ("tomato", "nothing at all", 0.0, 0.0),
        ("perception_test", "A man opens B", 0.0, 0.0),
        ("perception_test", "b", 1.0, 0.0),
        ("video_mme", "b", 1.0, None),
        ("video_mme", "", 0.0, None),
        ("video_mme", "Best option: C", 0.0, 1.0),
        ("lvbench", "Because", 0.0, 1.0),
        ("ego_schema", "C. B", 0.0, 0.0),
        ("nextqa_mc", "C. B", 0.0, 1.0),
        ("temporal_bench", "A", 0.0, 1.0),
    ],
)
def test_where_published_evaluators_differ(name, prediction, value, published):
    record = {"example_id": "1", "prediction": prediction, "answer": "B", "options": ["w", "x", "y", "z"], "metadata": {}}
    assert (METRICS[name].grade(record).value, METRICS[name].published(record)) == (value, published)


@pytest.mark.parametrize("name", ["ego_schema", "nextqa_mc", "long_video_bench"])
def test_published_guesses(name):
    """Drawn for each question, and never for a video that could not be read."""
    ids = [f"q{i}" for i in range(40)]
    record = {"prediction": "nothing", "answer": "B", "options": ["w", "x", "y", "z"]}
    values = [METRICS[name].published(record | {"example_id": i}) for i in ids]
    assert values == [float(guessed_option(i, 4) == 1) for i in ids] and 0 < sum(values) < 40
    failed = {"failed": {"file": "x.mp4", "cause": "invalid", "message": "no frames"}}
    assert not any(METRICS[name].published(record | failed | {"example_id": i}) for i in ids)
    assert METRICS[name].grade(record | failed | {"example_id": "q0", "prediction": ""}) == Grade(0.0, parsed=False)


@pytest.mark.parametrize("name", ["tomato", "temporal_bench", "temporal_bench_mc"])
def test_what_is_most_similar_to_nothing(name):
    """The published evaluators find an answer even in silence, and none here where there was no video."""
    record = {"example_id": "1", "prediction": "", "answer": "A", "options": ["w", "x"]}
    assert METRICS[name].published(record) == 1.0
    failed = record | {"failed": {"file": "x.mp4", "cause": "invalid", "message": "no frames"}}
    assert METRICS[name].published(failed) == 0.0 and METRICS[name].grade(failed) == Grade(0.0, parsed=False)


def test_qv_highlights(miniature):  # noqa: F811
    files = miniature("QVHighlights")
    files.jsonl(QV_FILES["validation"], [qv(8737, ((0, 16), (82, 150)))])
    files.touch("videos/bP5KfdFJzC4_660.0_810.0.mp4")
    asked = example("qv_highlights", "validation")
    record = split_example(asked, 0)[0].record | {"metadata": asked["metadata"]}
    assert METRICS["qv_highlights"].grade(record | {"prediction": record["answer"]}) == Grade(1.0)


def test_missing_metadata_is_named():
    record = {"example_id": "q1", "prediction": "A", "answer": "A", "metadata": {"duration": "long"}}
    with pytest.raises(OLMoDataError, match="question q1: its 'metadata' has no 'sub_category', which its metric needs, but duration"):
        METRICS["video_mme"].groups(record)
    with pytest.raises(OLMoDataError, match="has no 'task_type', which its metric needs, but nothing"):
        METRICS["mvbench"].groups({"example_id": "q1"})
