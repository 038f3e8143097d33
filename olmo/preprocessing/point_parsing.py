"""Points and tracks read back out of a model's text.

The current format names the frame, a number and thousandths of width and height (`olmo.preprocessing.points`). Older models
wrote percentages in several ways; `parse_points` tries those where the text has no point of the current format.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_BLOCK = re.compile(r'<(?:points|tracks).*? coords="([0-9\t:;, .]+)"/?>')
_FRAME = re.compile(r"(?:^|[\t:,;])([0-9.]+) ([0-9. ]+)")
_POINT = re.compile(r"([0-9]+) ([0-9]{3,4}) ([0-9]{3,4})")

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_OLDER = (
    (re.compile(rf"Click\({_NUMBER}, ?{_NUMBER}\)"), 100),
    (re.compile(r"\b[0-9]+ ([0-9]{3,4}) ([0-9]{3,4})\b"), 1000),
    (re.compile(r"\b[0-9]+ ([0-9]+\.[0-9]) ([0-9]+\.[0-9])\b"), 100),
    (re.compile(rf'x[0-9]*="\s*{_NUMBER}"\s+y[0-9]*="\s*{_NUMBER}"'), 100),
    (re.compile(rf"\({_NUMBER}, ?{_NUMBER}\)"), 100),
    (re.compile(r"p=([0-9]{3}),([0-9]{3})"), 1000),
)
"""Ways of older models to write a point, and the number that meant the far edge; the first that occurs counts."""

Sizes = float | Sequence[float]
"""A width or height in pixels, or one for each image."""


def parse_points(text: str, width: float, height: float) -> list[tuple[float, float]]:
    """All points as (x, y) in pixels; those outside the picture are left out."""
    if points := [(x, y) for _, x, y in parse_frame_points(text, width, height)]:
        return points
    for pattern, scale in _OLDER:
        if found := pattern.findall(text):
            points = [(float(x) / scale * width, float(y) / scale * height) for x, y in found]
            return [(x, y) for x, y in points if x <= width and y <= height]
    return []


def parse_frame_points(text: str, width: Sizes, height: Sizes) -> list[tuple[float, float, float]]:
    """Points with their frames as (time or number of the image, x, y). Where sizes are lists, frames are images counted from 1."""
    return [(frame, x, y) for frame, _, x, y in _numbered_points(text, width, height)]


def parse_tracks(text: str, width: float, height: float, video_fps: float) -> list[dict[str, Any]]:
    """Frames in order of time, `{time, frame, points: {id: {point: [x, y]}}}`; of two points with one id the first counts."""
    frames: dict[float, dict[str, Any]] = {}
    for time, number, x, y in _numbered_points(text, width, height):
        frame = frames.setdefault(time, {"time": time, "frame": round(time * video_fps), "points": {}})
        frame["points"].setdefault(str(number), {"point": [x, y]})
    return [frames[time] for time in sorted(frames)]


def parse_any(text: str, metadata: Mapping[str, Any]) -> list[tuple[int, float, float, float]]:
    """Points as (id, time or image counted from 0, x, y) for drawing, by the sizes in an example's metadata; [] without sizes."""
    if sizes := metadata.get("image_group_size"):
        widths, heights = zip(*sizes, strict=True)
        return [(number, image - 1, x, y) for image, number, x, y in _numbered_points(text, widths, heights)]
    if size := metadata.get("image_size"):
        return [(number, time, x, y) for time, number, x, y in _numbered_points(text, *size)]
    return []


def _numbered_points(text: str, width: Sizes, height: Sizes) -> list[tuple[float, int, float, float]]:
    """(frame, id, x, y) of the current format, inside the picture, in the order of the text."""
    images = isinstance(width, Sequence)
    found = []
    for block in _BLOCK.findall(text):
        for frame, rest in _FRAME.findall(block):
            at = _frame_number(frame, len(width) if images else None)
            if at is None:
                continue
            w, h = (width[at - 1], height[at - 1]) if images else (width, height)
            for number, x, y in _POINT.findall(rest):
                point = (int(x) / 1000 * w, int(y) / 1000 * h)
                if point[0] <= w and point[1] <= h:
                    found.append((at, int(number), *point))
    return found


def _frame_number(word: str, images: int | None) -> float | int | None:
    """The time, or the number of one of `images` images; None where a model wrote no such thing."""
    try:
        value = float(word)
    except ValueError:
        return None
    if images is None:
        return value
    return int(value) if value == int(value) and 1 <= value <= images else None
