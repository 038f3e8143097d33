"""Where data lives on disk, and who may write it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def data_root() -> Path:
    """`MOLMO_DATA_DIR`, or the folder `data` of the working directory."""
    return Path(os.environ.get("MOLMO_DATA_DIR") or "data")


def video_root() -> Path:
    """Parent of the folders of the video data sets."""
    return data_root() / "video_datasets"


def is_data_file(name: str) -> bool:
    """Whether the name of a data set is the path of a data file of one's own."""
    return name.endswith(".jsonl")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Only one process at a time is inside; the others wait. The system frees it when its owner dies."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
