"""Who collects Python's garbage during a run, and that everything is as before afterwards."""

import gc

import pytest

from olmo.train.callbacks.garbage import GarbageCollector
from olmo.train.callbacks.standard import standard_callbacks
from tests.train.test_config import config
from tests.train.test_trainer import STEPS, Step, make


@pytest.fixture
def collections(monkeypatch):
    """Generations that the run itself collects, step by step; automatic collection is on before the test, and after it."""
    assert gc.isenabled()
    steps = []
    monkeypatch.setattr("olmo.train.callbacks.garbage.gc.collect", steps.append)
    yield steps
    gc.enable()


def test_at_the_same_steps_on_every_rank(collections):
    """Every third of nine steps, and never by itself. Seen to fail with the steps of this start in place of the run's."""
    automatic = []
    run = make(STEPS, Step(lambda step: automatic.append(gc.isenabled()), stop_after=7), [GarbageCollector(3)])
    run.state.step = 2
    run.fit()
    assert automatic == [False] * 7 and collections == [1, 1, 1]
    assert gc.isenabled()


def test_it_is_back_on_after_a_fault(collections):
    """Seen to fail when only a run that ends well switches it on again."""

    def broken(step):
        assert not gc.isenabled()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(STEPS, Step(broken), [GarbageCollector(1)]).fit()
    assert gc.isenabled()


def test_what_was_off_stays_off(collections):
    gc.disable()
    make(STEPS, None, [GarbageCollector(1)]).fit()
    assert not gc.isenabled()


def test_null_leaves_it_to_python():
    cfg = config(gen1_gc_interval=4)
    assert [c.interval for c in standard_callbacks(cfg, None, None) if isinstance(c, GarbageCollector)] == [4]
    cfg.gen1_gc_interval = None
    assert not any(isinstance(c, GarbageCollector) for c in standard_callbacks(cfg, None, None))
