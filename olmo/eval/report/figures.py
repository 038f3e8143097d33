"""Charts of the report, drawn as SVG text so that they stay sharp and the page needs no other file."""

import base64
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from olmo.eval.statistics import Score
from olmo.pages.drawing import running_mean

INK, SOFT, LINE = "#1f2430", "#667085", "#d9dde5"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


def loss_curves(curves: Mapping[str, Sequence[tuple[int, float]]], colours: Mapping[str, str], ylabel: str) -> str:
    """Training loss of every run over its steps: the raw values pale, a running mean on top. Colours are those of `olmo.pages.drawing`."""
    fig, ax = axes(11.0, 3.4)
    for name, points in curves.items():
        colour = colours[name]
        steps, losses = np.array(points, dtype=float).T
        ax.plot(steps, losses, color=colour, alpha=0.22, linewidth=0.8)
        ax.plot(steps, running_mean(losses, max(1, len(losses) // 40)), color=colour, linewidth=1.9, label=name)
    ax.set_xlabel("step")
    ax.set_ylabel(ylabel)
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    ax.legend(frameon=False, loc="upper right")
    return svg(fig)


def accuracy_bars(scores: Mapping[str, Mapping[str, Score]], colours: Mapping[str, str]) -> str:
    """Accuracy per question type and run with 95 % intervals; the dark line across a group is chance."""
    types = list(dict.fromkeys(t for by_type in scores.values() for t in by_type))
    fig, ax = axes(11.0, 4.0)
    width = 0.72 / len(scores)
    for i, (run, by_type) in enumerate(scores.items()):
        at = [j + (i - (len(scores) - 1) / 2) * width for j, t in enumerate(types) if t in by_type]
        row = [by_type[t] for t in types if t in by_type]
        errors = [[s.value - s.low for s in row], [s.high - s.value for s in row]]
        ax.bar(at, [s.value for s in row], width * 0.92, color=colours[run], label=run, zorder=2)
        ax.errorbar(at, [s.value for s in row], np.abs(errors), fmt="none", ecolor=INK, elinewidth=1.0, capsize=2.5, zorder=3)
    for j, t in enumerate(types):
        chance = next((s[t].chance for s in scores.values() if t in s), None)
        if chance is not None:
            label = "chance" if j == 0 else None
            ax.hlines(chance, j - 0.43, j + 0.43, color="#b42318", linewidth=1.4, linestyle=(0, (3, 2)), zorder=4, label=label)
    ax.set_xticks(range(len(types)), [t.replace("_", " ") for t in types])
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(0, 1.04)
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}".replace("%", " %"))
    ax.set_ylabel("right answers")
    ax.legend(frameon=False, ncols=len(scores) + 1, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return svg(fig)


def score_dots(scores: Mapping[str, Mapping[str, Score]], colours: Mapping[str, str]) -> str:
    """Value and interval of every task (rows) and run (colours)."""
    tasks = list(dict.fromkeys(t for by_task in scores.values() for t in by_task))
    fig, ax = axes(11.0, 0.9 + 0.34 * max(1, len(tasks)))
    for i, (run, by_task) in enumerate(scores.items()):
        at = [j + 0.5 * ((i + 0.5) / len(scores) - 0.5) for j, t in enumerate(tasks) if t in by_task]
        row = [by_task[t] for t in tasks if t in by_task]
        errors = np.abs([[s.value - s.low for s in row], [s.high - s.value for s in row]])
        ax.errorbar([s.value for s in row], at, xerr=errors, fmt="o", ms=5, color=colours[run], elinewidth=1.3, capsize=2, label=run)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=LINE, linewidth=0.7, zorder=0)
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}".replace("%", " %"))
    ax.legend(frameon=False, ncols=len(scores), loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return svg(fig)


def axes(width: float, height: float):
    """A figure of so many inches, and its plot."""
    fig, (ax,) = panels(width, height, 1)
    return fig, ax


def panels(width: float, height: float, columns: int):
    """A figure of so many inches, and its plots side by side."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9.5, "font.family": "DejaVu Sans"}):
        fig = Figure(figsize=(width, height), layout="constrained")
        plots = [fig.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in plots:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(LINE)
        ax.grid(axis="y", color=LINE, linewidth=0.7, zorder=0)
        ax.set_axisbelow(True)
        ax.tick_params(colors=SOFT, length=3, width=0.7)
        ax.xaxis.label.set_color(SOFT)
        ax.yaxis.label.set_color(SOFT)
    return fig, plots


def svg(fig) -> str:
    """The figure as a data URL; text stays text and takes the fonts of the page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "DejaVu Sans"}):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"'?DejaVu Sans'?", FONT, buffer.getvalue())
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
