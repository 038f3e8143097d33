"""The tree of messages as a picture: what all branches share, the branches in their lengths, and who sees whom."""

from dataclasses import dataclass

import numpy as np
import torch

from olmo.nn.attention_mask import BiDirectionalAttn, TokenAttributes, allowed, token_attributes
from olmo.tokenizer import SEGMENT_STARTS, SPECIAL_TOKENS
from olmo.visualize.tokens import Part, Stretch, TokenView

NONE, EARLIER, ALL = "none", "earlier", "all"
"""What a part sees of another: nothing, the tokens before it, or every token."""

ROW, BAR = 26, 15
"""Pixels of one branch, and of its bar."""
BRANCHES, ALONE, LENGTH = 236, 2, 190
"""Where branches begin, where one without a shared part does, and how long the longest is drawn."""
MATRIX = 170
"""Largest side of the table of who sees whom."""


@dataclass(frozen=True)
class Branch:
    """One branch as drawn."""

    part: Part
    stretches: list[Stretch]

    @property
    def learned(self) -> int:
        return sum(s.tokens for s in self.stretches if s.learned)

    @property
    def weight(self) -> float:
        return max(s.weight for s in self.stretches)


@dataclass(frozen=True)
class Tree:
    """What the template `tree.html.j2` draws."""

    shared: Part | None
    shared_after: int
    """Tokens of the shared part after pruning."""
    frames: int
    branches: list[Branch]
    sees: list[list[str]]
    """What every part (row) sees of every part (column)."""

    @property
    def parts(self) -> list[Part]:
        return [*([self.shared] if self.shared else []), *(b.part for b in self.branches)]

    @property
    def height(self) -> float:
        return max(ROW * len(self.branches), self.cell * len(self.sees) + 22, 74) + 12

    @property
    def middle(self) -> float:
        return self.height / 2

    @property
    def cell(self) -> float:
        """Side of one field of the table."""
        return min(20.0, MATRIX / len(self.sees))

    def top(self, number: int) -> float:
        """Upper edge of a branch's bar."""
        return self.middle + ROW * (number - len(self.branches) / 2) + (ROW - BAR) / 2

    def bars(self, branch: Branch) -> list[tuple[Stretch, float, float]]:
        """(stretch, x, width): branches are drawn to one scale."""
        longest = max(sum(s.tokens for s in b.stretches) for b in self.branches)
        drawn, x = [], float(BRANCHES if self.shared else ALONE)
        for stretch in branch.stretches:
            width = LENGTH * stretch.tokens / longest
            drawn.append((stretch, x, width))
            x += width
        return drawn


def build_tree(view: TokenView, mode: BiDirectionalAttn | None) -> Tree:
    """`mode`: which image tokens also see later ones, as the model's config says."""
    shared = next((p for p in view.parts if p.branch is None), None)
    branches = [Branch(p, view.stretches(p)) for p in view.parts if p.branch is not None]
    after = 0 if shared is None else len(shared) - view.example.dropped_cells
    return Tree(shared, after, view.example.num_frames, branches, who_sees_whom(view, mode))


def who_sees_whom(view: TokenView, mode: BiDirectionalAttn | None) -> list[list[str]]:
    """The rule of the attention mask, asked for the first and the last token of every part.

    A part sees all of another when its first token sees the last one, and some of it when its last token sees the first one.
    """
    example = view.example
    ids = torch.from_numpy(example.input_tokens)[None]
    branches = None if example.subsegment_ids is None else torch.from_numpy(example.subsegment_ids)[None]
    segment_starts = [view.tokenizer.special_ids[SPECIAL_TOKENS[name]] for name in SEGMENT_STARTS]
    tokens = token_attributes(ids, branches, view.vision_ids, segment_starts)
    first, last = (_at(tokens, [place(p) for p in view.parts]) for place in (lambda p: p.start, lambda p: p.stop - 1))
    whole, some = _sees(first, last, mode), _sees(last, first, mode)
    return [[ALL if w else EARLIER if s else NONE for w, s in zip(*rows, strict=True)] for rows in zip(whole, some, strict=True)]


def _at(tokens: TokenAttributes, places: list[int]) -> TokenAttributes:
    return tokens.map(lambda t: t[0, places])


def _sees(q: TokenAttributes, k: TokenAttributes, mode: BiDirectionalAttn | None) -> np.ndarray:
    """[parts, parts] bool: may the token of the row's part look at that of the column's?"""
    return allowed(q.map(lambda t: t[:, None]), k.map(lambda t: t[None]), mode).numpy()
