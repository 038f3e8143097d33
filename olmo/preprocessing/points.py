"""Points written as text, and times written as text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmo.exceptions import OLMoConfigurationError, OLMoDataError

SEPARATORS = {"html-v1": "\t", "html-v2": ";"}
"""pointing_format -> what separates the frames of one `coords` attribute."""
NO_POINTS = "There are none."


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


def _xy(point: Any) -> tuple[float, float]:
    return (point["x"], point["y"]) if isinstance(point, dict) else (point[0], point[1])


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

    def image(self, points: Sequence[Any], label: str, scale: float | tuple[float, float], mode: str | None = None) -> str:
        """Points of one image. `scale`: coordinates that mean the right and the bottom edge."""
        return self.frames([points], ["1"], label, scale, mode)

    def video(
        self,
        points: Sequence[Sequence[Any]],
        times: Sequence[float],
        label: str,
        scale: float | tuple[float, float],
        mode: str | None = None,
    ) -> str:
        """Points per frame of a video, `times` in seconds or as clock strings."""
        return self.frames(points, [output_timestamp(parse_timestamp(t)) for t in times], label, scale, mode)

    def frames(
        self, points: Sequence[Sequence[Any]], names: Sequence[str], label: str, scale: float | tuple[float, float], mode: str | None = None
    ) -> str:
        """Points of several frames. `mode`: None or point; point_then_count, count_then_point, count add or give the number."""
        if len(points) != len(names):
            raise OLMoDataError(f"it has points for {len(points)} frames but {len(names)} times")
        total = sum(len(p) for p in points)
        if mode == "count":
            return str(total)
        if total == 0:
            return NO_POINTS
        sx, sy = scale if isinstance(scale, (tuple, list)) else (scale, scale)
        groups, number = [], 0
        for name, frame in zip(names, points, strict=True):
            words = [name]
            rounded = sorted((min(max(round(1000 * x / sx), 0), 1000), min(max(round(1000 * y / sy), 0), 1000)) for x, y in map(_xy, frame))
            for x, y in rounded:
                number += 1
                words.append(f"{number} {x:03d} {y:03d}")
            if rounded:
                groups.append(" ".join(words))
        text = f'<points coords="{SEPARATORS[self.pointing_format].join(groups)}">{label}</points>'
        if mode == "point_then_count":
            return f"Counting the {text} shows a total of {total}."
        if mode == "count_then_point":
            return f"There are {total} {text}."
        return text
