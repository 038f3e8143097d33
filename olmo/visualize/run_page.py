"""The page of one training run, or of several beside each other: which quantities make a chart, and the facts around them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

import numpy as np

from olmo.pages.drawing import run_colours
from olmo.pages.files import template_environment
from olmo.train.callbacks.console import clock
from olmo.train.callbacks.jsonl import CLOCK
from olmo.visualize.run_chart import SHAPE, Line, Look, Mark, chart, number
from olmo.visualize.run_records import TIME, Curve, RunLog

LINE_COLOURS = ("#0f8a7e", "#c2703d", "#6d5bd0", "#b8435f", "#3f7cc4", "#8a94a6", "#7a8b2f")
"""Of the curves in a chart of one run."""
RECENT = 20
"""Steps that the numbers on top are means of."""
COUNTERS = re.compile(r"health/.*(spikes|skipped).*")
"""Counters of which every rise is marked in the charts of the loss."""


@dataclass(frozen=True)
class Panel:
    """Quantities that are drawn together."""

    section: str
    title: str
    keys: str
    """Regular expression for the whole key. What a group finds is the title of a chart of its own."""
    look: Look = field(default_factory=Look)


PANELS = (
    Panel("Learning", "loss", r"train/CrossEntropyLoss", Look(smooth=True, zero=True)),
    Panel("Learning", "accuracy of the next token", r"train/Accuracy", Look(smooth=True, zero=True)),
    Panel("Learning", "losses added to it", r"train/(?:AuxLoss|ZLoss)", Look(smooth=True, log=True)),
    Panel("Learning", "share of visual cells kept", r"train/kept_fraction", Look(zero=True)),
    Panel("Evaluation while training", "", r"eval/(.+)/[^/]+", Look(dots=True, zero=True)),
    Panel("Health", "since the run began", r"health/.+", Look(zero=True)),
    Panel("Optimiser", "learning rates", r"optim/.+_lr", Look(zero=True)),
    Panel("Optimiser", "norms of the gradients", r"optim/.+_grad_norm", Look(smooth=True, log=True)),
    Panel("Rows", "fill", r"data/(?:token|frame)_fill|batch/per_non_masked_tokens", Look(zero=True)),
    Panel("Rows", "tokens of a row", r"batch/(?:tokens_before_pruning|non_masked_tokens|loss_tokens)", Look(smooth=True, zero=True)),
    Panel("Rows", "examples and branches of a row", r"data/examples_per_row|batch/n_(?:packed|segments)", Look(smooth=True, zero=True)),
    Panel("Speed and memory", "seconds of a step, by what they go to", TIME + ".+", Look(stacked=True)),
    Panel("Speed and memory", "tokens per second and device", r"throughput/device/(?:loss_)?tokens_per_second", Look(zero=True)),
    Panel("Speed and memory", "frames per second and device", r"throughput/device/frames_per_second", Look(zero=True)),
    Panel("Speed and memory", "share of the device's peak", r"throughput/device/[mh]fu", Look(zero=True)),
    Panel("Speed and memory", "memory (MB)", r"System/.*Memory.*|memory/.+", Look(zero=True)),
    Panel("Everything else", "", r"(.+)", Look(smooth=True)),
)
"""Every key belongs to the first that matches."""
NOT_DRAWN = {
    *(f"throughput/{name}" for name in ("unix_time", "eta_seconds", "seconds_per_step", "data_wait_seconds", "data_wait_fraction")),
    *("throughput/save_pause_seconds", "throughput/device/batches_per_second", "eval/seconds"),
}
"""In the time of a step, or of no use over steps."""


def build_run_page(runs: Sequence[RunLog], *, renewed_every: float | None = None) -> str:
    """The page as HTML. `renewed_every`: seconds after which a browser loads it again; None = it is final."""
    colours = run_colours([run.name for run in runs]) if len(runs) > 1 else {runs[0].name: LINE_COLOURS[0]}
    sections: dict[str, list[dict[str, Any]]] = {}
    for section, drawn in charts(runs, colours):
        sections.setdefault(section, []).append(drawn)
    page = template_environment("olmo.visualize").get_template("run.html.j2")
    return page.render(
        title=" · ".join(run.name for run in runs),
        date=datetime.now().strftime("%d %B %Y, %H:%M:%S"),
        renewed_every=renewed_every,
        colours=colours,
        tiles=tiles(runs),
        sections=sections,
        shape=SHAPE,
        runs=runs,
        start_rows={run.name: [start_row(start) for start in run.starts] for run in runs},
    )


def charts(runs: Sequence[RunLog], colours: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(section, chart) of everything that was logged. Of one run, related quantities share a chart; of several, each has its own."""
    last_step = max(run.step for run in runs)
    keys = list(dict.fromkeys(key for run in runs for key in run.curves if key not in NOT_DRAWN))
    marks = {run.name: list(events(run, colours[run.name], of_several=len(runs) > 1)) for run in runs}
    for panel in PANELS:
        found = {key: match for key in keys if (match := re.fullmatch(panel.keys, key))}
        keys = [key for key in keys if key not in found]
        groups: dict[str, list[str]] = {}
        for key, match in found.items():
            groups.setdefault(match[1] if match.groups() else panel.title, []).append(key)
        for title, members in groups.items():
            for name, lines, of in drawn_together(panel, title, members, runs, colours):
                # A rise of a counter is an alarm where the loss is; elsewhere it would only be in the way.
                shown = [m for run in of for m in marks[run.name] if m.kind != "alarm" or panel.title == "loss"]
                yield panel.section, chart(name, lines, shown, last_step, panel.look)


