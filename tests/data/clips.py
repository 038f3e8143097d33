"""A zoo of tiny generated clips: good ones whose frames carry their number, and broken ones with what they are."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np


def numbered_frame(number: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A grey frame of `size` (height, width) that encodes `number` below 4096 in a grid of 4 x 4 light and dark fields.

    Three rows are the number, the fourth counts its bits: lossy coding, scaling and odd sizes leave it readable, and a
    picture that is turned, torn or of another number is noticed.
    """
    bits = [number >> i & 1 for i in range(12)]
    grid = np.array(bits + [sum(bits) >> i & 1 for i in range(4)]).reshape(4, 4)
    rows, cols = (np.arange(side) * 4 // side for side in size)
    return np.where(grid == 1, np.uint8(220), np.uint8(40))[rows][:, cols, None].repeat(3, axis=2)


def read_number(frame: np.ndarray) -> int:
    """The number that `numbered_frame` wrote, -1 if the picture is no such frame."""
    rows, cols = ((np.arange(4) * 2 + 1) * side // 8 for side in frame.shape[:2])
    bits = (frame[rows][:, cols, 0] > 130).reshape(-1).astype(int)
    number, count = (int(sum(b << i for i, b in enumerate(part))) for part in (bits[:12], bits[12:]))
    return number if count == bits[:12].sum() else -1


def write_clip(
    path: Path,
    frames: int = 30,
    fps: int | Fraction = 10,
    begin: float = 0.0,
    times: Sequence[float] | None = None,
    gop: int = 12,
    size: tuple[int, int] = (64, 64),
    tint: tuple[float, float, float] = (1, 1, 1),
    pixels: str = "yuv420p",
    sound: float = 0.0,
    ticks: int = 1000,
    codec: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """An H.264 clip of numbered frames of `size` (width, height).

    `times` (in frames) makes the frame rate variable, `tint` colours it, `sound` adds seconds of silence, `ticks` is the
    number of stamps per frame (1 for AVI files).
    """
    import av

    with av.open(str(path), "w", options=options) as container:
        settings = {"g": str(gop), "crf": "18", "preset": "ultrafast"} | (codec or {})
        stream = container.add_stream("libx264", rate=fps, options=settings)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = stream.time_base = 1 / Fraction(fps) / ticks
        voice = container.add_stream("aac", rate=16000) if sound else None
        for number in range(frames):
            picture = numbered_frame(number, (size[1], size[0]))
            if tint != (1, 1, 1):
                picture = (picture * np.array(tint)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round((number if times is None else times[number]) * ticks + begin * fps * ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None:
            _silence(container, voice, sound)
    return path


def _silence(container, stream, seconds: float) -> None:
    import av

    samples = np.zeros((1, round(16000 * seconds)), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_audio(path: Path) -> Path:
    """A file with one second of sound and no picture."""
    import av

    with av.open(str(path), "w") as container:
        _silence(container, container.add_stream("aac", rate=16000), 1)
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


def turn(path: Path, degrees: int) -> Path:
    """Write a display rotation (counter-clockwise, 90, 180 or 270) into the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    matrix = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}[degrees]
    a, b, c, d = (v << 16 for v in matrix)
    at = data.index(b"tkhd") + 44  # version 0: the matrix follows ten words after the box's name
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def promise(path: Path, frames: int) -> Path:
    """Let the headers of an AVI file promise another number of frames than it has, and drop the index that knows better."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 24, frames)
    struct.pack_into("<I", data, data.index(b"strh") + 40, frames)
    data[data.index(b"idx1") :] = b""
    path.write_bytes(data)
    return path


@dataclass(frozen=True)
class Specimen:
    """One clip of the zoo and what a reader must make of it."""

    path: Path
    starts: np.ndarray | None = None
    """Seconds at which its frames appear; None for a broken file."""
    duration: float | None = None
    size: tuple[int, int] = (64, 64)
    """Width and height of the pictures that come out, turned upright."""
    first: int = 0
    """Number of its first frame."""
    cause: str | None = None
    """Why a broken file cannot be read."""


def good_zoo(folder: Path) -> dict[str, Specimen]:
    """Name -> clip that every backend must show."""
    even = np.arange(30) / 10
    steps = np.cumsum([1 + i % 3 for i in range(20)])
    slow, ntsc = np.arange(60) * 60.0, Fraction(30000, 1001)

    def one(name: str, starts=even, duration: float | None = 3.0, size=(64, 64), **options) -> Specimen:
        return Specimen(write_clip(folder / name, frames=len(starts), size=size, **options), starts, duration, size)

    def cut(name: str, first: int = 5, **options) -> Specimen:
        """What comes before the start is still in the file, since the pictures after it need it."""
        path = write_clip(folder / name, begin=-first / 10, **options)
        return Specimen(path, np.arange(30 - first) / 10, (30 - first) / 10, first=first)

    def turned(degrees: int, size=(96, 64)) -> Specimen:
        path = turn(write_turned(folder / f"turned{degrees}.mp4", degrees, size), degrees)
        return Specimen(path, np.arange(10) / 10, 1.0, size)

    return {
        "plain": one("plain.mp4"),
        "offset": one("offset.mp4", begin=0.5),
        "offset_transport": one("offset.ts", begin=2.0),
        "matroska": one("plain.mkv", duration=None),
        "variable_rate": one("variable.mp4", (steps - steps[0]) / 10, None, times=steps),
        "ntsc_rate": one("ntsc.mp4", np.arange(40) / float(ntsc), 40 / float(ntsc), fps=ntsc),
        "many_key_frames": one("gops.mp4", np.arange(90) / 30, fps=30, gop=7),
        "one_key_frame": one("onekey.mp4", gop=1000),
        "b_frames": one("b.mp4", gop=12, codec={"preset": "medium", "bf": "3"}),
        "open_gops": one("open.mkv", duration=None, gop=8, codec={"preset": "medium", "bf": "3", "x264-params": "open-gop=1"}),
        "cut_start": cut("start.mp4"),
        "cut_start_b_frames": cut("start_b.mp4", codec={"preset": "medium", "bf": "3"}),
        "one_frame": one("one.mp4", np.zeros(1), 0.1),
        "turned90": turned(90),
        "turned180": turned(180),
        "turned270": turned(270),
        "longer_sound": one("sound.mp4", sound=9),
        "odd_size": one("odd.mp4", size=(97, 55), pixels="yuv444p"),
        "narrow": one("narrow.mp4", size=(18, 130)),
        "ten_bit": one("ten.mp4", pixels="yuv420p10le"),
        "an_hour": one("hour.mp4", slow, 3600.0, fps=Fraction(1, 60)),
        "five_k": one("5k.mp4", np.arange(2) / 10, 0.2, size=(5120, 2880)),
        "avi": one("plain.avi", ticks=1),
        "avi_b_frames": one("b.avi", ticks=1, codec={"preset": "medium", "bf": "3"}),
        "no_stamps": one("stream.h264", np.arange(30) / 25, 30 / 25),
    }


def write_turned(path: Path, degrees: int, size: tuple[int, int]) -> Path:
    """Ten frames that show their number upright (in `size`, width and height) only when turned counter-clockwise by `degrees`."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height = size if degrees == 180 else size[::-1]
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            stored = np.ascontiguousarray(np.rot90(numbered_frame(number, size[::-1]), -degrees // 90))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    return path


def broken_zoo(folder: Path) -> dict[str, Specimen]:
    """Name -> file that no backend can show, and its cause."""
    good = write_clip(folder / "good.mp4", frames=60).read_bytes()
    front = write_clip(folder / "front.mp4", frames=60, movflags="faststart").read_bytes()

    def one(name: str, cause: str, content: bytes | None = None) -> Specimen:
        if content is not None:
            (folder / name).write_bytes(content)
        return Specimen(folder / name, cause=cause)

    write_header_only(folder / "zero.avi")
    write_audio(folder / "audio.mp4")
    promise(write_clip(folder / "promise.avi", ticks=1), 3000)
    return {
        "missing": one("nowhere.mp4", "missing"),
        "empty": one("empty.mp4", "empty", b""),
        "text": one("text.mp4", "corrupt", b"this is no video\n" * 100),
        "cut_without_index": one("cut.mp4", "corrupt", good[: len(good) // 2]),
        "cut_with_index": one("cut_front.mp4", "truncated", front[: len(front) // 2]),
        "over_reported": one("promise.avi", "truncated"),
        "zero_frames": one("zero.avi", "no_frames"),
        "audio_only": one("audio.mp4", "no_video"),
    }
