"""A folder of numbered JPEG files as a video: TVQA is published as such folders, and so is whatever is built on it.

Nothing is encoded or copied: the folder has a frame table like any file, and its pictures are read by number.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data.decoders import FrameTransform
from olmo.data.failures import BadVideoError, as_decoding_error
from olmo.data.frame_table import VideoInfo
from olmo.exceptions import OLMoDataError

FPS = 3
"""Pictures of a second in the frames of TVQA; no other set comes in this form."""

NAMES = "[0-9]" * 5 + ".jpg"


class FrameFolderBackend:
    """Reads pictures instead of decoding a stream (`olmo.data.video_reader.Backend`)."""

    name = "frame folder"

    def probe(self, path: str, timeout: float) -> VideoInfo:
        """The table of a folder with 00001.jpg, 00002.jpg, ...; where numbers are missing the frame before is shown longer."""
        numbers = np.array(sorted(int(file.stem) for file in Path(path).glob(NAMES)), dtype=np.int64)
        if not len(numbers):
            raise BadVideoError(path, "no_frames", "a folder without 00001.jpg, 00002.jpg, ...")
        height, width = _picture(path, numbers[0]).shape[:2]
        ticks = numbers - numbers[0]
        return VideoInfo(str(path), width, height, numbers, ticks / FPS, float(ticks[-1] + 1) / FPS, numbers)

    def frames(self, info: VideoInfo, indices: list[int], timeout: float, transform: FrameTransform | None) -> Iterator[np.ndarray]:
        for index in indices:
            frame = _picture(info.path, info.pts[index])
            yield frame if transform is None else transform(frame)


def _picture(folder: str, number: int) -> np.ndarray:
    from olmo.preprocessing.images import load_image  # with it comes torch, which a decoding process does not need

    try:
        return np.array(load_image(Path(folder, f"{number:05d}.jpg")))  # a copy, which may be written to
    except OLMoDataError as err:
        raise as_decoding_error(err, folder) from None
