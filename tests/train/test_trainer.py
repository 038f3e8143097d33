"""The loop itself: why it stops."""

from types import SimpleNamespace

import pytest

from olmo.train.trainer import Trainer
from tests.train.ranks import ALONE


class Step:
    """Optimiser steps that do nothing; another rank wants to stop in the second one."""

    model = optimizer = None
    world = ALONE

    def __init__(self, time_limit: float):
        self.cfg = SimpleNamespace(time_limit=time_limit, last_step=9, stop_after=None, gen1_gc_interval=None, console_log_interval=1)

    def __call__(self, batch, step, wish):
        own = wish()
        return SimpleNamespace(metrics={}, extra={}, examples=1, tokens=1, frames=1, stop=own or step == 2)


class Loader:
    def __iter__(self):
        yield from range(9)

    def metrics(self):
        return {}


@pytest.mark.parametrize(("time_limit", "step", "why"), [(3600.0, 2, "another rank's signal"), (0.0, 1, "the time limit")])
def test_what_stopped_the_run(time_limit, step, why):
    """Fails when whatever stops a run with a time limit is taken for the time limit."""
    trainer = Trainer(Step(time_limit), Loader(), [])
    assert trainer.fit() == "stopped"
    assert (trainer.state.step, trainer.stopping) == (step, why)
