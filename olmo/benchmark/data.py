"""What happens before the model: decoding frames."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from olmo.benchmark.measure import Timing, interleave
from olmo.benchmark.results import Row, current_commit
from olmo.data.decoders import usable_decoders
from olmo.data.moving_shapes import encode
from olmo.data.video_reader import VideoReaderConfig
from olmo.preprocessing.images import PixelConfig

RESOLUTIONS = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920)}
FPS, SECONDS = 25, 10


def decode_cases(profile: str) -> Iterator[tuple[str, str, int]]:
    """(backend, resolution, frames) of every row."""
    resolutions = ["360p"] if profile == "smoke" else list(RESOLUTIONS)
    for backend in usable_decoders():
        for resolution in resolutions:
            for frames in (8,) if profile == "smoke" else (8, 64):
                yield backend, resolution, frames


def decode_key(backend: str, resolution: str, frames: int) -> str:
    return f"decode/{backend}/{resolution}/{frames}f"


def clip(folder: Path, resolution: str) -> Path:
    """Ten seconds of H.264 in which everything moves, made once."""
    path = folder / f"{resolution}.mp4"
    if not path.exists():
        height, width = RESOLUTIONS[resolution]
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = noise.repeat(8, 0).repeat(8, 1)
        encode(np.stack([np.roll(picture, 3 * t, axis=1) for t in range(FPS * SECONDS)]), FPS, path)
    return path


def decode(backend: str, resolution: str, frames: int, rounds: int, folder: Path) -> Row:
    """Uniform frames of a clip, each resized to the ViT's input as it comes: as a training reads them, which is in a child
    process, and beside it in this process, for what the child costs and for the time of one core."""
    path = str(clip(folder, resolution))
    isolated, here = (VideoReaderConfig(backend=backend, isolate=isolate).build() for isolate in (True, False))
    seconds = np.linspace(0, SECONDS - 0.1, frames)
    shrink = PixelConfig().resize_frame
    cpu: list[float] = []

    def read_here() -> None:
        start = time.process_time()
        here.frames_at(path, seconds, shrink)
        cpu.append(time.process_time() - start)

    arms = {"isolated": lambda: isolated.frames_at(path, seconds, shrink), "here": read_here}
    timings = interleave(arms, rounds, 1, torch.device("cpu"))
    timing: Timing = timings["isolated"]
    ratios = np.divide(timing.seconds, timings["here"].seconds)
    return Row(
        key=decode_key(backend, resolution, frames),
        part="decode",
        method=backend,
        packing="",
        topk=0.0,
        frames=frames,
        direction="forward",
        seconds_median=timing.median,
        seconds_iqr=timing.iqr,
        peak_bytes=timing.peak_bytes,
        baseline="",
        rounds=rounds,
        commit=current_commit(),
        details={
            "resolution": resolution,
            "clip": f"{SECONDS} s, {FPS} frames/s, H.264",
            "frames_per_second": frames / timing.median,
            "frames_per_core_second": frames / median(cpu[1:] or cpu),
            "isolation": float(np.median(ratios)),
            "difference": difference(isolated.frames_at(path, seconds, shrink), path, seconds),
        },
    )


def difference(frames: np.ndarray, path: str, seconds: np.ndarray) -> float:
    """Mean distance of the pixels (0..255) from what PyAV shows at the same times."""
    reference = VideoReaderConfig(backend="pyav", isolate=False).build().frames_at(path, seconds, PixelConfig().resize_frame)
    return float(np.abs(frames.astype(np.int16) - reference).mean())
