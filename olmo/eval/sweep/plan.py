"""What a sweep consists of: its points in order, each once, without running anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmo.exceptions import OLMoCliError

UNPRUNED, NOTHING_REMOVED = "none", "nothing removed"
SEEDED = ("random",)
"""Methods whose answers depend on a seed; every other is the same each time, and is run once."""


@dataclass(frozen=True)
class Point:
    """One setting of one checkpoint."""

    checkpoint: str
    """The folder, as it was named."""
    label: str
    """What the checkpoint is called on the page."""
    frames: int
    """Most frames of a video."""
    topk: float
    """Share of a video's cells that is removed; 0 = unpruned."""
    method: str
    """How they are chosen; `none` = unpruned."""
    seed: int | None = None
    """Of a method that draws."""

    @property
    def name(self) -> str:
        """Name of the point's folder."""
        parts = [self.label.replace("/", "-"), f"f{self.frames}", f"k{self.topk:g}", self.method]
        return "-".join(parts if self.seed is None else [*parts, f"s{self.seed}"])

    @property
    def words(self) -> list[str]:
        """The words of the evaluation command that set it."""
        flags = [f"--max_frames={self.frames}", f"--topk={self.topk:g}", f"--prune_method={self.method}"]
        return flags if self.seed is None else [*flags, f"--model.vision_backbone.vit.prune_seed={self.seed}"]

    def describe(self) -> str:
        """For a terminal."""
        pruning = NOTHING_REMOVED if self.method == UNPRUNED else f"{100 * self.topk:g} % removed by {self.method}"
        return f"{self.label}, {self.frames} frames, {pruning}" + ("" if self.seed is None else f", seed {self.seed}")


def plan(frames: Mapping[str, Sequence[int]], topks: Sequence[float], methods: Sequence[str], seeds: Sequence[int]) -> list[Point]:
    """Every combination once: unpruned points have no method, and only methods that draw have seeds.

    `frames`: checkpoint folder -> most frames of a video, each a series of points.
    """
    labels = labels_of(list(frames))
    points: dict[Point, None] = {}
    for checkpoint, counts in frames.items():
        for count in counts:
            for topk in topks:
                for method in methods if topk else (UNPRUNED,):
                    for seed in seeds if topk and method in SEEDED else (None,):
                        points[Point(checkpoint, labels[checkpoint], count, topk, method, seed)] = None
    return list(points)


def labels_of(checkpoints: Sequence[str]) -> dict[str, str]:
    """Folder -> as few of its last names as tell all of them apart."""
    parts = {c: Path(c).absolute().parts for c in checkpoints}
    for length in range(1, max(map(len, parts.values()), default=1) + 1):
        labels = {c: "/".join(names[-length:]).lstrip("/") for c, names in parts.items()}
        if len(set(labels.values())) == len(labels):
            return labels
    raise OLMoCliError(f"the same checkpoint is named twice: {', '.join(checkpoints)}")
