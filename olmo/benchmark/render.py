"""The page of measurements, and its pictures, from the files of rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from olmo.benchmark.results import Row, has_rows, read_json
from olmo.exceptions import OLMoDataError

INTRODUCTION = """\
# Measurements

Written by `python scripts/benchmark.py page` from the files below `benchmarks/results/`; do not edit. What the numbers mean, and where
the time goes: [performance.md](performance.md).

Every row compares two ways in turns (A B A B ...) in one process. *Speed-up* is the median of the ratios within a round, *ideal* the ratio
of floating point operations (`olmo/nn/flops.py`), *share* the first divided by the second. Seconds are medians with the
distance of the quartiles. Weights are random and frames are noise: times do not depend on values.
"""
TITLES = {
    "published_case": "ViT and connector in the shape that was measured with the published code",
    "vit": "The vision transformer alone",
    "step": "A training step of the whole model, optimiser included",
    "llm": "The language model reading a prompt, features given",
    "generate": "Answering requests at once",
    "decode": "Decoding frames, each resized to 378 x 378",
    "pack": "Packing examples into rows",
}
PUBLISHED = {"published_case/forward": 1.17, "published_case/training": 1.14}
"""Speed-ups of the published code in that shape, on a machine of this kind (two CPU cores)."""


def write_page(results: Path, page: Path) -> Path:
    """All files of rows to one Markdown page with a picture beside it for each."""
    contents = {file: content for file in sorted(results.glob("*.json")) if has_rows(content := read_json(file))}
    if not contents:
        raise OLMoDataError(f"there is no file of measurements below {results}; run scripts/benchmark.py first")
    parts = [INTRODUCTION]
    for file, content in contents.items():
        rows = [Row(**row) for row in content["rows"]]
        parts.append(f"## {file.stem}\n\n{describe_environment(content['environment'], rows)}\n")
        picture = page.with_name(f"{page.stem}_{file.stem}.png")
        if plot([r for r in rows if r.part in ("vit", "step", "published_case") and r.ideal_speedup], picture):
            parts.append(f"![speed-up against the ideal]({picture.name})\n")
        parts += [
            f"### {title}\n\n{table(part, mine)}\n" for part, title in TITLES.items() if (mine := [r for r in rows if r.part == part])
        ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts))
    return page


def describe_environment(environment: dict[str, Any], rows: Sequence[Row]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    machine = f"{environment['device']}, {environment['threads']} threads, Python {environment['python']}"
    commits = ", ".join(sorted({row.commit or "not known" for row in rows}))
    return f"{machine}, {packages}; commit {commits}."


def table(part: str, rows: Sequence[Row]) -> str:
    if part == "decode":
        return _decode_table(rows)
    if part == "pack":
        return _pack_table(rows)
    if part == "generate":
        return _generate_table(rows)
    return _speed_table(rows)


def _lines(head: str, rows: list[list[str]]) -> str:
    columns = head.split("|")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [[c.strip() for c in columns], ["---"] * len(columns), *rows])


def _seconds(median: float | None, iqr: float | None) -> str:
    return "" if median is None else f"{median:.3g} ± {iqr:.1g}"


def _speed_table(rows: Sequence[Row]) -> str:
    cells = []
    for r in rows:
        published = PUBLISHED.get(f"{r.part}/{r.direction}")
        fraction = "" if r.ideal_fraction is None else f"{100 * r.ideal_fraction:.0f} %"
        ideal = "" if r.ideal_speedup is None else f"{r.ideal_speedup:.2f}"
        note = f"published code: {published:.2f}" if published else ""
        times = _seconds(r.baseline_seconds_median, r.baseline_seconds_iqr), _seconds(r.seconds_median, r.seconds_iqr)
        kind = [r.method, f"{r.topk:g}", r.packing, str(r.frames), r.direction, r.baseline]
        cells.append([*kind, *times, f"**{r.speedup:.2f}**", ideal, fraction, _memory(r), note])
    head = "method|removed|packing|frames|pass|compared with|its seconds|seconds|speed-up|ideal|share|memory|note"
    return _lines(head, cells)


def _memory(row: Row) -> str:
    return f"{row.peak_bytes / row.baseline_peak_bytes:.2f}x" if row.peak_bytes and row.baseline_peak_bytes else ""


def _generate_table(rows: Sequence[Row]) -> str:
    cells = []
    for r in rows:
        for name, stages in r.details["stages"].items():
            times = [f"{stages.get(stage, 0):.3f}" for stage in ("vision", "prefill", "decode")]
            per_token = f"{1000 * stages.get('decode', 0) / r.details['new_tokens']:.1f}"
            cells.append([str(r.details["requests"]), name, f"{0 if name == 'unpruned' else r.topk:g}", *times, per_token])
    return _lines("requests|method|removed|vision, s|reading, s|writing, s|ms per token", cells)


_READER_COLUMNS = {
    "frames_per_second": ("frames per second", ".0f"),
    "frames_per_core_second": ("per second of one core", ".0f"),
    "isolation": ("times as long as without a child", ".2f"),
    "difference": ("grey levels from PyAV's pictures", ".2f"),
}


def _decode_table(rows: Sequence[Row]) -> str:
    decoded = [r for r in rows if r.method != "training"]
    columns = {k: v for k, v in _READER_COLUMNS.items() if all(k in r.details for r in decoded)}
    readers = [
        [
            *(r.method, r.details["resolution"], str(r.frames), _seconds(r.seconds_median, r.seconds_iqr)),
            *(format(r.details[k], style) for k, (_, style) in columns.items()),
        ]
        for r in decoded
    ]
    trainings = [
        [
            str(r.details["workers"]),
            str(r.details["cores"]),
            _seconds(r.seconds_median, r.seconds_iqr),
            f"{100 * r.details['wait_fraction']:.1f} %",
        ]
        for r in rows
        if r.method == "training"
    ]
    head = "|".join(["reader|resolution|frames of 10 s|seconds", *(name for name, _ in columns.values())])
    tables = [_lines(head, readers)] if readers else []
    tables += [_lines("workers of a tiny training|cores|seconds per step|share of them waiting for data", trainings)] if trainings else []
    return "\n\n".join(tables)


def _pack_table(rows: Sequence[Row]) -> str:
    cells = []
    for r in rows:
        d = r.details
        fills = [f"{100 * d[k]:.1f} %" for k in ("token_fill", "frame_fill")]
        scarce = d["scarce"] == "frames"
        fills[scarce] = f"**{fills[scarce]}**"
        bounds = [f"{100 * d[k]:.1f} %" for k in ("possible", "published_filled")]
        waits = [str(d["pool"]), f"{d['longest_wait']} of {d['max_age']}"]
        cells.append([f"{r.topk:g}", *fills, *bounds, *waits, f"{d['examples_per_second']:.0f}", f"{d['work_max_over_mean']:.3f}"])
    head = "removed|tokens filled|frames filled|possible|published packer|examples waiting|rows waited at most"
    note = "The scarcer budget is bold; *possible* and *published packer* are about it. Work is estimated FLOPs, in the worst of all steps."
    return f"{_lines(f'{head}|examples per second|work of 8 ranks, max / mean', cells)}\n\n{note}"


def plot(rows: Sequence[Row], file: Path) -> bool:
    """Speed-up against its ideal, one point per row; False if there is nothing to draw."""
    if not rows:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    most = max(max(r.ideal_speedup, r.speedup) for r in rows) * 1.05
    axes.plot([1, most], [1, most], color="0.6", linewidth=1, label="ideal")
    axes.plot([1, most], [0.85, 0.85 * most], color="0.8", linewidth=1, linestyle="--", label="85 % of the ideal")
    for name in sorted({(r.part, r.packing if r.method == "scorer" else "other methods") for r in rows}):
        mine = [r for r in rows if (r.part, r.packing if r.method == "scorer" else "other methods") == name]
        axes.scatter([r.ideal_speedup for r in mine], [r.speedup for r in mine], s=28, label=", ".join(name).replace("_", " "))
    axes.set(xlabel="ideal speed-up (floating point operations)", ylabel="measured speed-up", xlim=(0.95, most), ylim=(0.8, most))
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return True
