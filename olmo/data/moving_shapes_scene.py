"""What happens in a `moving_shapes` video, its pixels, and the questions whose answers follow from it.

A scene is drawn from a seed and an index, never from the pixels, so every answer is true by construction. Shapes move in
separate lanes (rows or columns) from one cell of a 3 x 3 grid to another one of their lane and stop there just before the
end; they appear one after another, the first one at once. The background is a fixed texture, the camera adds noise: there
is much to prune, and what changes from frame to frame is what matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

VERSION = 2
"""Part of the name of the folder on disk; raise it whenever the same seed would give other pixels or questions."""

COLOURS = {
    "red": (222, 40, 40),
    "green": (40, 175, 60),
    "blue": (45, 85, 230),
    "yellow": (238, 218, 50),
    "purple": (175, 55, 205),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = ("left", "right", "up", "down")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")
CELLS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
COUNTS = ("1", "2", "3")

OPTIONS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "direction": DIRECTIONS,
    "count": COUNTS,
    "first": tuple(COLOURS),
    "middle": tuple(COLOURS),
    "last": tuple(COLOURS),
    "stopped": CELLS,
    "shape": SHAPES,
}
"""Possible answers of every question type; chance is one over their number."""

ORDER_TYPES = ("first", "middle", "last")


@dataclass(frozen=True)
class MovingShape:
    """One shape and its way; positions are the shape's centre in pixels along its lane."""

    kind: str
    colour: str
    rgb: tuple[int, int, int]
    radius: float
    lane: int
    """Row (or column) of the grid that it moves in."""
    start: float
    stop: float
    across: float
    """Centre across the lane."""
    appears: float
    """Second at which it appears and starts to move."""
    stops: float
    """Second at which it has arrived."""
    stop_cell: int
    """Cell along the lane in which it stops."""


@dataclass(frozen=True)
class Scene:
    """One video's content."""

    size: int
    seconds: float
    horizontal: bool
    """Lanes are rows (shapes move left or right); otherwise columns (up or down)."""
    shapes: tuple[MovingShape, ...] = field(default_factory=tuple)
    """In order of appearance."""
    texture_seed: int = 0


@dataclass(frozen=True)
class Question:
    """A question about a scene, its type (key of `OPTIONS`) and the one right answer."""

    type: str
    question: str
    answer: str


def scene_rng(seed: int, split: str, index: int, purpose: int = 0) -> np.random.Generator:
    """A generator of one video (purpose 0: its content, 1: the choice of questions); the splits never share one."""
    return np.random.default_rng([VERSION, seed, {"train": 0, "test": 1}[split], index, purpose])


def draw_scene(rng: np.random.Generator, size: int, seconds: float) -> Scene:
    """Draw the content of one video."""
    count = int(rng.integers(1, 4))
    horizontal = bool(rng.integers(2))
    lanes = rng.permutation(3)[:count]
    colours = rng.permutation(len(COLOURS))[:count]
    unit = seconds / 4.0
    appears = np.cumsum([0.0, *rng.uniform(0.75, 1.15, size=count - 1)]) * unit
    cell = size / 3
    shapes = []
    for k in range(count):
        name = list(COLOURS)[colours[k]]
        radius = rng.uniform(17, 20) * size / 126
        begin, end = rng.permutation(3)[:2]
        slack = cell / 2 - radius
        along = rng.uniform(-slack, slack, size=2) + (np.array([begin, end]) + 0.5) * cell
        shapes.append(
            MovingShape(
                kind=SHAPES[rng.integers(len(SHAPES))],
                colour=name,
                rgb=tuple(int(v) for v in np.clip(np.array(COLOURS[name]) + rng.integers(-12, 13, size=3), 0, 255)),
                radius=float(radius),
                lane=int(lanes[k]),
                start=float(along[0]),
                stop=float(along[1]),
                across=float((lanes[k] + 0.5) * cell + rng.uniform(-slack, slack)),
                appears=float(appears[k]),
                stops=float(seconds - rng.uniform(0.1, 0.5) * unit),
                stop_cell=int(end),
            )
        )
    return Scene(size, seconds, horizontal, tuple(shapes), int(rng.integers(2**31)))


