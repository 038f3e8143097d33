"""Charts over the steps of a run: numbers in, places in a drawing out. The template only writes them down.

Curves of any length become at most BUCKETS points; what lies between shows as a pale band from the lowest to the highest value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo.pages.drawing import running_mean

WIDTH, HEIGHT = 500, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 14, 22
SHAPE = (WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM)
BUCKETS = 240
MOST_MARKS = 300


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    colour: str
    steps: np.ndarray
    values: np.ndarray
    """NaN where not finite: marked, not drawn."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: a `start`, a `checkpoint`, or an `alarm`."""

    kind: str
    step: int
    colour: str
    text: str


@dataclass(frozen=True)
class Look:
    """How a chart is drawn."""

    smooth: bool = False
    """A running mean on top of the pale values."""
    log: bool = False
    """Logarithmic, as far as values are positive."""
    zero: bool = False
    """From zero."""
    dots: bool = False
    """Every point is a dot."""
    stacked: bool = False
    """Curves on top of each other, as areas."""


@dataclass(frozen=True)
class Points:
    """A curve made short: one entry per bucket."""

    steps: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def thin(steps: np.ndarray, values: np.ndarray, buckets: int = BUCKETS) -> Points:
    """At most so many points; values that are not finite are left out."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if not len(steps):
        return Points(*(np.zeros(0) for _ in range(4)))
    edges = np.linspace(0, len(steps), min(buckets, len(steps)) + 1).astype(int)
    starts, counts = edges[:-1], np.diff(edges)
    mean = np.add.reduceat(values, starts) / counts
    return Points(steps[starts + (counts - 1) // 2], np.minimum.reduceat(values, starts), mean, np.maximum.reduceat(values, starts))


def chart(title: str, lines: Sequence[Line], marks: Sequence[Mark], last_step: int, look: Look) -> dict[str, Any]:
    """What the template draws. `last_step`: right end of the axis, the same for all charts of a page."""
    if look.stacked:
        lines = on_same_steps(lines)
    points = [thin(line.steps, line.values) for line in lines]
    shown = [running_mean(p.mean, len(p.mean) // 40) if look.smooth else p.mean for p in points]
    if look.stacked:
        shown = list(np.cumsum([p.mean for p in points], axis=0))
    extremes = shown if look.stacked else [part for p in points for part in (p.low, p.high)]
    scale = Scale.over(np.concatenate([*extremes, np.zeros(0)]), look)
    axis = Axis(last_step)
    drawn = []
    for i, (line, p, values) in enumerate(zip(lines, points, shown, strict=True)):
        below = shown[i - 1] if i else np.zeros(len(values))
        pale = _area(axis, scale, p.steps, below, values) if look.stacked else _area(axis, scale, p.steps, p.low, p.high)
        own = p.mean if look.stacked else values
        drawn.append(
            {
                "name": line.name,
                "colour": line.colour,
                "path": _path(axis, scale, p.steps, values),
                "band": pale,
                "raw": _path(axis, scale, p.steps, p.mean) if look.smooth else "",
                "dots": [(axis(s), scale(v)) for s, v in zip(p.steps, values, strict=True)] if look.dots or len(p.steps) == 1 else [],
                "latest": number(float(own[-1])) if len(own) else "–",
                "steps": [int(s) for s in p.steps],
                "values": [float(f"{v:.5g}") for v in own],
            }
        )
    alarms = [Mark("alarm", int(s), "", f"{line.name}: not finite") for line in lines for s in line.steps[~np.isfinite(line.values)]]
    return {
        "title": title,
        "lines": drawn,
        "stacked": look.stacked,
        "ticks": [(scale(v), number(v)) for v in scale.ticks()],
        "steps": [(axis(v), number(v)) for v in round_numbers(0, last_step, 6)],
        "marks": [{"kind": m.kind, "x": axis(m.step), "colour": m.colour, "text": m.text} for m in [*marks, *alarms][:MOST_MARKS]],
        "last_step": last_step,
    }


def on_same_steps(lines: Sequence[Line]) -> list[Line]:
    """All curves at the steps of the first: what was not logged there counts as nothing."""
    steps, aligned = lines[0].steps, []
    for line in lines:
        values = np.zeros(len(steps))
        _, here, there = np.intersect1d(steps, line.steps, assume_unique=True, return_indices=True)
        values[here] = line.values[there]
        aligned.append(replace(line, steps=steps, values=values))
    return aligned


@dataclass(frozen=True)
class Axis:
    """Steps from left to right."""

    last_step: int

    def __call__(self, step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, self.last_step), 1)


@dataclass(frozen=True)
class Scale:
    """Values from bottom to top."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: np.ndarray, look: Look) -> "Scale":
        """The range of the values. Few that stick out far above all others (a first step that compiles) leave the picture."""
        if look.log:
            values = values[values > 0]
        if not len(values):
            return cls(0.0, 1.0, False)
        low, high = float(values.min()), float(values.max())
        usual = float(np.quantile(values, 0.97))
        if len(values) > 20 and high > 4 * abs(usual) and not look.log:
            high = 1.5 * usual if usual > 0 else high
        if look.zero or look.stacked:
            low = min(0.0, low)
        if look.log:
            return cls(low / 1.2, high * 1.2, True)
        room = 0.06 * (high - low) or 0.06 * abs(high) or 0.5
        return cls(low if low == 0 else low - room, high + room, False)

    def __call__(self, value: float) -> float:
        if self.log:
            share = (math.log(max(value, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(share, -0.2), 1.2)), 1)

    def ticks(self) -> list[float]:
        if not self.log:
            return round_numbers(self.low, self.high, 4)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1,) if len(decades) > 4 else (1, 3) if len(decades) > 2 else (1, 2, 5)
        return [v for d in decades for s in steps if self.low <= (v := s * 10.0**d) <= self.high]


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Up to `most` + 1 round numbers between two."""
    raw = (high - low) / most
    if raw <= 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short enough for an axis."""
    size = abs(value)
    if size >= 1e4:
        unit, divisor = next((u, d) for u, d in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if size >= d)
        return f"{value / divisor:.4g}{unit}"
    if 0 < size < 1e-4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def _path(axis: Axis, scale: Scale, steps: np.ndarray, values: np.ndarray) -> str:
    return "M" + "L".join(f"{axis(s)} {scale(v)}" for s, v in zip(steps, values, strict=True)) if len(steps) else ""


def _area(axis: Axis, scale: Scale, steps: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The outline of what lies between two curves."""
    if len(steps) < 2:
        return ""
    there = [f"{axis(s)} {scale(v)}" for s, v in zip(steps, high, strict=True)]
    back = [f"{axis(s)} {scale(v)}" for s, v in zip(steps[::-1], low[::-1], strict=True)]
    return "M" + "L".join(there + back) + "Z"
