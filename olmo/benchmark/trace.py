"""Where the time of a step goes: named ranges around the stages of a model, put there from outside, and a chrome trace of them."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from olmo.models.model import ModelBase

PATCHES, SELECTION, DENSE = "vit: patches", "vit: scores and selection", "vit: dense blocks"
BIASED, PACKED = "vit: biased block", "vit: packed blocks"
METHODS = {
    "vision_backbone": {"connect": "connector"},
    "vision_backbone.image_vit": {"embed": PATCHES, "decide": SELECTION, "run": DENSE},
    "": {"shorten": "compaction"},
    "transformer": {"embed": "llm: embedding", "forward": "llm: blocks", "loss": "llm: head and loss"},
}
"""Module -> its methods and what they are called; `run` is three stages, told apart by its arguments."""
STEP = ("forward", "backward", "optimizer")
"""Ranges that the trainer's step has itself."""


def name_stages(model: ModelBase) -> None:
    """Open a range of the profiler around every stage."""
    for path, methods in METHODS.items():
        module = model.get_submodule(path)
        for method, name in methods.items():
            if hasattr(module, method):
                setattr(module, method, _named(getattr(module, method), name))
            elif name == DENSE:  # a ViT without pruning runs its blocks in `forward`
                module.forward = _named(module.forward, name)


def _named(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(method)
    def within_range(*args, **kwargs):
        stage = name
        if kwargs.get("key_bias") is not None:
            stage = BIASED
        elif name == DENSE and (kwargs.get("segments") is not None or kwargs.get("mask") is not None):
            stage = PACKED
        with record_function(stage):
            return method(*args, **kwargs)

    return within_range


def stage_names() -> list[str]:
    names = [name for methods in METHODS.values() for name in methods.values()]
    return [*names, BIASED, PACKED, *STEP]


def trace(arm: Callable[[], object], file: Path, device: torch.device) -> dict[str, float]:
    """Run once under the profiler; writes the chrome trace and returns the seconds of every stage."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        arm()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(file))
    known = set(stage_names())
    events = [event for event in profiler.key_averages() if event.key in known]
    micro = (lambda e: e.device_time_total) if device.type == "cuda" else (lambda e: e.cpu_time_total)
    return {event.key: micro(event) / 1e6 for event in events}
