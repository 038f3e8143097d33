"""Ranks that share their sequences do what one process does."""

import pytest
import torch

from tests.train.ranks import ALONE, run_ranks
from tests.train.shared_sequences import CASES, first_step, run

LAYOUTS = {
    "two ranks per sequence": (2, dict(degree=2)),
    "four ranks per sequence": (4, dict(degree=4)),
    "two sequences on two ranks each": (4, dict(degree=2)),
    "two copies of the model": (4, dict(degree=1, replicas=2)),
    "two copies of two ranks per sequence": (4, dict(degree=2, replicas=2)),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What the ranks found: one start of two ranks and one of four."""
    folder = tmp_path_factory.mktemp("ranks")
    for count in (2, 4):
        run_ranks(count, run, folder, {name: degrees for name, (ranks, degrees) in LAYOUTS.items() if ranks == count})
    return folder


@pytest.fixture(scope="module")
def alone():
    return {name: first_step(name, ALONE) for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_the_first_step_equals_one_process(shared, alone, layout, case):
    """Losses, metrics, counts, kept cells and every gradient."""
    expected = alone[case]
    for rank in range(LAYOUTS[layout][0]):
        found = torch.load(shared / f"{layout}-{case}-{rank}.pt", weights_only=True)
        assert found["counts"][1:] == expected["counts"][1:]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for key, value in expected["metrics"].items():
            assert found["metrics"][key] == pytest.approx(value, rel=1e-6 if "Loss" in key else 1e-5, abs=1e-8), key
        assert found["gradients"].keys() == expected["gradients"].keys()
        for name, value in expected["gradients"].items():
            error = (found["gradients"][name] - value).abs().max()
            assert error <= 1e-4 * value.abs().max() + 1e-9, f"{name}: {error / value.abs().max():.1e} of its largest entry"
