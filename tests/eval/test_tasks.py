"""Names on the command line -> task records, and what is told about them without any data."""

import subprocess
import sys

import pytest

from olmo.data.catalogue import ALIASES, ROWS
from olmo.eval.listing import data_state, describe, status
from olmo.eval.metrics import METRICS
from olmo.eval.task import parse_batch_size
from olmo.eval.task_table import AVERAGES, GROUPS, TASKS
from olmo.eval.tasks import resolve_tasks
from olmo.exceptions import OLMoCliError


@pytest.fixture(autouse=True)
def _no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))


def test_video_is_the_set_of_thirteen():
    titles = [t.title for t in resolve_tasks("video")]
    assert titles == [
        *("NeXTQA", "PerceptionTest", "MVBench", "TOMATO", "MotionBench", "TempCompass", "VideoMME", "VideoMME + subtitles"),
        *("LongVideoBench", "LongVideoBench + subtitles", "MLVU", "LVBench", "VideoEvalPro"),
    ]
    assert "temp_compass_multi-choice:validation" in [t.label for t in resolve_tasks("video")]
    averages = AVERAGES["video"]
    assert averages["short"] == GROUPS["video"][:6] and averages["long"] == GROUPS["video"][6:] and averages["overall"] == GROUPS["video"]


def test_video_molmo2_is_the_published_group_of_fifteen():
    labels = [t.label for t in resolve_tasks("video_molmo2")]
    assert len(labels) == 15 and labels == [t.label for t in resolve_tasks("short_video,long_video")]
    assert {"tomato:test", "nextqa_mc:test", "lvbench:test", "molmo2_captions_eval:test", "temp_compass_internal:validation"} < set(labels)
    assert set(GROUPS["video_no_subtitle"]) | set(GROUPS["video_subtitle"]) == set(GROUPS["video_molmo2"])
    assert len(GROUPS["video_no_subtitle"]) == 12


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_resolves(group):
    tasks = resolve_tasks(group)
    assert len(tasks) == len(set(GROUPS[group])) == len({t.label for t in tasks})
    later = {"tracking", "multi_image", "image_pointing", "single_image", "single_image_test"}
    assert {status(t) == "no reader yet" for t in tasks} == (
        {True} if group in later else {True, False} if group == "video_pointing" else {False}
    )


def test_published_names_and_their_splits():
    asked = (
        "vixmo_caps_eval2:test,vixmo_points_count_clip_63s:val,vixmo_points_count,vixmo_points_point_eval:val,long_video_bench,mlvu,lvbench"
    )
    assert [t.label for t in resolve_tasks(asked)] == [
        *("molmo2_captions_eval:test", "molmo2_video_count_eval:val", "molmo2_video_point_eval:val"),
        *("long_video_bench_no_subtitle:validation", "mlvu_mc:validation", "lvbench:test"),
    ]
    for alias, target in ALIASES.items():
        if target.partition(":")[0] in TASKS:
            (task,) = resolve_tasks(alias)
            assert task.name == target.partition(":")[0] and target in (task.name, task.label)


def test_splits_without_answers_have_no_metric():
    """Seen to fail when a split only replaces the split of the record."""
    tasks = {t.label: (t.metric, status(t).rpartition(", ")[2]) for t in resolve_tasks("test_video,ego_schema,motionbench")}
    assert tasks == {
        "mlvu_mc:test": ("mlvu_mc", "data missing"),
        "ego_schema:validation": ("ego_schema", "data missing"),
        "motionbench:validation": ("motionbench", "data missing"),
        **{
            f"{n}:test": (None, "predictions only") for n in ("perception_test", "ego_schema", "motionbench", "long_video_bench_w_subtitle")
        },
    }


def test_groups_and_tasks_mix_without_repetition():
    labels = [t.label for t in resolve_tasks("moving_shapes,long_video,mlvu_mc,moving_shapes:train, moving_shapes")]
    assert labels[0] == "moving_shapes:test" and labels[-1] == "moving_shapes:train"
    assert len(labels) == len(set(labels)) == 2 + len(GROUPS["long_video"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("moving_shape", "unknown task 'moving_shape'; did you mean 'moving_shapes'"),
        ("vixmo_caps_eval3", "did you mean 'vixmo_caps_eval2'"),
        ("video,", "unknown task ''"),
        ("video:test", "a group takes no split"),
        ("zzz", "known: video"),
    ],
)
def test_wrong_names_are_refused_in_one_sentence(spec, message):
    with pytest.raises(OLMoCliError, match=message):
        resolve_tasks(spec)


