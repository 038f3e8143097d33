"""Pictures of what was kept: dropped cells greyed, scores as a heat map, as images, a page or a video."""

import base64
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from olmo.exceptions import OLMoEnvironmentError
from olmo.nn.pruning_plan import CellGrid
from olmo.pages.files import template_environment

PAPER = np.array([244, 245, 247], dtype=np.float32)
"""Colour towards which dropped cells fade."""
FRAMES_PER_ROW = 8


def to_pixels(cells: np.ndarray, grid: CellGrid, height: int, width: int) -> np.ndarray:
    """Spread one value per cell, [C], over a picture, [height, width] (missing patches of a padded grid have no pixels)."""
    x = np.asarray(cells).reshape(grid.shape)
    for axis, pixels in enumerate((height, width)):
        edges = np.rint(grid.edges(axis) * pixels / grid.grid[axis]).astype(int)
        x = np.repeat(x, np.diff(edges), axis=axis)
    return x


def grey_dropped(frame: np.ndarray, keep: np.ndarray, grid: CellGrid) -> np.ndarray:
    """The frame [H, W, 3] uint8 with its dropped cells (keep [C] false) faded to pale grey."""
    height, width = frame.shape[:2]
    kept = to_pixels(keep, grid, height, width)[..., None]
    grey = frame.astype(np.float32).mean(-1, keepdims=True)
    faded = 0.22 * grey + 0.78 * PAPER
    return np.where(kept, frame, faded.round().astype(np.uint8)).astype(np.uint8)


def heat_map(frame: np.ndarray, levels: np.ndarray, grid: CellGrid) -> np.ndarray:
    """The frame in grey under the colours of its cells' levels [C] in 0..1."""
    import matplotlib

    height, width = frame.shape[:2]
    colour = matplotlib.colormaps["viridis"](to_pixels(levels, grid, height, width))[..., :3] * 255
    grey = frame.astype(np.float32).mean(-1, keepdims=True)
    return (0.72 * colour + 0.28 * grey).round().astype(np.uint8)


def score_levels(scores: np.ndarray) -> np.ndarray:
    """Scores [F, C] -> their rank within the video in 0..1, as selection sees them: among the cells of all frames but the first.

    Scores themselves are often bunched near one value, where colours would show nothing.
    """
    levels = np.zeros(scores.shape)
    judged = scores[1:].ravel()
    if judged.size:
        rank = np.searchsorted(np.sort(judged), judged, side="left") + np.searchsorted(np.sort(judged), judged, side="right") - 1
        levels[1:] = (rank / max(2 * (judged.size - 1), 1)).reshape(scores[1:].shape)
    return levels


def score_range(scores: np.ndarray) -> str:
    """Lowest and highest score that selection saw, as text: ranks alone would hide a scorer that has stopped to differ."""
    judged = scores[1:] if len(scores) > 1 else scores
    low, high = float(judged.min()), float(judged.max())
    return f"every score is {low:.3g}: nothing is told apart" if low == high else f"scores from {low:.3g} to {high:.3g}"


def as_data_url(picture: np.ndarray, side: int = 168) -> str:
    """A picture as text that an HTML page can hold; its longer side becomes `side` pixels."""
    from PIL import Image

    image = Image.fromarray(picture)
    ratio = side / max(image.size)
    resample = Image.Resampling.LANCZOS if ratio < 1 else Image.Resampling.BICUBIC
    image = image.resize([max(1, round(s * ratio)) for s in image.size], resample)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=86, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def film_strip(
    frames: np.ndarray,
    timestamps: Sequence[float] | Sequence[str],
    keep: np.ndarray | None,
    scores: np.ndarray | None,
    grid: CellGrid,
    max_frames: int | None = None,
) -> dict[str, Any]:
    """What the template `strip.html.j2` draws: rows of frames, each with its kept view, heat map and kept count.

    `timestamps` are seconds, or what else to write below the frames.
    """
    chosen = list(range(len(frames)))
    if max_frames and len(frames) > max_frames:
        chosen = np.linspace(0, len(frames) - 1, max_frames).round().astype(int).tolist()
    levels = None if scores is None else score_levels(scores)
    tiles = []
    for i in chosen:
        kept, time = None if keep is None else int(keep[i].sum()), timestamps[i]
        tiles.append(
            {
                "time": time if isinstance(time, str) else f"{float(time):.1f} s",
                "frame": as_data_url(frames[i]),
                "kept_view": None if keep is None else as_data_url(grey_dropped(frames[i], keep[i], grid)),
                "heat": None if levels is None or i == 0 else as_data_url(heat_map(frames[i], levels[i], grid)),
                "kept": kept,
                "share": None if kept is None else kept / grid.num_cells,
            }
        )
    return {
        "rows": [tiles[i : i + FRAMES_PER_ROW] for i in range(0, len(tiles), FRAMES_PER_ROW)],
        "columns": min(FRAMES_PER_ROW, len(tiles)),
        "cells": grid.num_cells,
        "unit": "patches" if grid.window == (1, 1) else "cells",
        "has_keep": keep is not None,
        "has_scores": scores is not None,
        "score_range": None if scores is None else score_range(scores),
        "shown": len(tiles),
        "total": len(frames),
    }


