"""`max_duration` in every unit: how it is written, what it is in steps, and what is refused."""

import pytest

from olmo.exceptions import OLMoConfigurationError
from olmo.train.duration import Duration, RunLength, Unit
from tests.train.test_config import config

WRITTEN = [
    *[(9, 9, Unit.steps), ("10000", 10_000, Unit.steps)],
    *[("2ep", 2, Unit.epochs), ("0.5ep", 0.5, Unit.epochs), ("1e1ep", 10, Unit.epochs)],
    *[("2e9T", 2_000_000_000, Unit.tokens), ("2048T", 2048, Unit.tokens)],
    *[("1.5h", 1.5, Unit.hours), ("2.5E-1h", 0.25, Unit.hours)],
]


@pytest.mark.parametrize(("value", "amount", "unit"), WRITTEN)
def test_how_durations_are_written(value, amount, unit):
    duration = Duration.parse(value)
    assert (duration.amount, duration.unit) == (amount, unit)


@pytest.mark.parametrize("value", ["ten", "1e4", "2 ep", "2EP", "2e9t", "h", "1.5", "-2ep", "3d", "nanh", ""])
def test_other_words_are_refused(value):
    with pytest.raises(OLMoConfigurationError, match=r"must be a number of optimiser steps \(10000\), epochs \(2ep\), tokens"):
        config(max_duration=value).validate(1)


@pytest.mark.parametrize(("value", "what"), [(0, "at least 1"), (-5, "at least 1"), ("0ep", "more than 0"), ("0.0h", "more than 0")])
def test_nothing_is_no_duration(value, what):
    with pytest.raises(OLMoConfigurationError, match=f"max_duration={value}: must be {what}"):
        config(max_duration=value).validate(1)


def test_the_command_line_and_files_take_every_unit(tmp_path):
    for text in ("2e9T", "1.5h"):
        cfg = config().with_overrides([f"max_duration={text}"])
        cfg.save(tmp_path / "x.yaml")
        assert type(cfg).load(tmp_path / "x.yaml").duration == cfg.duration == Duration.parse(text)


def test_tokens_are_those_of_full_rows():
    """Global batch 4, rows of 512: a step has 2,048. Seen to fail with the last, partial step left out."""
    rows = {"data": {"pad": "to_max", "sequence_length": 512}}
    assert [config(max_duration=t, **rows).max_steps for t in ("2048T", "2049T", "1T", "2e9T")] == [1, 2, 1, 976_563]
    assert RunLength.of(config(max_duration="6e3T", **rows), epoch_size=8) == RunLength(steps=3)


@pytest.mark.parametrize("data", [{"pad": None}, {"sequence_length": None, "pad": None}])
def test_tokens_of_rows_of_any_length_are_refused(data):
    with pytest.raises(OLMoConfigurationError, match="max_duration=9T: .*; set data.pad=to_max and data.sequence_length, or"):
        config(max_duration="9T", data=data).validate(1)


PACKED = {"data": {"packing": {"buffer_size": 3}}}


def test_epochs():
    """Of 10 examples, 4 to a step; packed ones of 100, where seven in a hundred are 7 (seen to fail with floating point: 8)."""
    assert [RunLength.of(config(max_duration=d), 10) for d in ("2ep", "0.4ep", "0.41ep")] == [RunLength(steps=s) for s in (5, 1, 2)]
    assert [RunLength.of(config(max_duration=d, **PACKED), 100) for d in ("2ep", "0.07ep")] == [RunLength(draws=d) for d in (200, 7)]
    assert config(max_duration="2ep").max_steps is None, "not without the data"


def test_hours_need_a_schedule_of_their_own():
    """A learning rate that falls has to be told over how many steps. Seen to fail when only `t_max` counts."""
    with pytest.raises(OLMoConfigurationError, match="max_duration=1.5h: .*set scheduler.t_max to the step at which"):
        config(max_duration="1.5h").validate(1)
    for scheduler in ({"t_max": 100}, {"alpha_f": 1.0}):
        cfg = config(max_duration="1.5h", scheduler=scheduler)
        cfg.validate(1)
        assert RunLength.of(cfg, 10) == RunLength(seconds=5400.0)
