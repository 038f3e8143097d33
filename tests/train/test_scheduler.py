"""The schedule, against the published check values."""

import math

import pytest

from olmo.exceptions import OLMoConfigurationError
from olmo.train.scheduler import Scheduler, SchedulerConfig, warmup_cosine


@pytest.mark.parametrize(("step", "rate"), [(1, 5e-8), (100, 5e-6), (200, 1e-5), (3000, 6.0246e-6), (6250, 1e-6), (9999, 1e-6)])
def test_check_values(step, rate):
    """lr 1e-5, 200 warm-up steps of 6,250, from 0. Seen to fail when warm-up starts at a tenth of the peak, and when it
    is one step late."""
    scheduler = Scheduler(SchedulerConfig(warmup_min_lr=0.0), max_steps=6250)
    assert math.isclose(scheduler.learning_rate("llm", 1e-5, step), rate, rel_tol=1e-4)


def test_warm_up_starts_at_a_tenth_by_default():
    assert warmup_cosine(0, 1.0, 10, 100, 0.1, None) == pytest.approx(0.1)
    assert warmup_cosine(0, 1.0, 10, 100, 0.1, 0.0) == 0.0


def test_groups_warm_up_on_their_own():
    scheduler = Scheduler(SchedulerConfig(vit_t_warmup=10, llm_t_warmup=100, warmup_min_lr=0.0), max_steps=1000)
    assert scheduler.learning_rate("vit", 1.0, 10) == pytest.approx(1.0)
    assert scheduler.learning_rate("llm", 1.0, 10) == pytest.approx(0.1)


def test_t_max_shortens_the_cosine():
    scheduler = Scheduler(SchedulerConfig(t_max=500), max_steps=1000)
    assert scheduler.learning_rate("llm", 1.0, 500) == pytest.approx(0.1)


def test_no_warm_up():
    scheduler = Scheduler(SchedulerConfig(llm_t_warmup=0), max_steps=10)
    assert scheduler.learning_rate("llm", 1.0, 1) < 1.0
    assert scheduler.learning_rate("llm", 1.0, 10) == pytest.approx(0.1)


def test_clipping_warm_up():
    scheduler = Scheduler(SchedulerConfig(grad_clip_warmup_steps=5, grad_clip_warmup_factor=3.0), max_steps=10)
    assert scheduler.max_grad_norm(1.0, 5) == 3.0
    assert scheduler.max_grad_norm(1.0, 6) == 1.0
    assert scheduler.max_grad_norm(None, 1) is None
    with pytest.raises(OLMoConfigurationError, match="go together"):
        Scheduler(SchedulerConfig(grad_clip_warmup_steps=5), max_steps=10)