def test_batch_sizes():
    """Of the published presets."""
    assert parse_batch_size("3") == 3
    with pytest.raises(OLMoCliError, match="must be a positive number or one of 4b-default, 8b-default"):
        parse_batch_size("0")
    rows = {"lvbench": (2, 1, 5), "mvbench": (2, 2, 5), "molmo2_video_count_eval": (2, 1, 5), "molmo2_video_point_eval": (1, 1, 5)}
    rows |= {"mevis_track_eval_1fps": (1, 1, 5), "text_vqa": (4, 4, 5), "point_bench": (4, 4, 5), "mmiu": (2, 2, 5)}
    for name, sizes in rows.items():
        assert tuple(TASKS[name].batch_size(p) for p in ("4b-default", "8b-default", 5)) == sizes, name


def test_longest_answers():
    """The published defaults: 12 tokens unless listed."""
    listed = {8: {"moving_shapes"}, 40: {"qv_highlights"}, 64: {"mmmu_test"}, 256: {"point_bench"}, 384: {"pixmo_ask_model_anything"}}
    listed[32] = {"mvbench", "video_eval_pro_mc", "ego_schema", "muir_bench", "tomato", "temporal_bench", "temporal_bench_mc", "mmiu"}
    listed[32] |= {"ai2_diagram_v2_mix_transparent", "a_okvqa_mc", "math_vista_v2"}
    listed[192] = {"pointing_eval_v2", "countbench_qa", "pixmo_count_counting", "mlvu_gen", "video_eval_pro_open"} | {
        n for n in TASKS if "temp_compass" in n
    }
    listed[2048] = {"molmo2_captions_eval", "molmo2_video_count_eval", "molmo2_video_point_eval"}
    listed[4096] = {n for n in TASKS if "track" in n}
    expected = {name: length for length, names in listed.items() for name in names}
    assert {t.name: t.max_new_tokens for t in TASKS.values()} == {name: expected.get(name, 12) for name in TASKS}


def test_metrics_named_by_tasks_exist():
    """Those of tasks that can be read; what is scored by a judge has its metric there as well."""
    named = {t.metric for t in TASKS.values() if data_state(t) != "no reader yet"}
    assert None not in named and named <= set(METRICS)


def test_every_benchmark_of_the_catalogue_is_a_task():
    """Whatever has no training split is there to be evaluated."""
    assert {name for name, row in ROWS.items() if "train" not in row.splits} <= set(TASKS)


def test_the_list_needs_neither_data_nor_torch(repo):
    """One task per line; it answers before torch is imported."""
    code = (
        "import sys; sys.path.insert(0, 'launch_scripts'); import eval_molmo2; "
        "eval_molmo2.main(['--list_tasks', '--mode=video']); assert 'torch' not in sys.modules"
    )
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(repo), "MOLMO_DATA_DIR": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 13 and [line[0] for line in lines] == [t.name for t in resolve_tasks("video")]
    assert lines[3] == ["tomato", "test", "1484", "tomato", "data", "missing"] and lines[0][2] == "?"


def test_states(tmp_path):
    """Ready as soon as the annotation files are there. Seen to fail with any one file taken for all."""
    (task,) = resolve_tasks("video_mme_w_subtitle")
    folder = tmp_path / "video_datasets" / "Video-MME"
    (folder / "videomme").mkdir(parents=True)
    (folder / "videomme" / "test-0.parquet").touch()
    assert status(task) == "data missing"
    (folder / "subtitles.json").touch()
    assert status(task) == "ready" and status(resolve_tasks("moving_shapes")[0]) == "ready"
    assert status(resolve_tasks("mvbench:test")[0]) == "no such split"
    assert status(resolve_tasks("mlvu_gen")[0]) == "data missing, needs judge"
    assert describe(resolve_tasks("pixmo_cap")) == "pixmo_cap  validation  ?  -  no reader yet"
