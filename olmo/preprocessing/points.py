"""Points written as text, and times written as text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from olmo.exceptions import OLMoConfigurationError, OLMoDataError

SEPARATORS = {"html-v1": "\t", "html-v2": ";"}
"""pointing_format -> what separates the frames of one `coords` attribute."""
NO_POINTS = "There are none."
NO_TRACKS = "No tracks available."


def output_timestamp(seconds: float) -> str:
    """A time in an answer: seconds with one decimal."""
    return str(round(float(seconds), 1))


def seconds_to_clock(seconds: float, decimals: int = 1) -> str:
    """`HH:MM:SS.s`; rounded before it is split, so that no second reads 60."""
    ticks = round(float(seconds) * 10**decimals)
    whole, fraction = divmod(ticks, 10**decimals)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f".{fraction:0{decimals}d}" if decimals else ""
    return f"{hours:02d}:{minutes:02d}:{secs:02d}{tail}"


def parse_timestamp(value: float | int | str) -> float:
    """Seconds from a number, a numeric string, `MM:SS.f` or `HH:MM:SS.f`."""
    if isinstance(value, (int, float)):
        return float(value)
    if not re.fullmatch(r"\s*(\d+:){0,2}\d+(\.\d*)?\s*", value):
        raise OLMoDataError(f"'{value}' is no time; write seconds, MM:SS.f or HH:MM:SS.f")
    seconds = 0.0
    for part in value.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


Scale = float | tuple[float, float]
"""The coordinates that mean the right and the bottom edge; one number for both."""


def _thousandths(point: Any, scale: Scale) -> tuple[int, int]:
    """A point as it is written: rounded half to even, and moved into the picture where it lies outside."""
    x, y = (point["x"], point["y"]) if isinstance(point, dict) else (point[0], point[1])
    sx, sy = scale if isinstance(scale, (tuple, list)) else (scale, scale)
    return tuple(min(max(round(1000 * value / size), 0), 1000) for value, size in ((x, sx), (y, sy)))


@dataclass(frozen=True)
class PointFormatter:
    """Writes points as `<points coords="frame id xxx yyy id xxx yyy">label</points>`, coordinates in thousandths."""

    pointing_format: str = "html-v2"
    """html-v1 or html-v2; they differ in the separator of frames."""

    def __post_init__(self):
        if self.pointing_format not in SEPARATORS:
            raise OLMoConfigurationError(
                f"data_formatter.pointing_format '{self.pointing_format}' cannot write points; use {' or '.join(SEPARATORS)}"
            )

    def image(self, points: Sequence[Any], label: str, scale: Scale, mode: str | None = None, alt: str | None = None) -> str:
        """Points of one image."""
        return self.frames([points], ["1"], label, [scale], mode, alt)

    def images(self, points: Sequence[Sequence[Any]], numbers: Sequence[int], label: str, scales: Sequence[Scale], mode: str | None) -> str:
        """Points of several images; `numbers` (from 1) say which, `scales` are theirs."""
        return self.frames(points, [str(n) for n in numbers], label, scales, mode)

    def video(
        self, points: Sequence[Sequence[Any]], times: Sequence[float | str], label: str, scale: Scale, mode: str | None = None
    ) -> str:
        """Points per frame of a video, `times` in seconds or as clock strings."""
        names = [output_timestamp(parse_timestamp(t)) for t in times]
        return self.frames(points, names, label, [scale] * len(points), mode)

    def frames(
        self,
        points: Sequence[Sequence[Any]],
        names: Sequence[str],
        label: str,
        scales: Sequence[Scale],
        mode: str | None = None,
        alt: str | None = None,
    ) -> str:
        """Points of several frames. `mode`: None or point; point_then_count, count_then_point, count add or give the number."""
        if len(points) != len(names):
            raise OLMoDataError(f"it has points for {len(points)} frames but {len(names)} times")
        total = sum(len(p) for p in points)
        if mode == "count":
            return str(total)
        if total == 0:
            return NO_POINTS
        numbers = count(1)
        groups = [
            (name, [(next(numbers), *xy) for xy in sorted(_thousandths(point, scale) for point in frame)])
            for name, frame, scale in zip(names, points, scales, strict=True)
        ]
        text = self._block("points", groups, label, alt)
        if mode == "point_then_count":
            return f"Counting the {text} shows a total of {total}."
        if mode == "count_then_point":
            return f"There are {total} {text}."
        return text

    def tracks(self, frames: Sequence[dict[str, Any]], label: str, scale: Scale, start_end_only: bool = False) -> str:
        """Where objects are at several times: frames `{time, points: [{object_id, point, occluded}]}` in any order.

        Objects are numbered by their first appearance, within a frame by place. Occluded points are left out, and so are frames
        without any. `start_end_only`: of every object only the first and the last frame that shows it.
        """
        if not frames:
            return NO_TRACKS
        seen = []  # (time, {object: (x, y)}) in order of time
        for frame in sorted(frames, key=lambda f: parse_timestamp(f["time"])):
            visible = {p["object_id"]: _thousandths(p["point"], scale) for p in frame["points"] if not p["occluded"]}
            seen.append((output_timestamp(parse_timestamp(frame["time"])), visible))
        numbers: dict[Any, int] = {}
        shown: dict[Any, list[int]] = {}  # object -> its frames
        for at, (_, visible) in enumerate(seen):
            for name in sorted(visible, key=visible.get):
                numbers.setdefault(name, len(numbers) + 1)
                shown.setdefault(name, []).append(at)
        groups = []
        for at, (time, visible) in enumerate(seen):
            wanted = [n for n in visible if not start_end_only or at in (shown[n][0], shown[n][-1])]
            groups.append((time, sorted((numbers[n], *visible[n]) for n in wanted)))
        return self._block("tracks", groups, label) if numbers else NO_POINTS

    def _block(self, tag: str, groups: Sequence[tuple[str, list[tuple[int, int, int]]]], label: str, alt: str | None = None) -> str:
        """`groups`: (frame, [(id, x, y)]); those without points are left out."""
        words = [" ".join([name, *(f"{n} {x:03d} {y:03d}" for n, x, y in points)]) for name, points in groups if points]
        attribute = "" if alt is None else f' alt="{alt}"'
        return f'<{tag}{attribute} coords="{SEPARATORS[self.pointing_format].join(words)}">{label}</{tag}>'
