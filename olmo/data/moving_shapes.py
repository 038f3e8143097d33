"""The generated data set `moving_shapes`: real H.264 files on disk, and the questions about them.

The first use writes the videos (in parallel, under a file lock, so that of several ranks one works and the others wait);
later uses find them. Every file and the marker `complete.json` appear by renaming, so an interrupted generation goes on
where it stopped. Video number i is the same whatever the size of the set, so a larger set only adds files.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from olmo.config import BaseConfig
from olmo.data.dataset import Example
from olmo.data.moving_shapes_scene import OPTIONS, VERSION, Question, all_questions, choose_questions, draw_scene, render, scene_rng
from olmo.data.paths import data_root, file_lock
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoEnvironmentError
from olmo.processes import cores

log = logging.getLogger(__name__)

SPLITS = ("train", "test")
STYLE = "video_short_answer"


@dataclass
class MovingShapesConfig(BaseConfig):
    """Size and look of the generated videos."""

    root: str | None = None
    """Folder of the data set; null = moving_shapes below MOLMO_DATA_DIR (or below ./data)."""

    num_train: int = 6000
    """Training videos."""

    num_test: int = 400
    """Held-out videos."""

    seed: int = 0
    """Another seed gives other videos."""

    size: int = 126
    """Side of a frame in pixels (even)."""

    fps: int = 4
    """Frames per second."""

    seconds: float = 4.0
    """Length of a video."""

    questions_per_video: int = 6
    """Most questions about a held-out video, one of a type. A training video gets all there are, in one sequence."""

    question_types: list[str] = field(default_factory=lambda: [t for t in OPTIONS if t != "shape"])
    """colour, direction, count, first, middle, last, stopped and shape (which a tiny model does not learn in minutes)."""

    processes: int = 0
    """Processes that generate; 0 = one per available core, at most 16."""

    def check(self) -> None:
        """Refuse what cannot be generated."""
        unknown = [t for t in self.question_types if t not in OPTIONS]
        if unknown or not self.question_types:
            raise OLMoConfigurationError(f"moving_shapes.question_types: {unknown or 'none'}; choose from {', '.join(OPTIONS)}")
        for name in ("num_train", "num_test", "questions_per_video", "fps"):
            if getattr(self, name) < 1:
                raise OLMoConfigurationError(f"moving_shapes.{name} must be at least 1, not {getattr(self, name)}")
        if self.size < 32 or self.size % 2:
            raise OLMoConfigurationError(f"moving_shapes.size must be even and at least 32, not {self.size}")
        if self.seconds * self.fps < 8:
            raise OLMoConfigurationError(
                f"moving_shapes: {self.seconds} s at {self.fps} fps are fewer than 8 frames; the order of appearance would be lost"
            )

    def folder(self) -> Path:
        """Folder of these very videos: its name holds a hash of everything that changes a video (not how many, nor what is asked)."""
        look = {"version": VERSION} | {k: getattr(self, k) for k in ("seed", "size", "fps", "seconds")}
        digest = hashlib.sha256(json.dumps(look, sort_keys=True).encode()).hexdigest()[:10]
        root = Path(self.root) if self.root else data_root() / "moving_shapes"
        return root / f"v{VERSION}-{digest}"

    def count(self, split: str) -> int:
        return self.num_train if split == "train" else self.num_test


def check_split(name: str, split: str) -> None:
    if split not in SPLITS:
        raise OLMoDataError(f"{name} has the splits {' and '.join(SPLITS)}, not '{split}'")


class MovingShapes:
    """Videos with their questions. Training: one example per video, its questions as branches of one message tree.
    Test: one example per question, with what scoring needs in `metadata`."""

    name = "moving_shapes"

    def __init__(self, config: MovingShapesConfig | None = None, split: str = "train") -> None:
        self.config, self.split = config or MovingShapesConfig(), split
        check_split(self.name, split)
        self.folder = ensure_generated(self.config, split)
        with open(self.folder / "annotations.jsonl") as file:
            records = [json.loads(line) for line in islice(file, self.config.count(split))]
        self.videos = [r["video"] for r in records]
        self.questions = [self._choose(i, r["questions"]) for i, r in enumerate(records)]
        self.items = [(v, q) for v, asked in enumerate(self.questions) for q in range(len(asked))]

    def __len__(self) -> int:
        return len(self.videos) if self.split == "train" else len(self.items)

    def get(self, index: int, rng: np.random.Generator) -> Example:
        return self._tree(index) if self.split == "train" else self._question(*self.items[index])

    def _choose(self, number: int, questions: list[dict]) -> list[Question]:
        rng = scene_rng(self.config.seed, self.split, number, purpose=1)
        every = [Question(**q) for q in questions]
        if self.split == "train":
            every = [q for q in every if q.type in self.config.question_types]
            return [every[i] for i in rng.permutation(len(every))]
        return choose_questions(every, rng, self.config.question_types, self.config.questions_per_video)

    def _tree(self, number: int) -> Example:
        messages = [
            {"question": q.question, "answer": q.answer, "style": STYLE, "metadata": {"question_type": q.type}}
            for q in self.questions[number]
        ]
        return {"video": self._path(number), "message_list": messages, "metadata": {"example_id": f"moving_shapes/train/{number}"}}

    def _question(self, number: int, which: int) -> Example:
        asked = self.questions[number][which]
        metadata = {
            "example_id": f"moving_shapes/test/{number}/{asked.type}",
            "question_type": asked.type,
            "question": asked.question,
            "answer": asked.answer,
            "options": list(OPTIONS[asked.type]),
        }
        return {"video": self._path(number), "question": asked.question, "answer": asked.answer, "style": STYLE, "metadata": metadata}

    def _path(self, number: int) -> str:
        return str(self.folder / self.videos[number])


def is_generated(config: MovingShapesConfig, split: str) -> bool:
    """Whether at least the configured number of videos is there, so that using them generates nothing."""
    return _completed(config.folder() / split) >= config.count(split)


def ensure_generated(config: MovingShapesConfig, split: str) -> Path:
    """The folder of a split with at least the configured number of videos in it; generates what is missing."""
    config.check()
    folder = config.folder() / split
    if is_generated(config, split):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder.parent / ".lock"):
            if not is_generated(config, split):  # else another process has done it while this one waited
                _generate(config, split, folder)
    except OSError as err:
        raise OLMoEnvironmentError(
            f"the moving_shapes videos cannot be written to {folder}: {err.strerror or err}; set MOLMO_DATA_DIR to a folder with room"
        ) from None
    except BrokenExecutor:
        raise OLMoEnvironmentError(
            "a process that generates moving_shapes videos died (out of memory?); start again to go on, with fewer moving_shapes.processes"
        ) from None
    return folder


def _completed(folder: Path) -> int:
    """How many videos of the split are there for certain."""
    try:
        return int(json.loads((folder / "complete.json").read_text())["videos"])
    except (OSError, ValueError, KeyError):
        return 0


def _generate(config: MovingShapesConfig, split: str, folder: Path) -> None:
    number = config.count(split)
    for block in range(-(-number // 1000)):
        (folder / f"{block:04d}").mkdir(exist_ok=True)
    processes = min(config.processes or cores(), 16, max(1, number // 50))
    log.info("generating %d %s videos of moving_shapes in %s", number, split, folder)
    write = partial(write_video, config, split, folder)
    if processes == 1:
        records = _with_progress(map(write, range(number)), number, split)
    else:
        # `spawn`, because this process may hold threads and locks (OpenMP, CUDA) that a fork would copy.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            records = _with_progress(pool.map(write, range(number), chunksize=25), number, split)
    _replace(folder / "annotations.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    _replace(folder / "complete.json", json.dumps({"videos": number, "config": asdict(config)}, indent=1) + "\n")


def _with_progress(results: Iterator[dict], total: int, split: str) -> list[dict]:
    """Collect, with a bar and the remaining time on a terminal and a line per fifth elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    records = []
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(f"moving_shapes {split} videos", total=total)
        for record in results:
            records.append(record)
            progress.advance(task)
            if not progress.console.is_terminal and total >= 500 and len(records) % (total // 5) == 0:
                log.info("moving_shapes %s: %d of %d videos", split, len(records), total)
    return records


def write_video(config: MovingShapesConfig, split: str, folder: Path, index: int) -> dict:
    """Write video `index` unless it is there, and return its line of the annotations."""
    rng = scene_rng(config.seed, split, index)
    scene = draw_scene(rng, config.size, config.seconds)
    name = f"{index // 1000:04d}/{index:06d}.mp4"
    if not (folder / name).exists():
        encode(render(scene, config.fps), config.fps, folder / name)
    return {"video": name, "questions": [asdict(q) for q in all_questions(scene, rng)]}


def encode(frames: np.ndarray, fps: int, path: Path) -> None:
    """Write frames [F, H, W, 3] uint8 as H.264 in an MP4 file; the file appears under its name only when it is whole."""
    import av

    part = path.with_suffix(f".part{os.getpid()}")
    options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
    try:
        with av.open(str(part), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(text)
    os.replace(part, path)
