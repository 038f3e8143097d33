"""The group through which the ranks of an evaluation talk."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from olmo.distributed import World


@contextmanager
def patient_group(world: World) -> Iterator[dist.ProcessGroup | None]:
    """All ranks; None for a single process. Its collectives may wait for hours: a rank with longer videos needs longer."""
    group = dist.new_group(backend="gloo", timeout=timedelta(hours=24)) if world.size > 1 else None
    try:
        yield group
    finally:
        if group is not None:
            dist.destroy_process_group(group)
