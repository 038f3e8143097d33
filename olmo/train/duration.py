"""How long a run is: `max_duration` in optimiser steps, epochs, tokens or hours, and what that is in steps.

Steps are the measure of everything else (schedule, saves, log), so a duration is turned into steps wherever that is exact. Two kinds
cannot be: epochs whose examples share rows, and hours. They are counted while the run goes (`olmo/train/limits.py`).
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from olmo.config import StrEnum
from olmo.exceptions import OLMoConfigurationError

if TYPE_CHECKING:
    from olmo.train.config import TrainConfig


class Unit(StrEnum):
    """What a duration counts, by the letters behind its number."""

    steps = ""
    epochs = "ep"
    tokens = "T"
    hours = "h"


_WRITTEN = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?)(ep|T|h)")


@dataclass(frozen=True)
class Duration:
    """`max_duration`, taken apart."""

    text: str
    amount: Fraction
    unit: Unit

    @classmethod
    def parse(cls, value: int | str) -> "Duration":
        """Raises OLMoConfigurationError for anything but `10000`, `2ep`, `2e9T` or `1.5h`."""
        text = str(value).strip()
        if re.fullmatch(r"[+-]?\d+", text):
            amount, unit = Fraction(text), Unit.steps
        elif written := _WRITTEN.fullmatch(text):
            amount, unit = Fraction(written[1]), Unit(written[2])
        else:
            raise OLMoConfigurationError(
                f"max_duration={text}: must be a number of optimiser steps (10000), epochs (2ep), tokens (2e9T) or hours (1.5h)"
            )
        if amount < 1 if unit == Unit.steps else amount <= 0:
            raise OLMoConfigurationError(f"max_duration={text}: must be {'at least 1' if unit == Unit.steps else 'more than 0'}")
        return cls(text, amount, unit)

    def check(self, cfg: "TrainConfig") -> None:
        """Refuse what has no exact meaning with these settings."""
        if self.unit == Unit.tokens and (cfg.data.pad != "to_max" or cfg.data.sequence_length is None):
            raise OLMoConfigurationError(
                f"max_duration={self.text}: tokens are those of rows of one length, padding included; set data.pad=to_max and "
                "data.sequence_length, or give steps (10000) or epochs (2ep)"
            )
        if self.unit == Unit.hours and cfg.scheduler.t_max is None and cfg.scheduler.alpha_f != 1:
            raise OLMoConfigurationError(
                f"max_duration={self.text}: how many steps that will be is not known, so the learning rate has nothing to fall over; set "
                "scheduler.t_max to the step at which it is to reach its floor (or scheduler.alpha_f=1, and it does not fall)"
            )

    def steps(self, cfg: "TrainConfig", epoch_size: int | None = None) -> int | None:
        """Optimiser steps, or None where the config (and the number of examples in the data) do not say."""
        if self.unit == Unit.steps:
            return int(self.amount)
        if self.unit == Unit.tokens and cfg.data.sequence_length is not None:
            return math.ceil(self.amount / (cfg.global_train_batch_size * cfg.data.sequence_length))
        if self.unit == Unit.epochs and cfg.data.packing is None and epoch_size is not None:
            return math.ceil(self.amount * epoch_size / cfg.global_train_batch_size)
        return None


@dataclass(frozen=True)
class RunLength:
    """A duration with these data: exactly one of the three is known."""

    steps: int | None = None
    draws: int | None = None
    """Examples of the data stream that go into rows."""
    seconds: float | None = None
    """Time spent training."""

    @classmethod
    def of(cls, cfg: "TrainConfig", epoch_size: int) -> "RunLength":
        """`epoch_size`: examples of all data sets of the mixture."""
        duration = cfg.duration
        if (steps := duration.steps(cfg, epoch_size)) is not None:
            return cls(steps=steps)
        if duration.unit == Unit.epochs:
            return cls(draws=math.ceil(duration.amount * epoch_size))
        return cls(seconds=float(duration.amount * 3600))

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps:,} optimiser steps"
        if self.draws is not None:
            return f"{self.draws:,} examples, in as many steps as they need"
        return f"{self.seconds:,.0f} s of training"
