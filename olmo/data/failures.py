"""Unreadable media and unusable examples: one error type with a cause, and the account that is kept of them.

A broken clip must never end a run that trains on a hundred thousand good ones, and a folder full of broken clips must
not pass unnoticed. So every failure is counted by cause and its file named once; the run ends only when the share of
bad reads is above `max_bad_fraction` by more than chance explains.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from olmo.exceptions import OLMoDataError, OLMoEnvironmentError

log = logging.getLogger(__name__)

CAUSES = {
    "missing": "the file does not exist",
    "empty": "the file is empty",
    "corrupt": "the file cannot be decoded",
    "no_video": "the file has no video stream",
    "no_frames": "the video stream has no frames",
    "truncated": "the file ends before its video does",
    "timeout": "decoding takes longer than the time limit",
    "crash": "the decoder crashed",
    "quarantined": "the file hung or crashed a decoder before and was not tried again",
    "invalid_clip": "the clip's start is not before its end, or lies behind the end of the video",
}

BAD_EXAMPLE = "example"
"""Cause under which an example is counted whose file is fine but whose annotation is not."""

MIN_READS = 20
ALL_BAD_READS = 5


class BadVideoError(OLMoDataError):
    """One video cannot be read; `cause` is a key of `CAUSES`."""

    def __init__(self, path: str, cause: str, detail: str = "") -> None:
        assert cause in CAUSES, cause
        super().__init__(path, cause, detail)
        self.path, self.cause, self.detail = str(path), cause, " ".join(str(detail).split())

    def __str__(self) -> str:
        return f"{self.path}: {CAUSES[self.cause]}" + (f" ({self.detail})" if self.detail else "")


def as_decoding_error(err: Exception, path: str) -> Exception:
    """What a decoder raised, under one name: every library has its own error classes, and all of them mean "this file",
    except where this machine lacks something (memory, a package)."""
    if isinstance(err, (BadVideoError, OLMoEnvironmentError, MemoryError)):
        return err
    return BadVideoError(path, "corrupt", str(err)[:200] or type(err).__name__)


def cause_and_file(err: OLMoDataError) -> tuple[str, str]:
    """What a failure is counted as, and the file to blame ("" where the file is fine but its annotation is not)."""
    return (err.cause, err.path) if isinstance(err, BadVideoError) else (BAD_EXAMPLE, "")


class FailureLog:
    """Counts reads and failures of one loader, names each file once, and stops the run above the limit.

    The limit for `n` reads is `m + 2 * sqrt(m)` with `m = max_bad_fraction * n`, judged from 20 reads on (2 bad of 20
    are too many, 3 of 100 are not, 16 of 1,000 are not, 17 are); before that only 5 bad reads without a good one end
    the run. The margin keeps a data set with half of the allowed failures from dying by bad luck in its first minutes.
    """

    def __init__(self, max_bad_fraction: float = 0.01, setting: str = "data.max_bad_fraction={:g}") -> None:
        """`setting`: how the message names the limit, so that it never names an option that the command does not have."""
        self.max_bad_fraction, self.setting = max_bad_fraction, setting
        self.reads = 0
        self.by_cause: Counter[str] = Counter()
        self.files: dict[str, str] = {}

    @property
    def bad(self) -> int:
        return sum(self.by_cause.values())

    def record(self, reads: int, failures: Iterable[OLMoDataError]) -> None:
        """Add `reads` attempts of which `failures` failed."""
        self.reads += reads
        failures = list(failures)
        for failure in failures:
            cause, file = cause_and_file(failure)
            name = file or str(failure)
            self.by_cause[cause] += 1
            if name not in self.files:
                self.files[name] = str(failure)
                log.warning("skipped %s", failure)
        if failures:
            self.check()

    def check(self) -> None:
        """OLMoDataError with the files, if there are more failures than the limit allows."""
        mean = self.max_bad_fraction * self.reads
        too_many = self.reads >= MIN_READS and self.bad > mean + 2 * math.sqrt(mean)
        if not too_many and not (self.bad == self.reads >= ALL_BAD_READS):
            return
        listed = "; ".join(list(self.files.values())[:20])
        more = f"; and {len(self.files) - 20} more" if len(self.files) > 20 else ""
        allowed = self.setting.format(self.max_bad_fraction)
        raise OLMoDataError(f"{self.bad} of {self.reads} examples could not be read, more than {allowed} allows: {listed}{more}")

    def metrics(self) -> dict[str, float]:
        """Counters for the log."""
        out = {"data/reads": float(self.reads), "data/bad_fraction": self.bad / max(1, self.reads)}
        return out | {f"data/bad_{cause}": float(n) for cause, n in sorted(self.by_cause.items())}

    def state_dict(self) -> dict[str, Any]:
        return {"reads": self.reads, "by_cause": dict(self.by_cause)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counts go on; files are named anew."""
        self.reads, self.by_cause = state["reads"], Counter(state["by_cause"])
