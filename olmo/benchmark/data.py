"""What happens before the model: decoding frames."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from olmo.benchmark.measure import Timing, interleave
from olmo.benchmark.results import Row, current_commit
from olmo.data.moving_shapes import encode
from olmo.data.video_reader import BACKENDS, VideoReaderConfig
from olmo.exceptions import OLMoEnvironmentError
from olmo.preprocessing.images import resize_frame

RESOLUTIONS = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920)}
FPS, SECONDS = 25, 10


def decode_cases(profile: str) -> Iterator[tuple[str, str, int]]:
    """(backend, resolution, frames) of every row."""
    resolutions = ["360p"] if profile == "smoke" else list(RESOLUTIONS)
    for backend in usable_backends():
        for resolution in resolutions:
            for frames in (8,) if profile == "smoke" else (8, 64):
                yield backend, resolution, frames


def usable_backends() -> list[str]:
    """Decoding libraries of this machine."""
    usable = []
    for backend in BACKENDS:
        try:
            VideoReaderConfig(backend=backend, isolate=False).build()
        except OLMoEnvironmentError:
            continue
        usable.append(backend)
    return usable


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
    """Uniform frames of a clip, each resized to the ViT's input as it comes; per second of the clock and of one core."""
    path = str(clip(folder, resolution))
    reader = VideoReaderConfig(backend=backend, isolate=False).build()
    seconds = np.linspace(0, SECONDS - 0.1, frames)
    cpu: list[float] = []

    def read() -> None:
        start = time.process_time()
        reader.frames_at(path, seconds, lambda frame: resize_frame(frame, (378, 378)))
        cpu.append(time.process_time() - start)

    timing: Timing = interleave({"read": read}, rounds, 1, torch.device("cpu"))["read"]
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
        },
    )
