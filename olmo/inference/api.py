"""The Python call: `load(checkpoint).ask("clip.mp4", "What happens?")`.

`ExampleReader` turns a question about a video into arrays (it can run in a worker process), `VideoQA` adds the model.
The evaluation loop uses the same two, so that what is measured is what a user gets.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from olmo.batch import Batch, MultimodalType, VisualSegment
from olmo.checkpoints import load_model, select_checkpoint
from olmo.data.load_video import VideoLoader
from olmo.data.video_reader import VideoBackend, VideoReaderConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoEnvironmentError
from olmo.host_memory import reuse_freed_memory
from olmo.inference.frame_scores import build_frame_scorer
from olmo.inference.generation import GenerationOutput, SamplingConfig, generate
from olmo.inference.show import show
from olmo.models.molmo2.preprocessor import build_collator, build_preprocessor, fast_cells, video_cells
from olmo.nn.pruning_plan import CellGrid, cell_grid
from olmo.nn.vision_backbone import VisionOutput
from olmo.preprocessing.example import ProcessedExample
from olmo.preprocessing.video import LoadVideo, VideoFrames

QUESTION_STYLE = "user_qa"
"""Free questions are put to the model as they are, without a prefix that names a data set."""


@dataclass
class Answer:
    """What the model said about one video, and what it looked at."""

    text: str
    """The answer."""
    tokens_before: int
    """Tokens of the question with its video before pruning."""
    tokens_after: int
    """Tokens that the language model saw."""
    seconds: dict[str, float]
    """Wall-clock seconds: `video` (decoding, patches), `vision`, `prefill`, `decode` and their `total`."""
    frames: np.ndarray
    """[F, H, W, 3] uint8: the frames that the model saw, in the proportions of the video."""
    timestamps: np.ndarray
    """[F] seconds of these frames."""
    grid: CellGrid
    """How the cells lie on a frame; single patches where cells of slow and fast frames differ in size."""
    keep_cells: np.ndarray | None
    """[F, C] bool, true = kept; None when the model prunes nothing."""
    scores: np.ndarray | None
    """[F, C] importance of every cell (those of the first frame were not used); None without a scorer."""
    slow: np.ndarray | None = None
    """[F] bool: which frames had small cells, when the others had large ones; None = all frames are alike."""

    def show(self, path: str | Path, *, video: str = "", question: str = "") -> None:
        """Draw what was kept into a page (.html) or a video (.mp4)."""
        show(self, path, video=video, question=question)


class RecentVideo:
    """Hands out the last decoded video again: the questions of one video follow one another."""

    def __init__(self, load: LoadVideo) -> None:
        self.load = load
        self.key: tuple | None = None
        self.video: VideoFrames | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"load": self.load, "key": None, "video": None}

    def __call__(self, path, sampler, *, clip=None, transform=None) -> VideoFrames:
        # One reader serves one preprocessor, so `transform` is always the same.
        key = (str(path), repr(replace(sampler, rng=None)), None if clip is None else tuple(clip))
        if key != self.key:
            self.video = self.load(path, sampler, clip=clip, transform=transform)
            self.key = key
        return replace(self.video)


class ExampleReader:
    """From a question about a video to model inputs, without the model."""

    def __init__(self, config) -> None:
        backend = VideoBackend(config.mm_preprocessor.video.reader_backend)
        self.videos = RecentVideo(VideoLoader(VideoReaderConfig(backend=backend)))
        score_frames = build_frame_scorer(config.mm_preprocessor.video.slow_fast)
        self.preprocess = build_preprocessor(config, for_inference=True, load_video=self.videos, score_frames=score_frames)
        self.tokenizer = self.preprocess.tokenizer
        self.collator = build_collator(self.preprocess)

    def read(self, example: dict[str, Any]) -> ProcessedExample:
        """One example; nothing about it is drawn at random."""
        return self.preprocess(example, np.random.default_rng(0))

    def collate(self, examples: Sequence[ProcessedExample]) -> Batch:
        return self.collator(examples)


class VideoQA:
    """A loaded model that answers questions about videos."""

    def __init__(self, model, *, autocast: torch.dtype | None = None) -> None:
        self.model = model
        self.config = model.config
        self.autocast = autocast
        self.reader = ExampleReader(self.config)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def grid(self) -> CellGrid:
        """How the cells of a video frame lie on it."""
        return video_cells(self.config)

    def ask(self, video: str | Path, question: str, *, max_new_tokens: int = 128, sampling: SamplingConfig | None = None) -> Answer:
        """Answer one question about one video file."""
        if not question or not question.strip():
            raise OLMoDataError("the question is empty; ask something about the video")
        if not video or not Path(video).is_file():
            raise OLMoDataError(f"there is no video file {video}" if video else "the question has no video; name a video file")
        start = time.perf_counter()
        example = self.reader.read({"video": str(video), "question": question, "style": QUESTION_STYLE})
        batch = self.reader.collate([example])
        seconds = {"video": time.perf_counter() - start}
        output = self.generate(batch, max_new_tokens, sampling)
        seconds |= output.seconds
        seconds["total"] = sum(seconds.values())
        seen = self.reader.videos.video
        (segment,), grid = example.segments, self.grid
        if segment.fast:
            keep, scores = kept_patches(output.vision, segment, grid, fast_cells(self.config))
            grid = cell_grid(grid.grid, (1, 1))
        else:
            keep, scores = kept_cells(output.vision, example)
        return Answer(
            text=self.decode(output)[0],
            tokens_before=output.tokens_before[0],
            tokens_after=output.tokens_after[0],
            seconds=seconds,
            frames=in_proportion(seen),
            timestamps=np.asarray(seen.timestamps, dtype=float),
            grid=grid,
            keep_cells=keep,
            scores=scores,
            slow=~np.isin(np.arange(segment.num_frames), segment.fast) if segment.fast else None,
        )

    def generate(self, batch: Batch, max_new_tokens: int, sampling: SamplingConfig | None = None) -> GenerationOutput:
        """Token ids for every row of a batch on the host or the device."""
        cast = torch.autocast(self.device.type, self.autocast) if self.autocast is not None else nullcontext()
        try:
            with torch.inference_mode(), cast:
                return generate(self.model, batch.to(self.device), max_new_tokens, self.reader.tokenizer.eos_token_id, sampling)
        except torch.OutOfMemoryError:
            raise OLMoEnvironmentError(
                f"the GPU has too little memory for {len(batch)} questions at a time; "
                "lower --device_batch_size, --max_new_tokens or --model.mm_preprocessor.video.max_frames"
            ) from None

    def decode(self, output: GenerationOutput) -> list[str]:
        """The answers as text."""
        return [self.reader.tokenizer.decode(ids).strip() for ids in output.token_ids]


def load(path: str | Path, *, device: torch.device | str | None = None, precision: str | None = None, **overrides: Any) -> VideoQA:
    """Load a checkpoint folder of any format (or a folder of `step<N>` folders) for asking.

    `precision` is fp32, amp_bf16 (autocast; the default on GPUs) or bf16 (weights too, half the memory).
    `overrides` are model settings with `__` for the dots: `load(path, vision_backbone__vit__topk=0.3)`.
    """
    words = [f"{key.replace('__', '.')}={'null' if value is None else value}" for key, value in overrides.items()]
    return load_with_overrides(select_checkpoint(path), words, device=device, precision=precision)


def load_with_overrides(
    checkpoint: Path, overrides: Sequence[str] = (), *, device: torch.device | str | None = None, precision: str | None = None
) -> VideoQA:
    """As `load`, of a checkpoint that has been selected, with overrides written `vision_backbone.vit.topk=0.3`."""
    device = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cpu":
        reuse_freed_memory()
    weights, autocast = PRECISIONS[precision_of(device, precision)]
    model = load_model(checkpoint, overrides=overrides, device=device, dtype=weights)
    return VideoQA(model, autocast=autocast)


PRECISIONS = {"fp32": (torch.float32, None), "amp_bf16": (torch.float32, torch.bfloat16), "bf16": (torch.bfloat16, None)}
"""name -> (dtype of the weights, of autocast); see docs/numerics.md."""


def precision_of(device: torch.device, wanted: str | None = None) -> str:
    """In what answers are computed, by default what suits the device; an evaluation writes it down, because answers depend on it."""
    if wanted is None:
        return "amp_bf16" if device.type == "cuda" else "fp32"
    if wanted not in PRECISIONS:
        raise OLMoConfigurationError(f"precision '{wanted}' is unknown; use {', '.join(PRECISIONS)}")
    return wanted


def usable_device(name: torch.device | str) -> torch.device:
    """The device of that name, if it is there."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise OLMoEnvironmentError(f"device '{name}' cannot be used here: {str(err).splitlines()[0]}") from None
    return device


