"""The whole way of one example: media -> strings -> visual tokens -> one sequence."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.crops import ImagePreprocessor
from olmo.preprocessing.example import ProcessedExample, VisionTokens, dropped_cells
from olmo.preprocessing.formatter import DataFormatter
from olmo.preprocessing.images import load_image
from olmo.preprocessing.message_tree import MessageTreeBuilder
from olmo.preprocessing.slow_fast import FrameScorer, slow_frames
from olmo.preprocessing.video import LoadVideo, VideoFrames, VideoPreprocessor
from olmo.tokenizer import SPECIAL_TOKENS, Tokenizer

_MEDIA_MARKS = re.compile("|".join(re.escape(SPECIAL_TOKENS[name]) for name in ("image_prompt", "video_prompt")))
"""Where pictures go in a text."""


def describe(example: Mapping[str, Any]) -> str:
    """How error messages call an example."""
    metadata = example.get("metadata") or {}
    video, image = example.get("video"), example.get("image")
    if metadata.get("example_id") is not None:
        return f"example {metadata['example_id']}"
    for kind, source in (("video", video), ("image", image)):
        if isinstance(source, (str, Path)):
            return f"the example with {kind} {source}"
    first = (example.get("message_list") or [example])[0]
    text = first.get("question") or first.get("prompt") or next(iter(first.get("messages") or []), "")
    return f"the example '{text[:60]}'" if text else "an example"


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Prefix data errors with the example that they are about."""
    try:
        yield
    except OLMoDataError as err:
        raise OLMoDataError(f"{name}: {err}") from None


def _styles(example: Mapping[str, Any]) -> list[str]:
    messages = example.get("message_list") or example.get("multi_turn_messages") or [example]
    return [s for m in messages if (s := m.get("style"))]


