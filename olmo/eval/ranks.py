"""What the ranks of an evaluation tell each other."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from olmo.exceptions import OLMoError


class Ranks:
    """A group of all ranks; a single process is one too. Its collectives may wait for hours: a rank with longer videos needs longer."""

    def __init__(self, world) -> None:
        import torch.distributed as dist

        self.world = world
        self.group = dist.new_group(backend="gloo", timeout=timedelta(hours=24)) if world.size > 1 else None

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *exc: Any) -> None:
        import torch.distributed as dist

        if self.group is not None:
            dist.destroy_process_group(self.group)
            self.group = None

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, on every rank."""
        import torch.distributed as dist

        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.world.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_main(self, value: Any) -> Any:
        """What rank 0 has, for everybody: all must take the same way."""
        return self.gather(value)[0]

    def on_main(self, action: Callable[[], None]) -> None:
        """Run on rank 0; the others wait, and fail with it."""
        error = None
        if self.world.rank == 0:
            try:
                action()
            except OLMoError as err:
                error = err
        error = self.from_main(error)
        if error is not None:
            raise error from None