def all_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Every question that has exactly one right answer in this scene; those about one shape come for all shapes, in any order."""
    shapes = scene.shapes
    lane_names, lane_word = (ROWS, "row") if scene.horizontal else (COLUMNS, "column")
    questions = [Question("count", "How many shapes are there?", str(len(shapes)))]
    for shape in (shapes[i] for i in rng.permutation(len(shapes))):
        where = "" if len(shapes) == 1 else f" in the {lane_names[shape.lane]} {lane_word}"
        questions += [
            Question("colour", f"What colour is the shape{where}?", shape.colour),
            Question("direction", f"Which way does the {shape.colour} shape move?", _direction(scene, shape)),
            Question("stopped", f"Where does the {shape.colour} shape stop?", _cell(scene, shape)),
            Question("shape", f"What shape is the {shape.colour} one?", shape.kind),
        ]
    if len(shapes) > 1:
        questions.append(Question("first", "Which colour appears first?", shapes[0].colour))
        questions.append(Question("last", "Which colour appears last?", shapes[-1].colour))
    if len(shapes) == 3:
        questions.append(Question("middle", "Which colour appears second?", shapes[1].colour))
    return questions


def choose_questions(questions: Sequence[Question], rng: np.random.Generator, types: Sequence[str], number: int) -> list[Question]:
    """At most `number` of all questions about a video, one of each of the given types and those about order first.

    Questions about order are asked wherever they make sense, because they are learned last and more of them help. The
    others fill up. How often the shapes are to be counted must not depend on how many there are (else the mere question
    would betray the answer), so its chance is the one that it has in the fullest scene.
    """
    possible: dict[str, Question] = {}
    for i in rng.permutation(len(questions)):
        if questions[i].type in types:
            possible[questions[i].type] = questions[i]
    general = [t for t in types if t not in ORDER_TYPES]
    room_in_fullest = max(1, number - sum(t in ORDER_TYPES for t in types)) if general else 0
    order = [t for t in ORDER_TYPES if t in possible]
    order = [order[i] for i in rng.permutation(len(order))][: number - room_in_fullest]
    counted = rng.random() < room_in_fullest / max(1, len(general))
    others = [t for t in general if t != "count"]
    picked = ["count"] * (counted and "count" in possible) + [others[i] for i in rng.permutation(len(others))]
    return [possible[t] for t in order + picked[: number - len(order)]]


def _direction(scene: Scene, shape: MovingShape) -> str:
    forward = shape.stop > shape.start
    return ("right" if forward else "left") if scene.horizontal else ("down" if forward else "up")


def _cell(scene: Scene, shape: MovingShape) -> str:
    row, column = (shape.lane, shape.stop_cell) if scene.horizontal else (shape.stop_cell, shape.lane)
    return CELLS[3 * row + column]


def render(scene: Scene, fps: int) -> np.ndarray:
    """All frames [F, size, size, 3] uint8; frame f is shown from f / fps seconds on."""
    return render_at(scene, np.arange(round(scene.seconds * fps)) / fps)


def render_at(scene: Scene, times: np.ndarray) -> np.ndarray:
    """The scene at these seconds, in order: [F, size, size, 3] uint8."""
    rng = np.random.default_rng(scene.texture_seed)
    frames = np.repeat(_background(rng, scene.size)[None], len(times), axis=0)  # [F, H, W, 3] int16
    for shape in scene.shapes:
        _draw(frames, shape, times, scene.horizontal)
    frames += _camera_noise(rng, frames.shape[:3])[..., None]
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Soft patches of dull colour with a fine grain, [H, W, 3] int16."""
    coarse = rng.uniform(60, 120) + rng.uniform(-22, 22, size=(7, 7, 1)) + rng.uniform(-8, 8, size=(7, 7, 3))
    at = np.linspace(0, 5.999, size)
    low, part = at.astype(int), (at % 1)
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]  # [H, 7, 3]
    picture = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    grain = rng.normal(0, 5, size=(size, size, 1))
    return (picture + grain).astype(np.int16)


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """Gaussian noise to cut pieces from; drawing it anew for every frame would be half of the rendering time."""
    return np.round(np.random.default_rng(126).normal(0, 3, size=1 << 20)).astype(np.int16)


def _camera_noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    bank, pixels = _noise_bank(), shape[1] * shape[2]
    pieces = -(-pixels // 4096)
    starts = rng.integers(0, len(bank) - 4096, size=(shape[0], pieces))
    return bank[starts[..., None] + np.arange(4096)].reshape(shape[0], -1)[:, :pixels].reshape(shape)


def _draw(frames: np.ndarray, shape: MovingShape, times: np.ndarray, horizontal: bool) -> None:
    """Blend one shape into the frames in which it is visible, inside the strip of its lane."""
    first = int(np.searchsorted(times, shape.appears - 1e-9))
    part = np.clip((times[first:] - shape.appears) / (shape.stops - shape.appears), 0, 1)
    centre = shape.start + part * (shape.stop - shape.start)  # [f]
    size = frames.shape[1]
    low, high = max(0, int(shape.across - shape.radius) - 1), min(size, int(shape.across + shape.radius) + 3)
    along = (np.arange(size, dtype=np.float32) - centre[:, None].astype(np.float32)) / np.float32(shape.radius)  # [f, size]
    across = (np.arange(low, high, dtype=np.float32) - np.float32(shape.across)) / np.float32(shape.radius)  # [strip]
    x, y = (along[:, None, :], across[None, :, None]) if horizontal else (across[None, None, :], along[:, :, None])
    inside = np.clip((1 - _distance(shape.kind, x, y)) * np.float32(shape.radius) + np.float32(0.5), 0, 1)[..., None]
    strip = frames[first:, low:high] if horizontal else frames[first:, :, low:high]
    strip += (inside * (np.array(shape.rgb, dtype=np.float32) - strip)).astype(np.int16)


def _distance(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance of a point from the centre in units at which the shape's edge is 1."""
    if kind == "circle":
        return np.sqrt(x * x + y * y)
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) / np.float32(0.85)
    if kind == "triangle":
        return np.maximum(y + np.float32(0.1), np.abs(x) * np.float32(1.05) - (y + np.float32(0.1)) * np.float32(0.5) + np.float32(0.5))
    bar = np.float32(0.35)
    return np.minimum(np.maximum(np.abs(x), np.abs(y) / bar), np.maximum(np.abs(x) / bar, np.abs(y)))
