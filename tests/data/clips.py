"""Tiny generated clips: good ones whose frames carry their number, and a zoo of broken ones."""

from fractions import Fraction
from pathlib import Path

import numpy as np


def numbered_frame(number: int, size: int = 64) -> np.ndarray:
    """A grey frame that encodes `number` in eight binary blocks (robust to lossy coding)."""
    frame = np.full((size, size, 3), 40, dtype=np.uint8)
    for bit in range(12):
        row, col = divmod(bit, 4)
        if number >> bit & 1:
            frame[row * 16 : row * 16 + 16, col * 16 : col * 16 + 16] = 220
    return frame


def read_number(frame: np.ndarray) -> int:
    """The number that `numbered_frame` wrote."""
    blocks = frame[8:48:16, 8:64:16, 0]  # [3, 4]
    return int(sum(1 << i for i, value in enumerate(blocks.reshape(-1)) if value > 130))


def write_clip(
    path: Path, frames: int = 30, fps: int = 10, begin: float = 0.0, times=None, gop: int = 12, size=(64, 64), tint=(1, 1, 1), **options
) -> Path:
    """An H.264 clip of numbered frames; `times` (in frame units) makes the frame rate variable, `tint` colours it."""
    import av

    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(gop), "crf": "18", "preset": "ultrafast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, fps * 1000)
        for number in range(frames):
            picture = (np.resize(numbered_frame(number), (size[1], size[0], 3)) * np.array(tint)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, fps * 1000)
            frame.pts = round((number if times is None else times[number]) * 1000 + begin * fps * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A file with one second of sound and no picture."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_header_only(path: Path) -> Path:
    """A video of zero length."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return path


def broken_zoo(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (file, expected cause)."""
    good = write_clip(folder / "good.mp4", frames=60).read_bytes()
    front = write_clip(folder / "front.mp4", frames=60, movflags="faststart").read_bytes()
    zoo = {
        "missing": (folder / "nowhere.mp4", "missing"),
        "empty": (folder / "empty.mp4", "empty"),
        "text": (folder / "text.mp4", "corrupt"),
        "cut_without_index": (folder / "cut.mp4", "corrupt"),
        "cut_with_index": (folder / "cut_front.mp4", "truncated"),
        "zero_length": (write_header_only(folder / "zero.avi"), "no_frames"),
        "audio_only": (write_audio(folder / "audio.mp4"), "no_video"),
    }
    zoo["empty"][0].write_bytes(b"")
    zoo["text"][0].write_bytes(b"this is no video\n" * 100)
    zoo["cut_without_index"][0].write_bytes(good[: len(good) // 2])
    zoo["cut_with_index"][0].write_bytes(front[: len(front) // 2])
    return zoo
