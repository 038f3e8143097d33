"""Accuracy against what it costs: every setting of a sweep with its interval, the Pareto front, and published averages."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmo.budget import pruning_budget
from olmo.eval.report.figures import INK, SOFT, panels, svg
from olmo.eval.sweep.plan import NOTHING_REMOVED, UNPRUNED
from olmo.eval.sweep.published import AVERAGES, SPEED
from olmo.eval.sweep.results import pareto_front
from olmo.exceptions import OLMoEnvironmentError
from olmo.pages.drawing import run_colours

COSTS = {"seconds": "seconds per question, in the model", "tokens": "tokens per question, in the language model"}
"""What is drawn along the x axes."""
SHAPES = "osD^vP"
MAX_LABELS = 14
"""Settings up to which every one is labelled, not those of the front alone."""
LOG_FROM = 8.0
"""Ratio of the largest cost to the smallest from which its axis is logarithmic."""
PUBLISHED_CELLS = 81
"""Visual tokens of a frame of the published models."""

Setting = Mapping[str, Any]


def draw(settings: Sequence[Setting], with_published: bool):
    """The figure: one plot per cost. `with_published`: whether the settings are means over the tasks of the published averages."""
    fig, plots = panels(11.0, 4.9, len(COSTS))
    methods = list(dict.fromkeys([UNPRUNED, *(s["method"] for s in settings)]))
    colours = run_colours(methods)
    shapes = {label: SHAPES[i % len(SHAPES)] for i, label in enumerate(dict.fromkeys(s["label"] for s in settings))}
    for ax, (cost, title) in zip(plots, COSTS.items(), strict=True):
        _plot(ax, settings, cost, colours, shapes)
        if with_published:
            _published(ax, settings, cost, colours)
        ax.set_xlabel(title)
        ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    plots[0].set_ylabel("right answers, 95 % interval")
    shown = {s["method"] for s in settings}
    handles = [_mark("o", colours[m], NOTHING_REMOVED if m == UNPRUNED else m) for m in methods if m in shown]
    handles += [_mark(shape, SOFT, label) for label, shape in shapes.items()] if len(shapes) > 1 else []
    handles.append(_line())
    if with_published:
        handles.append(_mark("*", SOFT, "published, 4B", hollow=True))
    fig.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    return fig


def save(fig, png: Path) -> str:
    """Write the figure as a PNG file; returns it as a data URL for the page."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=160, facecolor="white")
    try:
        png.write_bytes(buffer.getvalue())
    except OSError as err:
        raise OLMoEnvironmentError(f"cannot write {png}: {err.strerror or err}") from None
    return svg(fig)


def label(setting: Setting) -> str:
    """Frames, and the share that is removed."""
    return f"{setting['frames']}" + (f" · {100 * setting['topk']:g} %" if setting["method"] != UNPRUNED else "")


def _plot(ax, settings: Sequence[Setting], cost: str, colours: Mapping[str, str], shapes: Mapping[str, str]) -> None:
    known = [s for s in settings if s[cost] is not None]
    if not known:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=SOFT)
        return
    front = pareto_front(known, cost)
    ax.step([s[cost] for s in front], [s["value"] for s in front], where="post", color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
    for s in known:
        colour, errors = colours[s["method"]], [[s["value"] - s["low"]], [s["high"] - s["value"]]]
        ax.errorbar([s[cost]], [s["value"]], errors, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2, alpha=0.45, zorder=1)
        ax.plot([s[cost]], [s["value"]], shapes[s["label"]], color=colour, markersize=6.5, markeredgecolor="white", zorder=3)
        best = any(s is f for f in front)
        if best or len(known) <= MAX_LABELS:  # those of the front above it, the others below
            place = {"xytext": (-4, 5), "ha": "right"} if best else {"xytext": (5, -10), "ha": "left"}
            ax.annotate(label(s), (s[cost], s["value"]), textcoords="offset points", fontsize=7.5, color=SOFT, **place)
    costs = [s[cost] for s in known]
    if max(costs) > LOG_FROM * min(costs):
        _logarithmic(ax)
    ax.margins(x=0.12, y=0.12)


def _logarithmic(ax) -> None:
    """With ticks at 1, 2 and 5 that are written as numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _published(ax, settings: Sequence[Setting], cost: str, colours: Mapping[str, str]) -> None:
    """Published averages as hollow stars: at the most visual tokens that a video can have, or at our seconds for the unpruned model
    divided by the published gain in speed (where both are known)."""
    for p in AVERAGES:
        x = None
        if cost == "tokens":
            x = p.frames * PUBLISHED_CELLS - pruning_budget(p.frames, PUBLISHED_CELLS, p.topk)
        elif p.method in (UNPRUNED, "scorer"):
            own = [s[cost] for s in settings if s["method"] == UNPRUNED and s["frames"] == p.frames and s[cost] is not None]
            speed = 1.0 if p.method == UNPRUNED else SPEED.get((p.frames, p.topk))
            x = own[0] / speed if own and speed else None
        if x is not None:
            style = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": colours.get(p.method, SOFT)}
            ax.plot([x], [p.value / 100], "*", zorder=4, **style)
            name = "unpruned" if p.method == UNPRUNED else f"{p.method} {100 * p.topk:g} %"
            ax.annotate(name, (x, p.value / 100), xytext=(7, -3), textcoords="offset points", fontsize=7, color=SOFT)


def _mark(shape: str, colour: str, name: str, hollow: bool = False):
    from matplotlib.lines import Line2D

    face = "none" if hollow else colour
    return Line2D([], [], linestyle="none", marker=shape, markersize=7, markerfacecolor=face, markeredgecolor=colour, label=name)


def _line():
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, linewidth=1.1, linestyle=(0, (4, 2)), label="Pareto front")