def drawn_together(
    panel: Panel, title: str, keys: Sequence[str], runs: Sequence[RunLog], colours: dict[str, str]
) -> Iterator[tuple[str, list[Line], Sequence[RunLog]]]:
    """(title, curves, whose) of every chart of some keys."""
    if len(runs) == 1 or panel.look.stacked:
        for run in runs:
            there = [key for key in keys if key in run.curves and not (panel.look.stacked and not any(run.curves[key].values))]
            lines = [line(label(key), LINE_COLOURS[i % len(LINE_COLOURS)], run.curves[key]) for i, key in enumerate(there)]
            if lines:
                yield title if len(runs) == 1 else f"{title}: {run.name}", lines, [run]
        return
    for key in keys:
        of = [run for run in runs if key in run.curves]
        lines = [line(run.name, colours[run.name], run.curves[key]) for run in of]
        yield title if len(keys) == 1 else f"{title}: {label(key)}", lines, of


def line(name: str, colour: str, curve: Curve) -> Line:
    return Line(name, colour, *curve.arrays())


def label(key: str) -> str:
    """The last part of a key, without what all of its chart end in."""
    return key.rpartition("/")[2].removesuffix("_grad_norm").removesuffix("_lr").replace("_", " ")


def events(run: RunLog, colour: str, *, of_several: bool) -> Iterator[Mark]:
    """Where the run was started again and saved, and where a counter of its health rose."""
    whose = f"{run.name}: " if of_several else ""
    for number_, start in zip(count(1), run.starts):
        if start["step"]:
            yield Mark("start", start["step"], colour, f"{whose}start {number_} from step {start['step']}")
    for step in sorted(run.saved):
        yield Mark("checkpoint", step, colour, f"{whose}saved step {step}")
    for key, curve in run.curves.items():
        if COUNTERS.fullmatch(key):
            steps, values = curve.arrays()
            for step in steps[np.diff(values, prepend=0.0) > 0]:
                yield Mark("alarm", int(step), colour, f"{whose}{label(key)}, step {step}")


def tiles(runs: Sequence[RunLog]) -> list[dict[str, Any]]:
    """The numbers on top, one tile each, with a row per run."""
    rows = {
        "step": [(number(run.step), left(run)) for run in runs],
        f"loss, mean of {RECENT} steps": [(recent(run, "train/CrossEntropyLoss"), "") for run in runs],
        "accuracy of the next token": [(recent(run, "train/Accuracy"), "") for run in runs],
        "cells kept": [(recent(run, "train/kept_fraction"), "") for run in runs],
        "seconds of a step": [(recent(run, "throughput/seconds_per_step"), waiting(run)) for run in runs],
        "tokens per second and device": [(recent(run, "throughput/device/tokens_per_second"), "") for run in runs],
    }
    names = [run.name for run in runs]
    return [{"label": name, "values": list(zip(names, *zip(*cells, strict=True), strict=True))} for name, cells in rows.items()]


def recent(run: RunLog, key: str) -> str:
    values = np.array(run.curves[key].values[-RECENT:]) if key in run.curves else np.zeros(0)
    values = values[np.isfinite(values)]
    return number(float(f"{values.mean():.4g}")) if len(values) else "–"


def left(run: RunLog) -> str:
    """How long it will still take, or when it last gave a sign."""
    seconds = run.last.get("throughput/eta_seconds")
    if run.ended or seconds is None:
        return "at its end" if run.ended else ""
    silent = datetime.now().timestamp() - run.last.get(CLOCK, np.inf)
    if silent > 60 + 10 * (run.last.get("throughput/seconds_per_step") or 0):
        return f"silent for {clock(silent)}"
    return f"{clock(seconds)} left"


def waiting(run: RunLog) -> str:
    """Share of the recent time that went into waiting for data."""
    wait, step = (run.curves.get(f"throughput/{key}", Curve()).values[-RECENT:] for key in ("data_wait_seconds", "seconds_per_step"))
    return f"{100 * sum(wait) / total:.0f} % waiting" if (total := sum(step)) > 0 else ""


def start_row(start: dict[str, Any]) -> dict[str, str]:
    """One line of the table of starts."""
    commit = start["commit"] or "not known"
    versions = start["versions"]
    return {
        "time": datetime.fromisoformat(start["time"]).strftime("%d %b, %H:%M:%S"),
        "step": str(start["step"]),
        "from": start["checkpoint"] or "fresh weights",
        "machine": f"{start['world_size']} × {' / '.join(start['devices'])} on {', '.join(start['ranks_of_hosts'])}",
        "code": f"{start['versions']['olmo']}, commit {commit}{' with changes' if start['dirty'] else ''}",
        "software": f"python {versions['python']}, torch {versions.get('torch', '?')}, transformers {versions.get('transformers', '?')}",
        "command": start["command"],
    }
