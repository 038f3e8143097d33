"""Published numbers that a sweep may be compared with: what was evaluated, how, and what came out.

They are of models that were trained for their setting, on the authors' machines and with their evaluator, so they stand beside ours
and are never mixed with them.
"""

from collections.abc import Collection
from dataclasses import dataclass

from olmo.eval.sweep.plan import UNPRUNED


@dataclass(frozen=True)
class Published:
    """One number."""

    source: str
    """Paper and model."""
    tasks: str
    """A task, or the group that it is the mean of."""
    frames: int
    """Most frames of a video."""
    method: str
    topk: float
    value: float
    """Per cent."""
    about: bool = False
    """Whether it is known from a digest only."""


def _stts(method: str, topk: float, value: float, about: bool = False) -> Published:
    return Published("STTS, 4B", "video", 64, method, topk, value, about)


def _molmo2(source: str, frames: int, **values: float) -> tuple[Published, ...]:
    return tuple(Published(source, task, frames, UNPRUNED, 0.0, value) for task, value in values.items())


AVERAGES = (
    _stts(UNPRUNED, 0.0, 63.0),
    _stts("scorer", 0.5, 62.3),
    _stts("random", 0.5, 61.4),
    _stts("tome", 0.5, 61.1),
    _stts("heuristic", 0.5, 60.4, about=True),
    _stts("scorer", 0.8, 59.8),
    _stts("random", 0.8, 57.5),
)
"""Means over the 13 tasks of the group `video`."""

PUBLISHED = (
    *AVERAGES,
    *_molmo2(
        "Molmo2-8B, appendix on SlowFast, validation splits",
        128,
        video_mme=68.8,
        video_mme_w_subtitle=74.3,
        mlvu_mc=74.5,
        lvbench=49.6,
        video_eval_pro_mc=54.3,
    ),
    *_molmo2(
        "Molmo2-8B, appendix on SlowFast, validation splits",
        224,
        video_mme=69.2,
        video_mme_w_subtitle=74.6,
        mlvu_mc=76.4,
        lvbench=50.7,
        video_eval_pro_mc=56.7,
    ),
    *_molmo2(
        "Molmo2-4B",
        384,
        nextqa_mc=85.5,
        perception_test=81.3,
        mvbench=75.1,
        tomato=39.8,
        motionbench=61.6,
        **{"temp_compass_multi-choice": 72.8},
        video_mme=69.6,
        video_mme_w_subtitle=75.7,
        mlvu_mc=63.0,
        lvbench=53.9,
        video_eval_pro_mc=59.9,
        ego_schema=61.2,
        video_molmo2=62.8,
    ),
)

SPEED = {(64, 0.3): 1.14, (64, 0.5): 1.61, (256, 0.5): 2.22}
"""(frames, share removed by the scorer) -> published speed of inference, relative to the unpruned model on the same machine."""


def beside(frames: int, method: str, topk: float, tasks: Collection[str]) -> list[Published]:
    """The published numbers of a setting, for any of these names of tasks and groups."""
    return [p for p in PUBLISHED if (p.frames, p.method, p.topk) == (frames, method, topk) and p.tasks in tasks]