def frame_titles(answer) -> list[str]:
    """What stands below every frame: its time, and whether it had few tokens."""
    slow = [True] * len(answer.frames) if answer.slow is None else answer.slow
    return [f"{float(t):.1f} s" + ("" if s else ", fast") for t, s in zip(answer.timestamps, slow, strict=True)]


def write_html(answer, path: Path, video: str, question: str) -> None:
    strip = film_strip(answer.frames, frame_titles(answer), answer.keep_cells, answer.scores, answer.grid)
    page = template_environment("olmo.inference").get_template("kept.html.j2")
    path.write_text(page.render(strip=strip, answer=answer, video=video, question=question), encoding="utf-8")


def write_mp4(answer, path: Path, video: str, question: str) -> None:
    """Original frame beside kept view (and heat map), each frame for as long as it stood for in the video."""
    import av

    side = 256
    levels = None if answer.scores is None else score_levels(answer.scores)
    panels = [_panels(answer, i, levels, side) for i in range(len(answer.frames))]
    height, width = (n - n % 2 for n in panels[0].shape[:2])
    times = np.asarray(answer.timestamps, dtype=float)
    typical = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        # The last panel is written twice so that it, too, is seen for a moment.
        for panel, seconds in zip([*panels, panels[-1]], [*times - times[0], times[-1] - times[0] + typical], strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(panel[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _panels(answer, i: int, levels: np.ndarray | None, height: int) -> np.ndarray:
    """One picture of the output video: frame, kept view and heat map (of `levels` [F, C]) side by side."""
    from PIL import Image

    frame = answer.frames[i]
    scale = height / frame.shape[0]
    size = (max(2, round(frame.shape[1] * scale)), height)
    frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
    views = [frame]
    if answer.keep_cells is not None:
        views.append(grey_dropped(frame, answer.keep_cells[i], answer.grid))
    if levels is not None:
        heat = frame.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
        views.append(heat if i == 0 else heat_map(frame, levels[i], answer.grid))
    gap = np.full((height, 8, 3), 255, dtype=np.uint8)
    return np.concatenate([v for view in views for v in (gap, view)][1:], axis=1)


WRITERS = {".html": write_html, ".mp4": write_mp4}
"""Ending of a file's name -> what writes it."""


def show(answer, path: str | Path, *, video: str = "", question: str = "") -> None:
    """Write the kept view of an `Answer` to `path`: a page (.html) or a video (.mp4)."""
    path = Path(path)
    check_show_path(path)
    try:
        WRITERS[path.suffix.lower()](answer, path, video, question)
    except OSError as err:
        raise OLMoEnvironmentError(f"cannot write {path}: {err.strerror or err}") from None


def check_show_path(path: str | Path) -> None:
    """Refuse a name that `show` cannot write, before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise OLMoEnvironmentError(f"cannot write {path}: the name must end in {' or '.join(WRITERS)}")
    if not path.resolve().parent.is_dir():
        raise OLMoEnvironmentError(f"cannot write {path}: there is no folder {path.resolve().parent}")