def kept_cells(vision: VisionOutput, example: ProcessedExample) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(keep [F, C], scores [F, C]) of the first row, for a row that holds one video; None where the model made none."""
    (segment,) = [s for s in example.segments if s.kind == MultimodalType.VIDEO]
    shape = (segment.num_frames, segment.cells_per_frame)
    keep = None if vision.keep_rows is None else vision.keep_rows[0, : shape[0] * shape[1]].cpu().numpy().reshape(shape)
    scores = None if vision.scores is None else vision.scores[: shape[0]].float().cpu().numpy().reshape(shape)
    return keep, scores


def kept_patches(
    vision: VisionOutput, video: VisualSegment, cells: CellGrid, large: CellGrid
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """As `kept_cells`, but per patch [F, N], for a video with slow frames (of `cells`) and fast ones (of `large` cells)."""
    fast = set(video.fast)

    def spread(rows: list[torch.Tensor]) -> np.ndarray:
        patches = [(large if i in fast else cells).spread(row[None])[0] for i, row in enumerate(rows)]
        return torch.stack(patches).cpu().numpy()

    keep = scores = None
    if vision.keep_rows is not None:
        keep = spread(list(vision.keep_rows[0, : video.num_cells].split(video.frame_cells)))
    of_kind = {True: vision.fast_scores, False: vision.scores}
    if any(s is not None for s in of_kind.values()):
        ones = [torch.ones(n, device=vision.features.device) for n in video.frame_cells]
        scores = spread([one if (s := of_kind[i in fast]) is None else s[i].float() for i, one in enumerate(ones)])
    return keep, scores


def in_proportion(video: VideoFrames) -> np.ndarray:
    """Frames as the model saw them, stretched back to the proportions of the video."""
    from PIL import Image

    width, height = video.size_wh
    side = max(video.frames.shape[1:3])
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if video.frames.shape[1:3] == (size[1], size[0]):
        return video.frames
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in video.frames])
