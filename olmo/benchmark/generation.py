"""Answering requests, with the time of the vision part, of reading and of writing apart."""

from statistics import median

import torch

from olmo.benchmark.cases import Case
from olmo.benchmark.models import Arm, arms
from olmo.benchmark.parts import Pair, Run, without_gradient


def generate(case: Case, device: torch.device) -> Pair:
    """`case.rows` requests at once, each with its video. `stages` gets the seconds of each stage as the rounds go."""
    both = arms(case, device)
    stages: dict[str, dict[str, list[float]]] = {"unpruned": {}, case.method: {}}
    timed = [_answering(arm, case, device, stages[name]) for arm, name in zip(both, stages, strict=True)]
    details = {"requests": case.rows, "new_tokens": case.new_tokens}
    models = [arm.model for arm in both]
    return Pair(timed, models, details=details, finish=lambda: {"stages": {name: _medians(times) for name, times in stages.items()}})


def _answering(arm: Arm, case: Case, device: torch.device, stages: dict[str, list[float]]) -> Run:
    from olmo.inference.generation import generate as answer

    def run():
        output = answer(arm.model, arm.batch, case.new_tokens)
        for stage, seconds in output.seconds.items():
            stages.setdefault(stage, []).append(seconds)

    return without_gradient(run, device)


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Without the first, which warms up."""
    return {stage: median(values[1:] or values) for stage, values in times.items()}
