"""Where a run begins: which checkpoint, what of it, and bringing it to every machine."""

from dataclasses import dataclass
from pathlib import Path

from olmo.checkpoints import holds_only_weights, select_checkpoint, step_of, verify_checkpoint
from olmo.checkpoints.remote import cached, fetch, select_in_store
from olmo.checkpoints.stores import Store, is_url
from olmo.distributed import World, on_all_ranks, on_main
from olmo.exceptions import OLMoCheckpointError, OLMoError, first_line
from olmo.train.config import TrainConfig
from olmo.train.saving.folder import existing_steps


@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    origin: str | None = None
    """Folder or URL of the checkpoint; None = fresh weights."""
    optimizer: bool = False
    """Take its optimiser state."""
    trainer: bool = False
    """Take step, data position and random state."""
    resumes: bool = False
    """It is this run's own checkpoint."""

    @property
    def fetched(self) -> bool:
        """Whether the checkpoint lies in an object store and is copied here."""
        return self.origin is not None and is_url(self.origin)

    @property
    def folder(self) -> Path | None:
        """Where it can be read."""
        if self.origin is None:
            return None
        return cached(self.origin) if self.fetched else Path(self.origin)


def find_start(cfg: TrainConfig) -> Start:
    """The newest own checkpoint if resuming is allowed, else `load_path`, else `initial_model_checkpoint`, else nothing."""
    own = Store(cfg.checkpoints)
    optimizer, trainer = not cfg.reset_optimizer_state, not cfg.reset_trainer_state
    if cfg.allow_resume and (existing_steps(own) or any(step_of(n) is not None for n in own.folders())):
        return Start(locate(cfg.checkpoints), optimizer, trainer, resumes=True)
    if cfg.load_path is not None:
        return Start(locate(cfg.load_path), optimizer, trainer)
    if cfg.initial_model_checkpoint is not None:
        return Start(locate(cfg.initial_model_checkpoint))
    return Start()


def locate(location: str) -> str:
    """The checkpoint that a folder or URL stands for; of a URL nothing is copied yet."""
    return select_in_store(location) if is_url(location) else str(select_checkpoint(location))


def fetch_start(cfg: TrainConfig, start: Start, world: World) -> None:
    """Bring the checkpoint of a URL to every machine, and check what is there."""
    if start.origin is None:
        return
    if start.fetched:
        on_all_ranks(lambda: fetch(start.origin) if world.local_rank == 0 else None, cannot_find_start)
    on_main(lambda: check_start(start), cannot_find_start)
    # What was fetched has been compared on its way.
    if cfg.verify_checkpoint and not start.fetched:
        on_all_ranks(lambda: verify_checkpoint(start.folder, world.rank, world.size), cannot_find_start)


def check_start(start: Start) -> None:
    """Refuse weights alone where more is to be taken."""
    if (start.optimizer or start.trainer or start.resumes) and holds_only_weights(start.folder):
        if start.resumes:
            raise OLMoCheckpointError(
                f"{start.origin} holds weights only and cannot be continued; give it as --initial_model_checkpoint with another save_folder"
            )
        raise OLMoCheckpointError(
            f"load_path {start.origin} holds weights only; set reset_optimizer_state=true and reset_trainer_state=true to start from it"
        )


def cannot_find_start(err: BaseException) -> OLMoError:
    """For what goes wrong while looking for a checkpoint and is not worded for the user, such as a folder that may not be read."""
    return OLMoCheckpointError(f"cannot look for the checkpoint to start from: {type(err).__name__}: {first_line(err)}")
