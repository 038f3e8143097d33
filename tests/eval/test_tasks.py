"""Names on the command line -> task records."""

import pytest

from olmo.eval.metrics import METRICS
from olmo.eval.tasks import GROUPS, TASKS, parse_batch_size, resolve_tasks
from olmo.exceptions import OLMoCliError


def test_video_is_the_set_of_thirteen():
    titles = [t.title for t in resolve_tasks("video")]
    assert titles == [
        *("NeXTQA", "PerceptionTest", "MVBench", "TOMATO", "MotionBench", "TempCompass", "VideoMME", "VideoMME + subtitles"),
        *("LongVideoBench", "LongVideoBench + subtitles", "MLVU", "LVBench", "VideoEvalPro"),
    ]


def test_groups_and_tasks_mix_without_repetition():
    labels = [t.label for t in resolve_tasks("moving_shapes,long_video,mlvu_mc,moving_shapes:train, moving_shapes")]
    assert labels[0] == "moving_shapes:test" and labels[-1] == "moving_shapes:train"
    assert len(labels) == len(set(labels)) == 2 + len(GROUPS["long_video"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("moving_shape", "unknown task 'moving_shape'; did you mean 'moving_shapes'"),
        ("video,", "unknown task ''"),
        ("video:test", "a group takes no split"),
        ("zzz", "known: short_video"),
    ],
)
def test_wrong_names_are_refused_in_one_sentence(spec, message):
    with pytest.raises(OLMoCliError, match=message):
        resolve_tasks(spec)


def test_batch_sizes():
    assert parse_batch_size("3") == 3
    with pytest.raises(OLMoCliError, match="must be a positive number or one of 4b-default, 8b-default"):
        parse_batch_size("0")
    long, short = TASKS["lvbench"], TASKS["mvbench"]
    assert [t.batch_size(p) for t in (long, short) for p in ("4b-default", "8b-default", 5)] == [2, 1, 5, 2, 2, 5]


def test_metrics_named_by_tasks_exist():
    assert {t.metric for t in TASKS.values()} - {None} <= set(METRICS)
