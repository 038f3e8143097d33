"""From a case to its row."""

import gc
import logging

import torch

from olmo.benchmark.cases import Case
from olmo.benchmark.generation import generate
from olmo.benchmark.measure import Timing, interleave, paired_ratio
from olmo.benchmark.parts import PARTS, Pair
from olmo.benchmark.reference import against_transformers
from olmo.benchmark.results import Row
from olmo.train.device_peaks import peak_flops

log = logging.getLogger(__name__)


def prepare(case: Case, device: torch.device) -> Pair:
    """The two arms of a case."""
    if case.baseline == "transformers":
        return against_transformers(case, device)
    if case.part == "generate":
        return generate(case, device)
    return PARTS[case.part](case, device)


def measure(case: Case, device: torch.device, rounds: int, warmup: int = 1) -> Row:
    """Time a case."""
    pair = prepare(case, device)
    timings = interleave({"baseline": pair.baseline, "measured": pair.measured}, rounds, warmup, device)
    base, other = timings["baseline"], timings["measured"]
    speedup = paired_ratio(base, other)
    row = Row(
        key=case.key,
        part=case.part,
        method=case.method,
        packing=case.packing,
        topk=case.topk,
        frames=case.frames,
        direction=case.direction,
        seconds_median=other.median,
        seconds_iqr=other.iqr,
        speedup=speedup,
        ideal_speedup=pair.ideal_speedup,
        ideal_fraction=None if pair.ideal_speedup is None else speedup / pair.ideal_speedup,
        peak_bytes=other.peak_bytes,
        baseline=case.baseline,
        baseline_seconds_median=base.median,
        baseline_seconds_iqr=base.iqr,
        baseline_peak_bytes=base.peak_bytes,
        rounds=rounds,
        details=shapes(case) | pair.details | pair.finish() | utilisation(pair, base, other, device),
    )
    del pair
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def shapes(case: Case) -> dict:
    """What the case changes in the model, and how it was run."""
    return {
        "rows": case.rows,
        "text": case.text,
        "model": list(case.vision + case.llm),
        "compiled": case.compiled,
        "recompute": case.recompute,
        "dtype": None,
    }


def utilisation(pair: Pair, base: Timing, other: Timing, device: torch.device) -> dict:
    """Share of the device's peak, where that is known: of the model's own FLOPs (MFU), and of all that ran (HFU)."""
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if peak is None or "tflop" not in pair.details:
        return {}
    seconds = (base.median, other.median)
    model = pair.details.get("model_tflop", pair.details["tflop"])
    return {
        "mfu": [1e12 * f / s / peak for f, s in zip(model, seconds, strict=True)],
        "hfu": [1e12 * f / s / peak for f, s in zip(pair.details["tflop"], seconds, strict=True)],
    }
