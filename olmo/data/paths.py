"""Where data lives on disk."""

import os
from pathlib import Path


def data_root() -> Path:
    """`MOLMO_DATA_DIR`, or the folder `data` of the working directory."""
    return Path(os.environ.get("MOLMO_DATA_DIR") or "data")


def video_root() -> Path:
    """Parent of the folders of the video data sets."""
    return data_root() / "video_datasets"
