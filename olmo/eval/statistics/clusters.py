"""Which questions are about one video. They are right or wrong together, so every interval counts videos, not questions."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np


def cluster_of(record: Mapping[str, Any]) -> Any:
    """What records share when they are about the same video; a question about none stands for itself."""
    return record.get("video") or record["example_id"]


def codes(keys: Iterable[Hashable]) -> np.ndarray:
    """The same small integer for equal keys, in order of first appearance: [n] int64."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)
