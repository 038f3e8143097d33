"""Which checkpoints of a run stay."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint of the run."""

    name: str
    ephemeral: bool
    """Whether it only stays until the next one."""


def superseded(saved: Sequence[Saved], new: Saved, keep: int) -> list[Saved]:
    """Those of `saved` (oldest first) that go once `new` is whole: ephemeral ones, and permanent ones beyond the newest `keep`.

    `keep`: how many permanent ones stay, the new one among them if it is permanent; -1 = all. An ephemeral one never sends a
    permanent one away, and `new` itself always stays, so that there is a whole checkpoint at every moment.
    """
    others = [s for s in saved if s.name != new.name]
    going = [s for s in others if s.ephemeral]
    permanent = [s for s in others if not s.ephemeral]
    if keep > 0 and not new.ephemeral:
        going += permanent[: max(0, len(permanent) + 1 - keep)]
    return going
