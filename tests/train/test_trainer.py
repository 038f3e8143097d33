"""The loop itself: when it ends, why, and that everybody hears of it. Steps here take no time but what a made-up clock says."""

import os
import signal
from types import SimpleNamespace

import pytest

from olmo.train import limits, signals, trainer
from olmo.train.callbacks.base import Callback
from olmo.train.duration import RunLength
from olmo.train.limits import Limits
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.trainer import Trainer
from tests.train.ranks import ALONE

STEPS = RunLength(steps=9)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    now = SimpleNamespace(time=100.0)
    for module in (limits, signals, trainer):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.time))
    return now


class Step:
    """Optimiser steps that do nothing but `during(step)`."""

    model = optimizer = None
    world = ALONE

    def __init__(self, during=lambda step: None, **settings):
        defaults = {"time_limit": None, "stop_at": None, "stop_after": None, "console_log_interval": 1, "restore_dataloader": True}
        self.cfg, self.during = SimpleNamespace(**defaults | settings), during
        self.scheduler = Scheduler(SchedulerConfig(llm_t_warmup=0), None)
        self.rates = []

    def __call__(self, batch, step, wish):
        self.during(step)
        self.rates.append(self.scheduler.learning_rate("llm", 1.0, step))
        return SimpleNamespace(metrics={}, extra={}, examples=1, tokens=1, frames=1, stop=wish())


class Loader:
    """Batches of three examples, then of two, then of three again, ..."""

    drawn = 0

    def __iter__(self):
        while True:
            self.drawn += 2 if self.drawn % 5 else 3
            yield None

    def metrics(self):
        return {}

    def state_dict(self):
        return self.drawn

    def load_state_dict(self, state):
        self.drawn = state


def make(length: RunLength, step: Step | None = None, callbacks=()) -> Trainer:
    step = step or Step()
    return Trainer(step, Loader(), callbacks, Limits(step.cfg, ALONE, length))


def resumed(before: Trainer, length: RunLength, step: Step | None = None) -> Trainer:
    """The next start of the same run."""
    after = make(length, step)
    after.load_state_dict(before.state_dict() | {"same_world": True})
    return after


def test_a_run_ends_at_its_length():
    run = make(STEPS)
    assert run.fit() == "finished" and (run.state.step, run.last_step, run.stopping) == (9, 9, None)
    assert make(STEPS, Step(stop_at=4)).last_step == 4
    assert make(STEPS, Step(stop_at=40)).last_step == 9


def test_the_time_limit_is_of_one_start(clock):
    """Seen to fail when it goes on counting where the start before ended."""

    def minute(step):
        clock.time += 60

    run = make(STEPS, Step(minute, time_limit=150.0))
    assert run.fit() == "stopped" and (run.state.step, run.stopping) == (3, "the time limit")
    run = resumed(run, STEPS, Step(minute, time_limit=150.0))
    assert run.fit() == "stopped" and run.state.step == 6


def test_resume_after_so_many_steps_of_this_start():
    """`stop_after` stops a run that can be continued; where that is its end anyway, it is finished."""
    run = make(STEPS, Step(stop_after=4))
    assert run.fit() == "stopped" and (run.state.step, run.last_step, run.stopping) == (4, 9, "stop_after=4")
    run = resumed(run, STEPS, Step(stop_after=5))
    assert run.fit() == "finished" and (run.state.step, run.stopping) == (9, None)


def test_resume_of_a_run_of_hours(clock):
    """Three starts; what passes between steps (saving) does not count, and the end is the first step that is not over in time. Seen to
    fail when the step that used up the time is not counted with what it took, and with the clock of this start alone."""
    length = RunLength(seconds=100.0)

    def pass_time(step):
        clock.time += 15

    class Saving(Callback):
        def on_step(self, trainer, result, metrics):
            clock.time += 1000

    run = make(length, Step(pass_time, stop_after=3), [Saving()])
    assert run.last_step == 1, "nothing to estimate it from"
    assert run.fit() == "stopped" and (run.state.seconds, run.last_step) == (45.0, 7)
    run = resumed(run, length, Step(pass_time, stop_after=3))
    assert run.fit() == "stopped" and run.state.step == 6
    run = resumed(run, length, Step(pass_time))
    assert run.fit() == "finished" and (run.state.step, run.last_step, run.stopping) == (7, 7, None)
    run = resumed(run, length, Step(lambda step: pytest.fail("nothing is left to do")))
    assert run.fit() == "finished" and run.last_step == 7


