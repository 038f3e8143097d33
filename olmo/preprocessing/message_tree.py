"""Conversations about one picture or video -> one token sequence, in which branches cannot see each other.

A single conversation is a plain sequence. Several conversations form a tree: BOS, what stands before the visual tokens
and the visual tokens themselves are shared (subsegment SHARED_PREFIX), then the branches follow one after another, each with
its own subsegment id and with positions that restart right behind the shared part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from olmo.batch import SHARED_PREFIX
from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.tokenizer import IMAGE_PLACEHOLDER, Tokenizer

Conversation = Sequence[str]


@dataclass(frozen=True)
class MessageWeight:
    """How the loss of one branch is weighted; None leaves the default of `loss_token_weighting`."""

    weight: float | None = None
    """Factor on every token of the branch."""
    root_subsegments: bool | None = None
    """Divide by the square root of the number of branches."""
    root_length: bool | None = None
    """Multiply by 2 / sqrt(number of answer tokens)."""

    def with_overrides(self, other: "Weight") -> "MessageWeight":
        """`other` on top of these defaults: a number replaces the factor only, a MessageWeight every field that it sets."""
        if other is None:
            return self
        if isinstance(other, (int, float)):
            return replace(self, weight=float(other))
        return MessageWeight(
            *(mine if theirs is None else theirs for mine, theirs in zip(_values(self), _values(other), strict=True)),
        )


Weight = float | MessageWeight | None

_WEIGHTING = {
    None: MessageWeight(None, False, False),
    "root_subsegments": MessageWeight(None, True, False),
    "root_subsegments_root_tokens": MessageWeight(None, True, True),
}


def _values(weight: MessageWeight) -> tuple:
    return weight.weight, weight.root_subsegments, weight.root_length


@dataclass
class TextPreprocessorConfig(BaseConfig):
    """How conversations become tokens."""

    max_answer_len: int | None = None
    """Most tokens of one answer (the end-of-sequence token counts, and is lost when an answer is cut)."""
    last_message_loss_only: bool = False
    """Train on the last answer of a conversation only."""
    max_text_tokens: int | None = None
    """Stop adding branches once the text of an example is this long."""
    loss_token_weighting: str | None = None
    """null (all answer tokens weigh 1), root_subsegments, or root_subsegments_root_tokens."""

    def default_weight(self) -> MessageWeight:
        if self.loss_token_weighting not in _WEIGHTING:
            known = ", ".join("null" if k is None else k for k in _WEIGHTING)
            raise OLMoConfigurationError(f"unknown loss_token_weighting '{self.loss_token_weighting}'; known: {known}")
        return _WEIGHTING[self.loss_token_weighting]


@dataclass
class TokenSequence:
    """Arrays of one example, all of length S."""

    input_tokens: np.ndarray
    target_tokens: np.ndarray
    loss_masks: np.ndarray
    position_ids: np.ndarray
    subsegment_ids: np.ndarray | None = None


@dataclass
class _Branch:
    """Tokens of one conversation with the loss weight of each token as a *target*."""

    tokens: list[int]
    loss: np.ndarray  # [n] float64

    def __len__(self) -> int:
        return len(self.tokens)


class MessageTreeBuilder:
    """Joins conversations and visual tokens."""

    def __init__(self, config: TextPreprocessorConfig, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer
        self.default_weight = config.default_weight()
        self._no_target = np.asarray(
            sorted(
                {
                    tokenizer.image_start_id,
                    tokenizer.image_end_id,
                    tokenizer.image_col_id,
                    tokenizer.image_patch_id,
                    tokenizer.image_low_res_id,
                }
            )
        )

    def __call__(
        self,
        messages: Conversation | Sequence[Conversation],
        vision: Sequence[np.ndarray] = (),
        weight: Weight | Sequence[Weight] = None,
        max_tokens: int | None = None,
    ) -> TokenSequence:
        """Build the arrays of one example.

        `messages`: one conversation (user, assistant, user, ...; an odd number of messages asks for an answer) or several.
        `vision`: token ids of each visual block, put at the `<|image|>` placeholders or right after BOS.
        `weight`: for all branches, or a list with one for each. `max_tokens`: drop branches that start beyond it.
        """
        if not messages:
            raise OLMoDataError("it has no messages")
        conversations = [messages] if isinstance(messages[0], str) else list(messages)
        weights = list(weight) if isinstance(weight, (list, tuple)) else [weight] * len(conversations)
        if len(weights) != len(conversations):
            raise OLMoDataError(f"it has {len(conversations)} branches but {len(weights)} weights")
        if len(conversations) > 1:
            return self._tree(conversations, vision, weights, max_tokens)
        return self._single(conversations[0], vision, weights[0])

    def text_length(self, messages: Conversation | Sequence[Conversation]) -> int:
        """Tokens that the text needs beside the visual part: BOS and the longest branch."""
        conversations = [messages] if isinstance(messages[0], str) else messages
        return 1 + max(sum(len(self.tokenizer.encode(m)) + i % 2 for i, m in enumerate(c)) for c in conversations)

    def _encode(self, conversation: Conversation, bos: bool, final_eos: bool) -> _Branch:
        cfg, tok = self.config, self.tokenizer
        tokens: list[int] = [tok.bos_token_id] if bos else []
        loss: list[float] = [0.0] * len(tokens)
        for i, message in enumerate(conversation):
            ids = tok.encode(message)
            last = i == len(conversation) - 1
            answer = i % 2 == 1
            if answer:
                if final_eos or not last:
                    ids.append(tok.eos_token_id)
                ids = ids[: cfg.max_answer_len]
            tokens += ids
            loss += [float(answer and (last or not cfg.last_message_loss_only))] * len(ids)
        return _Branch(tokens, np.asarray(loss, dtype=np.float64))

    def _weighted(self, branch: _Branch, weight: Weight, num_branches: int = 1) -> np.ndarray:
        rule = self.default_weight.with_overrides(weight)
        loss = branch.loss
        if rule.root_length:
            loss = loss * (2 / np.sqrt(max(loss.sum(), 1)))
        if rule.weight is not None:
            loss = loss * rule.weight
        if rule.root_subsegments:
            loss = loss / np.sqrt(num_branches)
        return loss

    def _single(self, conversation: Conversation, vision: Sequence[np.ndarray], weight: Weight) -> TokenSequence:
        inference = len(conversation) % 2 == 1
        branch = self._encode(conversation, bos=True, final_eos=True)
        if not inference and branch.loss[-1] == 0:
            raise OLMoDataError("its last message is no answer, so there is nothing to learn at its end")
        tokens, loss = self._insert(np.asarray(branch.tokens, dtype=np.int64), self._weighted(branch, weight), vision)
        if inference:
            inputs, targets, loss = tokens, np.append(tokens[1:], 0), np.zeros(len(tokens))
        else:
            inputs, targets, loss = tokens[:-1], tokens[1:], loss[1:]
            self._check_targets(targets, loss)
        return TokenSequence(inputs, targets, loss.astype(np.float32), np.arange(len(inputs)))

    def _insert(self, tokens: np.ndarray, loss: np.ndarray, vision: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Put the visual blocks at their placeholders, or all of them behind BOS."""
        places = np.flatnonzero(tokens == self.tokenizer.image_prompt_id)
        if len(places) == 0:
            spans = [(1, 1)] * len(vision)
        elif len(places) == len(vision):
            spans = [(int(p), int(p) + 1) for p in places]
        else:
            raise OLMoDataError(f"its text has {len(places)} {IMAGE_PLACEHOLDER} placeholders for {len(vision)} images or videos")
        token_parts, loss_parts, at = [], [], 0
        for (start, stop), block in zip(spans, vision, strict=True):
            token_parts += [tokens[at:start], block]
            loss_parts += [loss[at:start], np.zeros(len(block))]
            at = stop
        return np.concatenate([*token_parts, tokens[at:]]), np.concatenate([*loss_parts, loss[at:]])

    def _tree(
        self, conversations: Sequence[Conversation], vision: Sequence[np.ndarray], weights: Sequence[Weight], max_tokens: int | None
    ) -> TokenSequence:
        if any(len(c) % 2 for c in conversations):
            raise OLMoDataError("a question without an answer cannot be one of several branches; ask one question at a time")
        num_vision = sum(len(b) for b in vision)
        kept: list[tuple[_Branch, int, int, Weight]] = []  # branch, end of its prefix, start of its suffix, weight
        num_text = 0
        for conversation, weight in zip(conversations, weights, strict=True):
            branch = self._encode(conversation, bos=not kept, final_eos=False)
            if not branch.loss.any():
                continue  # nothing to learn from an empty answer
            if kept and max_tokens is not None and num_vision + num_text + int(np.argmax(branch.loss > 0)) >= max_tokens:
                break
            start, stop = self._split(branch, first=not kept)
            kept.append((branch, start, stop, weight))
            num_text += len(branch)
            if self.config.max_text_tokens is not None and num_text >= self.config.max_text_tokens:
                break
        if not kept:
            raise OLMoDataError("all of its answers are empty")

        shared = np.concatenate([*(np.asarray(b.tokens[:start], dtype=np.int64) for b, start, _, _ in kept), *vision])
        parts: dict[str, list[np.ndarray]] = {
            "input": [shared],
            "target": [],
            "loss": [np.zeros(len(shared))],
            "position": [],
            "branch": [],
        }
        parts["position"].append(np.arange(len(shared)))
        parts["branch"].append(np.full(len(shared), SHARED_PREFIX))
        for i, (branch, _, stop, weight) in enumerate(kept):
            tokens = np.asarray(branch.tokens[stop:], dtype=np.int64)
            loss = self._weighted(branch, weight, len(kept))[stop:]
            parts["input"].append(tokens)
            parts["target"].append(np.append(tokens[1:], self.tokenizer.eos_token_id))
            parts["loss"].append(np.append(loss[1:], loss[-1]))
            parts["position"].append(len(shared) + np.arange(len(tokens)))
            parts["branch"].append(np.full(len(tokens), i))
        parts["target"].insert(0, np.append(shared[1:], parts["input"][1][0]))
        arrays = {k: np.concatenate(v) for k, v in parts.items()}
        self._check_targets(arrays["target"], arrays["loss"])
        return TokenSequence(
            arrays["input"], arrays["target"], arrays["loss"].astype(np.float32), arrays["position"], arrays["branch"].astype(np.int64)
        )

    def _split(self, branch: _Branch, first: bool) -> tuple[int, int]:
        """Where the shared part of a branch ends and its own part starts (a placeholder between them is consumed)."""
        tokens = np.asarray(branch.tokens)
        places = np.flatnonzero(tokens == self.tokenizer.image_prompt_id)
        if len(places) > 1:
            raise OLMoDataError(f"a branch has {len(places)} {IMAGE_PLACEHOLDER} placeholders; with several branches each may have one")
        start = int(places[0]) if len(places) else int(first)
        stop = start + len(places)
        if stop >= len(tokens) or branch.loss[: stop + 1].any():
            raise OLMoDataError("a branch starts with an answer; a question must come first")
        return start, stop

    def _check_targets(self, targets: np.ndarray, loss: np.ndarray) -> None:
        if np.isin(targets[loss > 0], self._no_target).any():
            raise OLMoDataError("an answer contains a special token of the visual part, such as <im_patch>")
