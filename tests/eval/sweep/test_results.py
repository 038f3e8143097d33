"""From the records of points to settings, to the Pareto front and to the page."""

import json
import re

import pytest

from olmo.eval.metrics import METRICS
from olmo.eval.statistics import average_of_tasks
from olmo.eval.sweep.chart import PUBLISHED_CELLS
from olmo.eval.sweep.page import groups_of, published_rows, write_page
from olmo.eval.sweep.plan import Point
from olmo.eval.sweep.published import AVERAGES, PUBLISHED, beside
from olmo.eval.sweep.results import over_seeds, pareto_front, read_point
from olmo.eval.sweep.run import Sweep
from olmo.eval.tasks import GROUPS, TASKS, resolve_tasks
from olmo.exceptions import OLMoEnvironmentError
from tests.eval.statistics.records import record as record_of


def record(method="none", topk=0.0, seed=None, value=0.5, cost=1.0, frames=64, tasks=("moving_shapes:test",)):
    by_task = {t: {"value": value, "n": 10} for t in tasks}
    spent = {"tokens": 100 * cost, "tokens_before": 200.0, "seconds": cost, "reading": 0.1}
    setting = {"name": "p", "label": "a", "frames": frames, "topk": topk, "method": method, "seed": seed}
    return {**setting, "value": value, "low": value - 0.1, "high": value + 0.1, "reliable": True, **spent, "tasks": by_task}


def test_front_equals_the_definition():
    """Against every pair. Seen to fail when settings of equal cost are not ordered by their value."""
    settings = [{"c": c, "value": v} for c, v in [(1, 0.3), (1, 0.4), (2, 0.4), (3, 0.5), (4, 0.2), (5, 0.9), (5, 0.8)]]

    def beaten(s):
        return any(o["c"] <= s["c"] and o["value"] >= s["value"] and (o["c"], o["value"]) != (s["c"], s["value"]) for o in settings)

    assert pareto_front(settings, "c") == [s for s in sorted(settings, key=lambda s: s["c"]) if not beaten(s)]
    assert pareto_front([{"c": None, "value": 1.0}], "c") == []


def test_seeds_are_one_setting():
    rows = over_seeds([record("random", 0.5, 0, 0.4), record("random", 0.5, 1, 0.6), record("scorer", 0.5)])
    assert len(rows) == 2 and rows[0]["seeds"] == [0, 1] and rows[1]["seeds"] == []
    assert (rows[0]["value"], rows[0]["spread"]) == (pytest.approx(0.5), [0.4, 0.6])
    assert rows[0]["high"] - rows[0]["low"] == pytest.approx(0.2)  # more seeds are not more questions
    unknown = over_seeds([record("random", 0.5, 0), record("random", 0.5, 1) | {"seconds": None}])
    assert unknown[0]["seconds"] is None


def write_results(folder, name, right, seconds):
    """Ten questions about five videos, of which the first `right` are answered."""
    path = folder / "stts" / f"predictions-ck3-{name}-all-f8-k0.5-0123abcd"
    path.mkdir(parents=True)
    answers = [record_of(i, "all", i < right, video=i // 2) for i in range(10)]
    (path / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in answers))
    score = {"value": right / 10, "low": 0.0, "high": 1.0, "n": 10, "reliable": True, "unparsed": 1}
    content = {"scores": {"average": score, "all": score | {"value": 0.0}}, "headline": "average", "failed": {"questions": 2}}
    (path / "metrics.json").write_text(json.dumps(content | {"seconds": seconds, "tokens_before": 90.0, "tokens_after": 60.0}))
    return answers


def test_a_point_is_the_mean_of_its_tasks(tmp_path):
    """Its interval is that of means over tasks anywhere: here both tasks are about the same videos, so their errors go together."""
    point, tasks = Point("runs/stts", "stts", 8, 0.5, "scorer"), resolve_tasks([f"{tmp_path}/one.jsonl", f"{tmp_path}/two.jsonl"])
    one = write_results(tmp_path, "one", 6, {"questions": 10, "video": 5.0, "vision": 1.0, "decode": 1.0})
    with pytest.raises(OLMoEnvironmentError, match="left no results of two:all"):
        read_point(point, tmp_path, tasks)
    two = write_results(tmp_path, "two", 4, {"questions": 10, "video": 5.0, "vision": 3.0, "decode": 1.0})
    found, mean = (
        read_point(point, tmp_path, tasks),
        average_of_tasks([(METRICS["option_or_answer"], one), (METRICS["option_or_answer"], two)]),
    )
    assert found["value"] == pytest.approx(0.5)
    assert (found["low"], found["high"], found["reliable"]) == (mean.low, mean.high, False)
    assert (found["seconds"], found["reading"], found["tokens"]) == (pytest.approx(0.3), pytest.approx(0.5), 60)
    assert found["tasks"]["one:all"]["unreadable"] == 2


def test_a_point_whose_answers_were_all_there_has_no_time(tmp_path):
    write_results(tmp_path, "one", 4, {})
    assert read_point(Point("runs/stts", "stts", 8, 0.5, "scorer"), tmp_path, resolve_tasks(f"{tmp_path}/one.jsonl"))["seconds"] is None


def test_published_numbers_are_of_known_tasks():
    assert all(p.tasks in TASKS or p.tasks in GROUPS for p in PUBLISHED)
    assert len(GROUPS["video"]) == 13 and all(p.tasks == "video" and p.frames == 64 for p in AVERAGES)
    assert [p.value for p in beside(64, "scorer", 0.5, ["video"])] == [62.3]
    assert beside(32, "scorer", 0.5, ["video"]) == [] and beside(64, "scorer", 0.5, ["mvbench"]) == []


def test_ours_beside_theirs():
    labels = [t.label for t in resolve_tasks("video")]
    assert groups_of(labels) == ["video"] and groups_of(["moving_shapes:test"]) == []
    names = {t.label: t.name for t in resolve_tasks("video")}
    rows = published_rows(over_seeds([record("heuristic", 0.5, value=0.6, tasks=labels)]), names, ["video"])
    assert [(r["tasks"], r["ours"], r["theirs"]) for r in rows] == [("video", "60.0 %", "about 60.4 %")]


@pytest.mark.parametrize("tasks", ["moving_shapes", "video"])
def test_page(tmp_path, tasks):
    """Self-contained, with every setting; published averages are drawn for the 13 tasks only."""
    found = resolve_tasks(tasks)
    labels = [t.label for t in found]
    records = [
        record(tasks=labels),
        *(record("random", 0.5, s, 0.4 + s / 50, 0.5, tasks=labels) for s in (0, 1)),
        record("scorer", 0.5, None, 0.45, 0.5, 128, labels),
    ]
    sweep = Sweep([], found, tmp_path, tmp_path / "none.py", records=records, left_out={"b-f4": "<no scorer>"})
    page = write_page(sweep).read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources and all(s.startswith("data:image/") for s in sources)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for expected in ("50.0 % (40.0–60.0)", "2 seeds, 40.0–42.0", "&lt;no scorer&gt;", "500.0", "seconds, tokens"):
        assert expected in text, expected
    published = tasks == "video"
    assert ("Hollow stars" in text) == published and ("63.0 %" in text) == published and ("None is known" in text) != published
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_published_tokens_are_those_of_the_published_shapes():
    from olmo.budget import pruning_budget

    assert 64 * PUBLISHED_CELLS - pruning_budget(64, PUBLISHED_CELLS, 0.5) == 2592
