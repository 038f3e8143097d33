"""From a case to its row."""

import gc

import torch

from olmo.benchmark.cases import Case
from olmo.benchmark.generation import generate
from olmo.benchmark.measure import Timing, interleave, paired_ratio
from olmo.benchmark.parts import PARTS, Pair
from olmo.benchmark.reference import against_transformers
from olmo.benchmark.results import Row, current_commit
from olmo.train.device_peaks import peak_flops

ARMS = ("baseline", "measured")


def prepare(case: Case, device: torch.device) -> Pair:
    """The two arms of a case."""
    if case.baseline == "transformers":
        return against_transformers(case, device)
    if case.part == "generate":
        return generate(case, device)
    return PARTS[case.part](case, device)


def measure(case: Case, device: torch.device, rounds: int, warmup: int = 1) -> Row:
    """Time a case."""
    torch.compiler.reset()  # else the shapes of many rows use up the graphs that a function may have, and later rows run uncompiled
    pair = prepare(case, device)
    timings = interleave(dict(zip(ARMS, pair.runs, strict=True)), rounds, warmup, device)
    base, other = (timings[arm] for arm in ARMS)
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
        commit=current_commit(),
        details=shapes(case) | pair.details | pair.finish() | arithmetic(pair, (base, other), device),
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
    }


def arithmetic(pair: Pair, timings: tuple[Timing, Timing], device: torch.device) -> dict:
    """FLOPs of both arms and, where the device's peak is known, the share of it: of what the mathematics needs (MFU), and of all
    that ran (HFU)."""
    if pair.flops is None:
        return {}
    found = {"model_tflop": [f.model / 1e12 for f in pair.flops], "tflop": [f.hardware / 1e12 for f in pair.flops]}
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if peak is not None:
        seconds = [timing.median for timing in timings]
        found["mfu"] = [f.model / s / peak for f, s in zip(pair.flops, seconds, strict=True)]
        found["hfu"] = [f.hardware / s / peak for f, s in zip(pair.flops, seconds, strict=True)]
    return found
