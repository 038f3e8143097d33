"""What the pages of results share: writing them, and the words and numbers in their tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmo.eval.statistics import UNRELIABLE, Average, Score
from olmo.pages.files import save_page, template_environment

PARTS = {
    "video": "reading the video",
    "vision": "vision transformer and connector",
    "prefill": "language model, question with video",
    "decode": "language model, answer",
    "other": "bookkeeping",
}
"""What the timed parts of an answer are."""


def write_page(path: str | Path, template: str, **content: Any) -> Path:
    """Fill a template of this package; the page needs no other file."""
    path = Path(path)
    save_page(path, template_environment("olmo.inference", "olmo.eval.report").get_template(template).render(**content))
    return path


def named_rows(columns: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """One row per name, one cell per run."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [{"name": n, "cells": [column.get(n, "–") for column in columns]} for n in names]


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of percentages, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def interval(score: Score | Average) -> str:
    text = f"{100 * score.low:.1f}–{100 * score.high:.1f}"
    return text if score.reliable else f"{text}, {UNRELIABLE}"
