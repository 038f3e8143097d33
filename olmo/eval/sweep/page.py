"""The page of a sweep: the chart, every setting with its numbers, and published numbers where there are any."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from olmo.eval.report.page import percent
from olmo.eval.report.page import write_page as fill
from olmo.eval.statistics import UNRELIABLE
from olmo.eval.sweep.chart import draw, save
from olmo.eval.sweep.plan import NOTHING_REMOVED, UNPRUNED
from olmo.eval.sweep.published import beside
from olmo.eval.sweep.results import over_seeds, pareto_front
from olmo.eval.sweep.run import Sweep
from olmo.eval.tasks import GROUPS, resolve_tasks

PUBLISHED_GROUP = "video"
"""The group whose published averages are drawn."""


def write_page(sweep: Sweep) -> Path:
    """`sweep.html` and `sweep.png` in the folder of the sweep."""
    settings = over_seeds(sweep.records)
    groups = groups_of([t.label for t in sweep.tasks])
    drawing = save(draw(settings, PUBLISHED_GROUP in groups), sweep.output / "sweep.png")
    fronts = {cost: pareto_front(settings, cost) for cost in ("seconds", "tokens")}
    titles = [f"{t.title} ({t.split})" for t in sweep.tasks]
    return fill(
        sweep.output / "sweep.html",
        "sweep.html.j2",
        date=datetime.now().strftime("%d %B %Y, %H:%M"),
        titles=titles,
        groups=groups,
        chart=drawing,
        drawn=PUBLISHED_GROUP in groups,
        rows=[_row(s, fronts) for s in settings],
        several=len(sweep.tasks) > 1,
        published=published_rows(settings, {t.label: t.name for t in sweep.tasks}, groups),
        left_out={**sweep.left_out, **sweep.failed},
        words=" ".join(sweep.words),
    )


def groups_of(labels: Sequence[str]) -> list[str]:
    """The groups that hold exactly these tasks, on their own splits."""
    return [name for name in GROUPS if {t.label for t in resolve_tasks(name)} == set(labels)]


def pruning(setting: Mapping[str, Any]) -> str:
    """In words for a table."""
    return NOTHING_REMOVED if setting["method"] == UNPRUNED else f"{setting['method']}, {100 * setting['topk']:g} % removed"


def _row(setting: Mapping[str, Any], fronts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    interval = f"{100 * setting['low']:.1f}–{100 * setting['high']:.1f}" + ("" if setting["reliable"] else f", {UNRELIABLE}")
    low, high = setting["spread"]
    return {
        "label": setting["label"],
        "frames": setting["frames"],
        "pruning": pruning(setting),
        "n": sum(t["n"] for t in setting["tasks"].values()),
        "value": percent(setting["value"]),
        "interval": interval,
        "seeds": f"{len(setting['seeds'])} seeds, {100 * low:.1f}–{100 * high:.1f}" if len(setting["seeds"]) > 1 else "",
        "tokens": f"{setting['tokens']:.0f}",
        "tokens_before": f"{setting['tokens_before']:.0f}",
        **{key: "–" if setting[key] is None else f"{1000 * setting[key]:.1f}" for key in ("seconds", "reading")},
        "front": [cost for cost, front in fronts.items() if any(setting is s for s in front)],
    }


def published_rows(settings: Sequence[Mapping[str, Any]], names: Mapping[str, str], groups: Sequence[str]) -> list[dict[str, Any]]:
    """Ours and theirs where frames, method, share and tasks are the same. `names`: label of a task -> its name."""
    rows = []
    for setting in settings:
        ours = {names[label]: task["value"] for label, task in setting["tasks"].items()} | dict.fromkeys(groups, setting["value"])
        for p in beside(setting["frames"], setting["method"], setting["topk"], ours):
            theirs = f"{'about ' if p.about else ''}{p.value:.1f} %"
            row = {"label": setting["label"], "frames": setting["frames"], "pruning": pruning(setting), "tasks": p.tasks}
            rows.append(row | {"ours": percent(ours[p.tasks]), "theirs": theirs, "source": p.source})
    return rows
