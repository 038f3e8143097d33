"""A video as tokens: per frame a time stamp, markers and one `<im_patch>` per cell, then the subtitles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from olmo.batch import MultimodalType, VisualSegment
from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.example import VisionTokens
from olmo.preprocessing.frame_sampling import DEFAULT_CANDIDATE_FPS, FewerFrames, FrameSampler, TimeSampler
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.pooling import NO_PATCH, frame_windows, shifted
from olmo.preprocessing.slow_fast import FastToken, SlowFastConfig, choose_period, periodic
from olmo.tokenizer import Tokenizer

Subtitle = str | Mapping[tuple[float, float], str] | Sequence[tuple[float, float, str]] | None

_BACKENDS = {
    "auto": "auto",
    "torchcodec": "torchcodec",
    "torchcodec_exact": "torchcodec",
    "torchcodec_approx": "torchcodec",
    "pyav": "pyav",
    "av": "pyav",
    "decord": "decord",
    "decord_with_av_fallback": "auto",
}
_TIME_MODES = ("per-frame-compact", "per-frame", "numbered-frames", "none")


@dataclass
class VideoFrames:
    """Decoded frames of one (clipped) video."""

    frames: np.ndarray
    """[T, H, W, 3] uint8."""
    timestamps: np.ndarray
    """[T] seconds, relative to the start of the clip."""
    target_fps: float | None = None
    """The rate that the sampler aimed at, when its mode has one."""
    subtitle: Subtitle = None
    """Spoken text: a string, or (start, end) seconds -> text."""
    size_wh: tuple[int, int] | None = None
    """Width and height of the original frames; taken from `frames` when not given."""
    sampled: int | None = None
    """Frames that were sampled before some were left out to see fewer of them; None where none were."""
    slow: np.ndarray | None = None
    """[T] bool: which frames are pooled as usual, when the others are pooled over larger windows; None = all are."""

    def __post_init__(self):
        if len(self.frames) != len(self.timestamps):
            raise OLMoDataError(f"a video has {len(self.frames)} frames but {len(self.timestamps)} time stamps")
        if self.size_wh is None:
            self.size_wh = (self.frames.shape[2], self.frames.shape[1])

    def __len__(self) -> int:
        return len(self.frames)

    def thinned(self, fewer: FewerFrames) -> "VideoFrames":
        """Only the frames that `fewer` leaves."""
        which = fewer.which(len(self))
        return replace(self, frames=self.frames[which], timestamps=np.asarray(self.timestamps)[which], sampled=len(self))

    def with_fake_fps(self, fps: float) -> "VideoFrames":
        """Pretend that a video sampled at 2 frames per second was sampled at `fps` (tracking data annotated at other rates)."""
        t = np.asarray(self.timestamps, dtype=np.float64)
        mean = 1 / np.diff(t[:-1]).mean() if len(t) > 2 else 0.0
        if abs(mean - 2.0) > 0.5:
            raise OLMoDataError(f"fake_timestamp_fps needs frames sampled at about 2 per second, not {mean:.2f}")
        t = t * (mean / fps)
        t[-1] = t[-2] + 1 / fps
        return replace(self, timestamps=t, target_fps=float(fps))


class LoadVideo(Protocol):
    """How the data side hands a decoder to the preprocessor."""

    def __call__(
        self,
        path: str,
        sampler: TimeSampler | FrameSampler,
        *,
        clip: tuple[float, float] | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> VideoFrames:
        """Decode the frames that `sampler` chooses; `transform` is applied to each frame right after it is decoded."""
        ...


@dataclass
class VideoPreprocessorConfig(BaseConfig):
    """How a video is sampled and written as tokens."""

    max_frames: int = 8
    """Most frames taken from one video."""
    frame_sample_mode: str = "fps"
    """Rule that chooses the frames; see `frame_sampling`. Fine-tuning uses uniform_last_frame."""
    candidate_sampling_fps: list[float] = field(default_factory=lambda: list(DEFAULT_CANDIDATE_FPS))
    """Rates tried by frame_sample_mode fps."""
    cache_videos: bool = True
    """Published key; videos are always local files here, so only true is accepted."""
    loading_method: str = "auto"
    """Decoder: auto (torchcodec, PyAV, decord: the first that is installed), torchcodec, pyav, decord, or a published name of these."""
    max_fps: list[float] | None = None
    """Sampling rate; a video too long for max_frames at this rate is sampled uniformly. Training draws one of several."""
    time_sampling: bool = False
    """Choose times (true) rather than frame indices (false)."""
    time_mode: str = "per-frame-compact"
    """Text before each frame: per-frame-compact "1.5", per-frame "time 1.50", numbered-frames "2:", none."""
    subtitle_mode: str = "frame_1"
    """frame_W (lines within W seconds of a frame), all, truncate_N (first N tokens), ignore."""
    pooling_w: int = 3
    """Patches per cell, horizontally; must equal pooling_h."""
    pooling_h: int = 3
    """Patches per cell, vertically."""
    use_frame_special_tokens: bool = True
    """Mark frames with <frame_start>/<frame_end> instead of <im_start>/<im_end>."""
    per_frame_special_token: bool = True
    """A marker pair around every frame, as released checkpoints expect; false = one pair around all frames (the published code default)."""
    max_subtitle_tokens: int | None = None
    """Most tokens of the subtitle block (null = as many as fit beside the question)."""
    slow_fast: SlowFastConfig = field(default_factory=SlowFastConfig)
    """Fewer visual tokens for most frames of a long video, when questions are asked."""

    def check(self) -> None:
        """Refuse values that nothing implements."""
        if self.pooling_w != self.pooling_h:
            raise OLMoConfigurationError(f"video.pooling_w {self.pooling_w} and video.pooling_h {self.pooling_h} must be equal")
        if self.max_frames < 1 or self.pooling_w < 1:
            raise OLMoConfigurationError("video.max_frames and video.pooling_w must be at least 1")
        if not self.cache_videos:
            raise OLMoConfigurationError("video.cache_videos false is not supported: videos are read from local files")
        if self.time_mode not in _TIME_MODES:
            raise OLMoConfigurationError(f"unknown video.time_mode '{self.time_mode}'; known: {', '.join(_TIME_MODES)}")
        self.slow_fast.check(self.max_frames, self.pooling_w)
        _ = self.reader_backend, self.subtitle_rule

    @property
    def reader_backend(self) -> str:
        """`loading_method` as a backend name: auto, torchcodec, pyav or decord."""
        if self.loading_method not in _BACKENDS:
            raise OLMoConfigurationError(f"unknown video.loading_method '{self.loading_method}'; known: {', '.join(_BACKENDS)}")
        return _BACKENDS[self.loading_method]

    @property
    def subtitle_rule(self) -> tuple[str, float]:
        """`subtitle_mode` split into its name and number."""
        name, _, number = self.subtitle_mode.partition("_")
        if self.subtitle_mode in ("all", "ignore"):
            return self.subtitle_mode, 0
        try:
            if name == "frame":
                return name, float(number)
            if name == "truncate":
                if self.max_subtitle_tokens is not None:
                    raise OLMoConfigurationError("video.subtitle_mode truncate_N and video.max_subtitle_tokens exclude each other")
                return name, int(number)
        except ValueError:
            pass
        raise OLMoConfigurationError(f"unknown video.subtitle_mode '{self.subtitle_mode}'; known: frame_W, all, truncate_N, ignore")

    def build_sampler(self, is_training: bool, rng: np.random.Generator | None) -> TimeSampler | FrameSampler:
        """The sampler of one example."""
        common = {
            "max_frames": self.max_frames,
            "frame_sample_mode": self.frame_sample_mode,
            "candidate_sampling_fps": list(self.candidate_sampling_fps),
            "is_training": is_training,
            "rng": rng,
        }
        max_fps = None if self.max_fps is None else list(self.max_fps)
        if self.time_sampling:
            return TimeSampler(**common, max_fps=max_fps)
        return FrameSampler(**common, min_fps=max_fps[0] if max_fps else None)


class VideoPreprocessor:
    """Frames -> tokens, patches and pooling windows."""

    def __init__(
        self,
        config: VideoPreprocessorConfig,
        pixels: PixelConfig,
        tokenizer: Tokenizer,
        fewer: FewerFrames | None = None,
        full_cells: int | None = None,
    ):
        """`fewer`: leaves out sampled frames. `full_cells`: cells of a frame of the model's full resolution (default: these are it)."""
        config.check()
        self.config, self.pixels, self.tokenizer, self.fewer = config, pixels, tokenizer, fewer
        window = frame_windows(pixels.grid, config.pooling_h, config.pooling_w)
        self.frame_pooling = window.reshape(-1, window.shape[-1])  # [cells, G]
        self.slow_fast = None if config.slow_fast.mode is None else config.slow_fast
        self.fast_pooling = None
        if self.slow_fast is not None:
            large = frame_windows(pixels.grid, self.slow_fast.fast_window, self.slow_fast.fast_window)
            self.fast_pooling = large.reshape(-1, large.shape[-1])  # [fast cells, G']
        self.full_cells = self.cells_per_frame if full_cells is None else full_cells

    @property
    def cells_per_frame(self) -> int:
        return len(self.frame_pooling)

    @property
    def max_frames(self) -> int:
        """Most frames that the model gets of one video."""
        return self.config.max_frames if self.fewer is None else self.fewer.count(self.config.max_frames)

    @property
    def placeholders(self) -> tuple[int, ...]:
        """Ids of the tokens at which cells enter."""
        low = self.slow_fast is not None and self.slow_fast.fast_token == FastToken.image_low_res
        return (self.tokenizer.image_patch_id, self.tokenizer.image_low_res_id) if low else (self.tokenizer.image_patch_id,)

    def evenly(self, num_frames: int) -> np.ndarray | None:
        """Which frames of a video of that length are slow where no score decides, see `VideoFrames.slow`."""
        return None if self.slow_fast is None else periodic(num_frames, choose_period(num_frames, self.slow_fast.limits))

    def segment(self, num_frames: int, sampled: int | None = None, slow: np.ndarray | None = None) -> VisualSegment:
        """`num_frames` frames that are left of `sampled` ones (default: all of them), see `VideoFrames.slow`."""
        full = (num_frames if sampled is None else sampled) * self.full_cells
        plain = VisualSegment(MultimodalType.VIDEO, num_frames, self.cells_per_frame, spared=full - num_frames * self.cells_per_frame)
        if slow is None or slow.all():
            return plain
        return replace(plain, fast=tuple(np.flatnonzero(~slow).tolist()), fast_cells=len(self.fast_pooling))

    def __call__(self, video: VideoFrames, max_subtitle_tokens: int | None = None) -> VisionTokens:
        """`max_subtitle_tokens`: room that this example leaves for subtitles, on top of the configured limit (None = no limit)."""
        if len(video) == 0:
            raise OLMoDataError("the video has no frames")
        frame_tokens = self.frame_tokens(video.timestamps, video.slow)
        subtitle = self.subtitle_tokens(video.subtitle, video.timestamps)
        if max_subtitle_tokens is not None:
            subtitle = subtitle[: max(0, max_subtitle_tokens)]
        crops = self.pixels.resize_frames(video.frames)
        segment = self.segment(len(video), video.sampled, video.slow)
        return VisionTokens(
            blocks=[np.concatenate([frame_tokens, np.asarray(subtitle, dtype=np.int64)])],
            images=self.pixels.to_patches(crops),
            segments=(segment,),
            **self._pooling(segment),
        )

    def _pooling(self, segment: VisualSegment) -> dict[str, np.ndarray]:
        """`token_pooling` of all frames and, where some are fast, what is beside it."""
        offsets = np.arange(segment.num_frames, dtype=np.int64)[:, None, None] * self.pixels.num_patches
        pooling = shifted(self.frame_pooling, offsets)  # [T, cells, G]
        if not segment.fast:
            return {"token_pooling": pooling.reshape(-1, pooling.shape[-1])}
        windows = shifted(self.fast_pooling, offsets[list(segment.fast)])  # [fast frames, fast cells, G']
        stands_for = np.full((*windows.shape[:2], pooling.shape[2]), NO_PATCH)
        stands_for[..., 0] = windows.max(-1)
        parts = list(pooling)
        for frame, part in zip(segment.fast, stands_for, strict=True):
            parts[frame] = part
        is_fast = np.isin(np.arange(segment.num_frames), segment.fast).repeat(segment.frame_cells)
        return {
            "token_pooling": np.concatenate(parts),
            "fast_pooling": windows.reshape(-1, windows.shape[-1]),
            "fast_rows": np.flatnonzero(is_fast),
        }

    def frame_tokens(self, timestamps: Sequence[float], slow: np.ndarray | None = None) -> np.ndarray:
        """Tokens of all frames without subtitles, see `VideoFrames.slow`."""
        cfg, tok = self.config, self.tokenizer
        frame_marks = (tok.frame_start_id, tok.frame_end_id) if cfg.use_frame_special_tokens else (tok.image_start_id, tok.image_end_id)
        start, end = ([m] for m in frame_marks)
        cells = fast_cells = [tok.image_patch_id] * self.cells_per_frame
        if self.fast_pooling is not None:
            fast_cells = [self.placeholders[-1]] * len(self.fast_pooling)
        ids: list[int] = []
        for k, t in enumerate(timestamps):
            ids += self._prefix(k, float(t))
            own = cells if slow is None or slow[k] else fast_cells
            ids += start + own + end if cfg.per_frame_special_token else own
        if not cfg.per_frame_special_token:
            ids = start + ids + end
        return np.asarray(ids, dtype=np.int64)

    def _prefix(self, k: int, t: float) -> list[int]:
        mode = self.config.time_mode
        if mode == "none":
            return []
        text = {"per-frame-compact": f"{t:.1f}", "per-frame": f"time {t:.2f}", "numbered-frames": f"{k + 1}:"}[mode]
        return self.tokenizer.encode(f"{' ' if k else ''}{text} ")

    def subtitle_tokens(self, subtitle: Subtitle, timestamps: Sequence[float]) -> list[int]:
        """Tokens of the subtitle block, capped by the config; empty when there is nothing to say."""
        rule, number = self.config.subtitle_rule
        if not subtitle or rule == "ignore":
            return []
        if isinstance(subtitle, str):
            body = subtitle
        else:
            entries = [(*span, text) for span, text in subtitle.items()] if isinstance(subtitle, Mapping) else subtitle
            times = np.asarray(timestamps, dtype=np.float64)
            if rule == "frame":
                entries = [(s, e, text) for s, e, text in entries if np.any((e >= times - number) & (s <= times + number))]
            body = "".join(f"{s:.1f} - {e:.1f} {text}\n" for s, e, text in entries)
        ids = self.tokenizer.encode(f"subtitle\n{body}")
        cap = int(number) if rule == "truncate" else self.config.max_subtitle_tokens
        return ids if cap is None else ids[:cap]