class ExamplePreprocessor:
    """Callable of one raw example and its random generator; the raw example is never changed."""

    def __init__(
        self,
        *,
        formatter: DataFormatter,
        text: MessageTreeBuilder,
        video: VideoPreprocessor | None,
        image: ImagePreprocessor | None,
        tokenizer: Tokenizer,
        is_training: bool,
        for_inference: bool,
        seq_len: int | None = None,
        load_video: LoadVideo | None = None,
        topk: float = 0.0,
        prune_from_frame: int = 0,
        score_frames: FrameScorer | None = None,
    ):
        """`seq_len`: tokens after pruning that an example may have, when there is a limit. `topk`, `prune_from_frame`: what
        the model prunes (topk 0 = nothing), so that lengths after pruning are known here. `score_frames`: for
        `video.slow_fast` by scores."""
        self.formatter, self.text, self.video, self.image, self.tokenizer = formatter, text, video, image, tokenizer
        self.is_training, self.for_inference, self.seq_len = is_training, for_inference, seq_len
        self.load_video, self.topk, self.prune_from_frame, self.score_frames = load_video, topk, prune_from_frame, score_frames

    @property
    def max_frames(self) -> int:
        """Most frames or crops that one example can have."""
        counts = [1]
        if self.video is not None:
            counts.append(self.video.max_frames)
        if self.image is not None:
            cfg = self.image.config
            counts += [cfg.max_crops + 1, (cfg.max_images or 0) * (cfg.max_multi_image_crops + 1)]
        return max(counts)

    def __call__(self, example: Mapping[str, Any], rng: np.random.Generator) -> ProcessedExample:
        name = describe(example)
        with _naming(name):
            self._check_media(example)
        media = self._load(example, rng)
        example = {**example, **media}
        with _naming(name):
            return self._process(example, rng, name)

    def _check_media(self, example: Mapping[str, Any]) -> None:
        video, image = example.get("video"), example.get("image")
        if video is not None and image is not None:
            raise OLMoDataError("it has both a video and an image; one of them is supported")
        if video is None and (needy := [s for s in _styles(example) if s.startswith("video_")]):
            raise OLMoDataError(f"its style {needy[0]} asks about a video, but it has no video")
        if (video is not None and self.video is None) or (image is not None and self.image is None):
            raise OLMoConfigurationError("the model has no vision_backbone, so it takes no videos or images")

    def _load(self, example: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Decoded media under their own keys."""
        if (video := example.get("video")) is not None:
            if not isinstance(video, VideoFrames):
                return {"video": self._load_video(str(video), example, rng)}
            return {"video": video if self.video.fewer is None else video.thinned(self.video.fewer)}
        if (image := example.get("image")) is not None:
            many = isinstance(image, (list, tuple))
            return {"image": [load_image(i) for i in image] if many else load_image(image)}
        return {}

    def _load_video(self, path: str, example: Mapping[str, Any], rng: np.random.Generator) -> VideoFrames:
        if self.load_video is None:
            raise OLMoConfigurationError(f"no video reader was given, so {path} cannot be read")
        metadata = example.get("metadata") or {}
        sampler = self.video.config.build_sampler(self.is_training, rng)
        if overrides := metadata.get("sampler_overrides"):
            known = {f.name for f in fields(sampler)}
            if unknown := sorted(set(overrides) - known):
                raise OLMoDataError(
                    f"{describe(example)}: sampler_overrides has the unknown key {unknown[0]}; known: {', '.join(sorted(known))}"
                )
            sampler = replace(sampler, **overrides)
        fps, fewer = metadata.get("fake_timestamp_fps"), self.video.fewer
        if fewer is not None and fps is None:  # a rate is told from all frames: then some are left out afterwards
            sampler = replace(sampler, fewer=fewer)
        start, end = metadata.get("clip_start_time"), metadata.get("clip_end_time")
        clip = None if start is None and end is None else (float(start or 0), float("inf") if end is None else float(end))
        frames = self.load_video(path, sampler, clip=clip, transform=self.video.pixels.resize_frame)
        if fps is not None:
            frames = frames.with_fake_fps(fps)
            frames = frames if fewer is None else frames.thinned(fewer)
        return frames

    def _process(self, example: Mapping[str, Any], rng: np.random.Generator, name: str) -> ProcessedExample:
        messages, found = self.formatter(example, rng, is_training=self.is_training, for_inference=self.for_inference)
        weight = example.get("weight")
        if self.is_training and "message_list" in example and len(messages) > 1:
            order = rng.permutation(len(messages))
            messages = [messages[i] for i in order]
            if isinstance(weight, (list, tuple)):
                weight = [weight[i] for i in order]
        if len(messages) == 1 and isinstance(weight, (list, tuple)):
            weight = weight[:1]
        example = self._with_slow_frames(example, messages)
        vision = self._vision(example, messages, rng)
        dropped = 0 if vision is None else dropped_cells(vision.segments, self.topk, self.prune_from_frame)
        limit = None if self.seq_len is None else self.seq_len + dropped
        sequence = self.text(messages, vision.blocks if vision else (), weight, limit)
        pooled = len(vision.token_pooling) if vision else 0
        placeholders = (self.tokenizer.image_patch_id,) if self.video is None else self.video.placeholders
        if int(np.isin(sequence.input_tokens, placeholders).sum()) != pooled:
            reserved = " or ".join(text for text, i in self.tokenizer.special_ids.items() if i in placeholders)
            raise OLMoDataError(f"its text contains the reserved token {reserved}")
        return ProcessedExample(
            input_tokens=sequence.input_tokens,
            target_tokens=sequence.target_tokens,
            loss_masks=sequence.loss_masks,
            position_ids=sequence.position_ids,
            subsegment_ids=sequence.subsegment_ids,
            images=vision.images if vision else None,
            token_pooling=vision.token_pooling if vision else None,
            fast_pooling=vision.fast_pooling if vision else None,
            fast_rows=vision.fast_rows if vision else None,
            segments=vision.segments if vision else (),
            dropped_cells=dropped,
            name=name,
            metadata={**(example.get("metadata") or {}), **self._media_metadata(example), **(found or {})},
        )

    def _with_slow_frames(self, example: Mapping[str, Any], messages: list) -> Mapping[str, Any]:
        """The example with its video divided into slow and fast frames, where the config asks for it."""
        video = example.get("video")
        if video is None or self.video.slow_fast is None:
            return example
        own = (example.get("metadata") or {}).get("frame_sel_input")
        asked = [_MEDIA_MARKS.sub("", text).strip() for text in self.formatter.first_requests(messages)] if own is None else [own]
        slow = slow_frames(self.video.slow_fast, video.frames, video.timestamps, asked, self.score_frames)
        return {**example, "video": replace(video, slow=slow)}

    def _vision(self, example: Mapping[str, Any], messages: list, rng: np.random.Generator) -> VisionTokens | None:
        video, image = example.get("video"), example.get("image")
        if video is not None:
            if example.get("subtitle") is not None:
                video = replace(video, subtitle=example["subtitle"])
            return self.video(video, self._room_for_subtitles(video, messages))
        if image is None:
            return None
        return self.image.many(image) if isinstance(image, list) else self.image(image, rng)

    def _room_for_subtitles(self, video: VideoFrames, messages: list) -> int | None:
        """Tokens left for subtitles when the frames and the longest branch are in (None = no limit)."""
        if self.seq_len is None or not video.subtitle:
            return None
        dropped = dropped_cells([self.video.segment(len(video), slow=video.slow)], self.topk, self.prune_from_frame)
        frames = len(self.video.frame_tokens(video.timestamps, video.slow))
        return self.seq_len + dropped - frames - self.text.text_length(messages)

    @staticmethod
    def _media_metadata(example: Mapping[str, Any]) -> dict[str, Any]:
        video, image = example.get("video"), example.get("image")
        if video is not None:
            slow = {} if video.slow is None else {"slow_frames": np.flatnonzero(video.slow).tolist()}
            return {"image_size": tuple(video.size_wh), "frame_times": [float(t) for t in video.timestamps], **slow}
        if isinstance(image, list):
            return {"image_group_size": [(i.shape[1], i.shape[0]) for i in image]}
        return {} if image is None else {"image_size": (image.shape[1], image.shape[0])}
