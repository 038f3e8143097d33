"""The tokens of an example as boxes: text one by one with the loss weight it is learned with, pictures one box per frame."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from olmo.batch import SHARED_PREFIX, MultimodalType
from olmo.preprocessing.example import ProcessedExample
from olmo.tokenizer import IMAGE_TOKENS, Tokenizer

MARKUP = re.compile(r"((?:\s*<\|\w+\|>(?:(?:system|user|assistant)\s)?)+\s*)")
"""Tokens of a chat format with the names of who speaks: read by the model, but no words."""


@dataclass(frozen=True)
class Part:
    """A run of tokens that stand behind one another: what all branches share, or one branch."""

    name: str
    start: int
    stop: int
    branch: int | None = None
    """Number of the branch; None for the shared part."""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Box:
    """One token, or the visual tokens of one frame."""

    text: str
    kind: Literal["text", "special", "vision", "target"]
    """`target`: a last token that is learned but stands in no input."""
    weight: float
    """Loss weight with which this token is learned."""
    about: str
    """Its numbers in words."""
    tokens: int = 1
    """Tokens of the input that the box stands for."""


@dataclass(frozen=True)
class Stretch:
    """Neighbouring text tokens of a branch that are all learned, or all only read."""

    learned: bool
    text: str
    tokens: int
    weight: float
    """Greatest loss weight among them."""

    @property
    def pieces(self) -> list[tuple[bool, str]]:
        """(is it markup, text) in turns; markup without its line breaks."""
        found = [(i % 2 == 1, text) for i, text in enumerate(MARKUP.split(self.text + "\n"))]
        return [(markup, " ".join(text.split()) if markup else text.strip()) for markup, text in found if text.strip()]


def split_parts(example: ProcessedExample, vision_ids: frozenset[int]) -> list[Part]:
    """Shared part and branches in order; a single conversation branches off behind its last visual token."""
    n = example.num_tokens
    if example.subsegment_ids is None:
        visual = np.flatnonzero(np.isin(example.input_tokens, list(vision_ids)))
        start = min(int(visual[-1]) + 1, n - 1) if len(visual) else 0
        shared = [Part("shared", 0, start)] if start else []
        return [*shared, Part("branch 0", start, n, 0)]
    edges = [0, *(np.flatnonzero(np.diff(example.subsegment_ids)) + 1).tolist(), n]
    parts = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        branch = int(example.subsegment_ids[start])
        shared = branch == SHARED_PREFIX
        parts.append(Part("shared" if shared else f"branch {branch}", start, stop, None if shared else branch))
    return parts


class TokenView:
    """Reads boxes and text off one example."""

    def __init__(self, example: ProcessedExample, tokenizer: Tokenizer, keep: np.ndarray | None = None) -> None:
        """`keep` [T, C] bool: the cells that the model keeps, when that is known."""
        self.example, self.tokenizer = example, tokenizer
        self.vision_ids = tokenizer.image_token_ids()
        self.starts = {getattr(tokenizer, f"{name}_id") for name in IMAGE_TOKENS if name.endswith("start")}
        self.parts = split_parts(example, self.vision_ids)
        self.is_patch = example.input_tokens == tokenizer.image_patch_id
        self.frame = self._frames()
        self.kept = None
        if keep is not None:
            self.kept = np.zeros(example.num_tokens, dtype=bool)
            self.kept[self.is_patch] = keep.ravel()

    def boxes(self, part: Part) -> Iterator[Box]:
        """Its boxes in order; their `tokens` add up to those of the part (a target counts none)."""
        ids, i = self.example.input_tokens, part.start
        while i < part.stop:
            if int(ids[i]) in self.vision_ids:
                stop = self._end_of_picture(i, part.stop)
                yield self._picture(i, stop)
                i = stop
            else:
                yield self._token(i, part)
                i += 1
        last = part.stop - 1
        if part.stop > part.start and (weight := float(self.example.loss_masks[last])) > 0:
            token = int(self.example.target_tokens[last])
            about = f"learned behind token {last}, in no input · id {token} · loss weight {weight:.4g}"
            yield Box(self.label(token), "target", weight, about, tokens=0)

    def stretches(self, part: Part) -> list[Stretch]:
        """The text of a branch, learned and only read parts in turns; the token that is learned last included."""
        ids = np.append(self.example.input_tokens[part.start : part.stop], self.example.target_tokens[part.stop - 1])
        weights = np.append(0.0, self.example.loss_masks[part.start : part.stop])  # of every token as a target
        if weights[-1] <= 0:
            ids, weights = ids[:-1], weights[:-1]
        edges = [0, *(np.flatnonzero(np.diff(weights > 0)) + 1).tolist(), len(ids)]
        found = []
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            text = self.tokenizer.decode(ids[start:stop], truncate_at_eos=False)
            found.append(Stretch(bool(weights[start] > 0), text, stop - start, float(weights[start:stop].max())))
        return found

    def label(self, token: int) -> str:
        """What a token says; its name in the vocabulary where it says nothing by itself."""
        text = self.tokenizer.decode([token], truncate_at_eos=False)
        if not text or "\ufffd" in text:
            return self.tokenizer.core.id_to_token(token)
        return text.replace("\n", "↵").replace("\t", "⇥")

    def _token(self, i: int, part: Part) -> Box:
        token = int(self.example.input_tokens[i])
        weight = float(self.example.loss_masks[i - 1]) if i > part.start else 0.0
        text = self.label(token)
        special = token >= self.tokenizer.base_size or (text.startswith("<|") and text.endswith("|>"))
        about = f"token {i} · id {token} · {self._place(i)} · " + (f"loss weight {weight:.4g}" if weight > 0 else "not learned")
        return Box(text, "special" if special else "text", weight, about)

    def _place(self, i: int) -> str:
        example = self.example
        ids = "" if example.subsegment_ids is None else f" · subsegment {int(example.subsegment_ids[i])}"
        return f"position {int(example.position_ids[i])}{ids}"

    def _frames(self) -> np.ndarray:
        """[S] frame of every `<im_patch>` token of a video, -1 elsewhere (the cells of a tiled image belong to no one tile)."""
        frames = np.full(self.example.num_tokens, -1)
        video = [s for s in self.example.segments if s.kind == MultimodalType.VIDEO]
        if video:
            frames[self.is_patch] = np.repeat(np.arange(video[0].num_frames), video[0].cells_per_frame)
        return frames

    def _end_of_picture(self, start: int, limit: int) -> int:
        """Where the visual tokens from `start` on go over to text, or to the next frame or image."""
        ids, seen = self.example.input_tokens, None
        for i in range(start, limit):
            token = int(ids[i])
            if token not in self.vision_ids or (token in self.starts and seen is not None):
                return i
            if self.is_patch[i]:
                if seen is not None and self.frame[i] != seen:
                    return i
                seen = self.frame[i]
        return limit

    def _picture(self, start: int, stop: int) -> Box:
        cells = int(self.is_patch[start:stop].sum())
        frames = self.frame[start:stop]
        name = f"frame {frames.max()}" if frames.max() >= 0 else "image"
        kept = "" if self.kept is None else f"{int(self.kept[start:stop].sum())} of "
        marks = stop - start - cells
        text = f"{name}: {kept}{cells} cells" if cells else " ".join(self.label(int(t)) for t in self.example.input_tokens[start:stop])
        about = f"tokens {start} to {stop - 1} · {cells} cells and {marks} marks · from {self._place(start)} · not learned"
        return Box(text, "vision", 0.0, about, tokens=stop - start)
