"""`ended.json` in the save folder: how the last start ended, for scripts that decide whether to start the command again."""

from pathlib import Path

from olmo.distributed import on_main
from olmo.json_lines import as_lines, write_whole
from olmo.train.callbacks.base import Callback
from olmo.train.saving.checkpoint import cannot_write

FILE_NAME = "ended.json"


class OutcomeFile(Callback):
    """Written by a start that ended in order, after its last checkpoint; removed when training goes on. So while there is no such file
    the run is training, has failed, or was killed.

    `status`: `finished` (nothing is left to do) or `stopped` (the same command continues); `reason`: of stopping, else null;
    `step`, `last_step`: where it is, and where it is to end (an estimate where only running tells).
    """

    def __init__(self, save_folder: str):
        self.path = Path(save_folder) / FILE_NAME

    def on_start(self, trainer) -> None:
        if not trainer.limits.ended:
            on_main(lambda: self.path.unlink(missing_ok=True), cannot_write(self.path.parent))

    def on_end(self, trainer, status) -> None:
        if status == "failed":  # this rank may be the only one that comes here
            return
        outcome = {"status": status, "reason": trainer.stopping, "step": trainer.state.step, "last_step": trainer.last_step}

        on_main(lambda: write_whole(self.path, as_lines([outcome])), cannot_write(self.path.parent))
