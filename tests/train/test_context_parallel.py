"""Ranks that share their sequences, and copies of the model, do what one process does."""

from functools import cache

import pytest
import torch

from tests.train.ranks import ALONE, run_ranks
from tests.train.shared_sequences import CASES, first_step, run

HARD = ["branches, packed", "nothing removed", "nearly all removed", "equal scores", "few frames", "text beside video", "images", "tome"]
LAYOUTS = {
    "two ranks per sequence": (2, dict(degree=2), list(CASES)),
    "four ranks per sequence": (4, dict(degree=4), [*HARD, "text alone", "no scorer"]),
    "two sequences on two ranks each": (4, dict(degree=2), ["branches, packed", "text beside video", "few frames", "four rows"]),
    "two copies of the model": (4, dict(replicas=2), ["four rows"]),
    "two copies of two ranks per sequence": (4, dict(degree=2, replicas=2), ["branches, packed", "four rows"]),
}
"""Ranks, how they are laid out, and what they compute."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What the ranks found: one start of two ranks and one of four."""
    folder = tmp_path_factory.mktemp("ranks")
    for count in (2, 4):
        run_ranks(count, run, folder, {name: what for name, (ranks, *what) in LAYOUTS.items() if ranks == count})
    return folder


@cache
def alone(name: str) -> dict:
    return first_step(name, ALONE)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "case"), [(layout, case) for layout, (*_, cases) in LAYOUTS.items() for case in cases])
def test_the_first_step_equals_one_process(shared, layout, case):
    """Losses, metrics, counts, kept cells and every gradient."""
    count, degrees, _ = LAYOUTS[layout]
    expected = alone(case)
    groups = count // degrees.get("degree", 1)
    for rank in range(count):
        found = torch.load(shared / f"{layout}-{case}-{rank}.pt", weights_only=True)
        assert found["counts"] == expected["counts"]
        rows = len(expected["kept"]) // groups
        first = rank * groups // count * rows
        assert found["kept"] == expected["kept"][first : first + rows]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for key, value in expected["metrics"].items():
            assert found["metrics"][key] == pytest.approx(value, rel=1e-6 if "Loss" in key else 1e-5, abs=1e-8), key
        assert found["gradients"].keys() == expected["gradients"].keys()
        for name, value in expected["gradients"].items():
            # keys that all move alike change no attention: the gradient of their bias is zero but for rounding
            scale = expected["gradients"][name.replace("wk.bias", "wk.weight")].abs().max()
            error = (found["gradients"][name] - value).abs().max()
            assert error <= 1e-4 * scale, f"{name}: {error / scale:.1e} of its largest entry"