def test_resume_of_counted_epochs():
    """Twelve examples, three and two to a step in turn: five steps. The learning rate falls to its floor over them, and it does so
    alike with a stop in between. Seen to fail when the count begins anew, and when the length is estimated only once."""
    length, whole = RunLength(draws=12), Step()
    run = make(length, whole)
    assert run.fit() == "finished" and (run.state.step, run.state.drawn) == (5, 13)
    assert whole.rates[0] == 1.0 and whole.rates == sorted(whole.rates, reverse=True) and whole.rates[-1] == pytest.approx(0.1)
    for stop in (1, 2, 3, 4):
        first, second = Step(stop_after=stop), Step()
        stopped = make(length, first)
        assert stopped.fit() == "stopped"
        run = resumed(stopped, length, second)
        assert run.fit() == "finished" and (run.state.step, run.state.drawn) == (5, 13)
        assert first.rates + second.rates == whole.rates
    assert resumed(run, length).fit() == "finished"


def test_a_fixed_schedule_goes_before_the_estimate():
    step = Step()
    step.scheduler = Scheduler(SchedulerConfig(llm_t_warmup=0, t_max=2), None)
    assert make(RunLength(draws=12), step).fit() == "finished"
    assert step.rates[1:] == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_fault_signal_is_a_wish_once(number, clock):
    """What comes again within seconds is the same wish, passed on by a launcher. Seen to fail when the second one counts."""

    def twice(step):
        if step == 2:
            os.kill(os.getpid(), number)
            clock.time += 3
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    run = make(STEPS, Step(twice))
    assert run.fit() == "stopped" and (run.state.step, run.stopping) == (2, number.name)
    assert signal.getsignal(number) == before


def test_a_fault_signal_much_later_ends_the_run_at_once(clock):
    """Seen to fail when signals after the first are forgotten."""

    def again(step):
        os.kill(os.getpid(), signal.SIGINT)
        clock.time += 6
        os.kill(os.getpid(), signal.SIGINT)

    run = make(STEPS, Step(again))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started the tests in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.state.step == 0


def test_a_fault_signal_while_the_run_ends_does_not_cut_it_off():
    """A scheduler that says it again while callbacks close their files. Seen to fail when signals count again as soon as the loop is
    left."""
    told = []

    class Slow(Callback):
        def on_end(self, trainer, status):
            os.kill(os.getpid(), signal.SIGINT)
            told.append(status)

    run = make(STEPS, Step(lambda step: step == 2 and os.kill(os.getpid(), signal.SIGTERM)), [Slow()])
    assert run.fit() == "stopped" and told == ["stopped"] and run.stopping == "SIGTERM"


def test_a_fault_signal_in_the_last_step_finishes_the_run():
    run = make(STEPS, Step(lambda step: step == 9 and os.kill(os.getpid(), signal.SIGTERM)))
    assert run.fit() == "finished" and run.stopping is None


@pytest.mark.parametrize("fault", [True, False])
def test_everybody_hears_of_the_end_after_a_fault(fault, caplog):
    """One callback breaks in a step (or does not), two at the end. The first cause is what the run ends with. Seen to fail when the
    first failure at the end is the last thing that happens."""
    told = []

    class Named(Callback):
        def __init__(self, name, *, breaks=None):
            self.name, self.breaks = name, breaks

        def on_step(self, trainer, result, metrics):
            if self.breaks == "step":
                raise ZeroDivisionError

        def on_end(self, trainer, status):
            told.append((self.name, status))
            if self.breaks == "end":
                raise OSError(f"no room for {self.name}")

    callbacks = [Named("a", breaks="end"), Named("b", breaks="step" if fault else None), Named("c", breaks="end")]
    with pytest.raises(ZeroDivisionError if fault else OSError, match=None if fault else "no room for a"), caplog.at_level("WARNING"):
        make(STEPS, None, callbacks).fit()
    assert told == [(name, "failed" if fault else "finished") for name in "abc"]
    assert [m.rpartition(" ")[2] for m in caplog.messages] == (["a", "c"] if fault else ["c"])
