"""Rows of a benchmark and the file they lie in, written after every row so that a run can go on where it stopped."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from olmo.exceptions import OLMoDataError
from olmo.provenance import checkout, package_versions, processor_name

PACKAGES = ("torch", "transformers", "numpy", "triton", "flash-attn")


@dataclass
class Row:
    """One case, measured."""

    key: str
    part: str
    method: str
    packing: str
    topk: float
    frames: int
    direction: str
    seconds_median: float
    """Of the arm that is measured."""
    seconds_iqr: float
    speedup: float | None = None
    """Over the baseline: median of the ratios within a round."""
    ideal_speedup: float | None = None
    """Ratio of floating point operations."""
    ideal_fraction: float | None = None
    """speedup / ideal_speedup."""
    peak_bytes: int | None = None
    baseline: str = "unpruned"
    baseline_seconds_median: float | None = None
    baseline_seconds_iqr: float | None = None
    baseline_peak_bytes: int | None = None
    rounds: int = 0
    commit: str | None = None
    """Of the code that was measured: rows of one file may come from several."""
    details: dict[str, Any] = field(default_factory=dict)
    """Shapes, FLOPs, utilisation, stages: whatever the part has to say besides."""


class ResultFile:
    """`{"environment": {...}, "rows": [...]}`."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.device = path, device
        self.rows: dict[str, Row] = {}
        if path.exists():
            self.rows = {row.key: row for row in read_rows(path)}

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        content = {"environment": environment(self.device), "rows": [asdict(r) for r in self.rows.values()]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text(json.dumps(content, indent=1) + "\n")
        scratch.replace(self.path)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise OLMoDataError(f"{path} cannot be read as JSON: {err}") from err
    return content if isinstance(content, dict) else {}


def has_rows(content: dict[str, Any]) -> bool:
    """Whether a file is one of these; others among the results have rows of another kind, or none."""
    return "environment" in content and all("key" in row for row in content.get("rows", [{}]))


def read_rows(path: Path) -> list[Row]:
    content = read_json(path)
    if not has_rows(content):
        raise OLMoDataError(f"{path} is no file of measurements: it has no rows with a key")
    return [Row(**row) for row in content["rows"]]


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else processor_name(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": package_versions(PACKAGES),
        "cuda": torch.version.cuda if cuda else None,
    }


def device_name(device: torch.device) -> str:
    """A GPU's name as part of a file's name."""
    return torch.cuda.get_device_name(device).lower().replace(" ", "_")


def current_commit() -> str | None:
    """The commit of the checkout, with a mark if files differ from it."""
    commit, changed = checkout()
    return f"{commit}-dirty" if changed else commit
