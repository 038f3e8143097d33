"""The moments at which a callback may act. All ranks run the same callbacks; each decides whether it is for rank 0 only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olmo.train.step import StepResult
    from olmo.train.trainer import Trainer


class Callback:
    """Base with empty moments."""

    patience = 1.0
    """How many times longer than `hang_timeout` a moment of this callback may take."""

    def on_start(self, trainer: "Trainer") -> None:
        """Before the first step of this start (a resumed run starts at its saved step)."""

    def on_step(self, trainer: "Trainer", result: "StepResult", metrics: dict[str, float]) -> None:
        """After every optimiser step. `metrics` is this step's record: callbacks that measure add to it, later ones report it."""

    def on_saved(self, trainer: "Trainer", folder: str) -> None:
        """After a checkpoint is complete."""

    def on_end(self, trainer: "Trainer", status: str) -> None:
        """When the loop ends: `finished`, `stopped` (can be continued; `trainer.stopping` says why it stopped) or `failed`."""

    def state_dict(self) -> dict[str, Any]:
        """What this callback wants back after a resume, in types that load without unpickling code; equal on every rank."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; not called where the checkpoint has nothing of this callback."""

    def load_tensors(self, folder: Path) -> None:
        """Go on from the tensors that the checkpoint in `folder` holds for this callback."""
