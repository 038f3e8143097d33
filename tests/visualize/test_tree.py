"""Boxes, parts and trees of single examples, against the arrays and the mask that the model gets."""

import numpy as np
import pytest
import torch

from olmo.config import read_yaml
from olmo.config_files import find_config
from olmo.models.model import build_model_config
from olmo.models.molmo2.preprocessor import build_preprocessor
from olmo.nn.attention_mask import BiDirectionalAttn, dense_mask, token_attributes
from olmo.preprocessing.video import VideoFrames
from olmo.visualize.tokens import Stretch, TokenView
from olmo.visualize.tree import ALL, EARLIER, NONE, build_tree, who_sees_whom

QA = [("Which?", "red"), ("How many shapes are there in it?", "3"), ("Where?", "top left")]


@pytest.fixture(scope="module")
def preprocess():
    return build_preprocessor(build_model_config(read_yaml(find_config("tiny"))["model"]), is_training=True)


def clip(frames: int = 3) -> VideoFrames:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 126, 126, 3), dtype=np.uint8)
    return VideoFrames(pixels, np.arange(frames) / 2)


EXAMPLE = {
    "tree": lambda: {"video": clip(), "message_list": [{"question": q, "answer": a, "style": "video_short_answer"} for q, a in QA]},
    "one question": lambda: {"video": clip(), "question": "Which?", "answer": "red", "style": "video_short_answer"},
    "image": lambda: {"image": clip().frames[0], "question": "Which?", "answer": "red", "style": "vqa2"},
    "text": lambda: {"messages": ["Hello?", "Yes.", "And now?", "No."], "style": "text_sft"},
}


def view(preprocess, kind: str, keep=None) -> TokenView:
    return TokenView(preprocess(EXAMPLE[kind](), np.random.default_rng(0)), preprocess.tokenizer, keep)


@pytest.mark.parametrize("kind", EXAMPLE)
def test_boxes_hold_every_token_once(preprocess, kind):
    """Seen to fail without the target behind the last token."""
    seen = view(preprocess, kind)
    assert sum(len(p) for p in seen.parts) == seen.example.num_tokens
    for part in seen.parts:
        boxes = list(seen.boxes(part))
        assert sum(b.tokens for b in boxes) == len(part)
        singles = [b for b in boxes if b.kind in ("text", "special")]
        ids = [i for i in seen.example.input_tokens[part.start : part.stop].tolist() if i not in seen.vision_ids]
        assert [b.text for b in singles] == [seen.label(i) for i in ids]
        weights = [b.weight for b in boxes if b.weight > 0]
        np.testing.assert_allclose(weights, [w for w in seen.example.loss_masks[part.start : part.stop] if w > 0])


@pytest.mark.parametrize("time_mode", ["none", "per-frame-compact"])
@pytest.mark.parametrize("markers", [True, False])
def test_frames_are_boxes_with_or_without_marks_and_times(time_mode, markers):
    """Seen to fail when frames with nothing between them share a box, and when a frame's first mark goes to the frame before."""
    raw = read_yaml(find_config("tiny"))["model"]
    over = [f"mm_preprocessor.video.time_mode={time_mode}", f"mm_preprocessor.video.per_frame_special_token={markers}"]
    preprocess = build_preprocessor(build_model_config(raw, over), is_training=True)
    keep = np.arange(27).reshape(3, 9) % 2 == 0
    seen = view(preprocess, "tree", keep)
    boxes = [b for p in seen.parts for b in seen.boxes(p) if b.kind == "vision"]
    with_cells = [b for b in boxes if "cells" in b.text]
    assert [b.text for b in with_cells] == ["frame 0: 5 of 9 cells", "frame 1: 4 of 9 cells", "frame 2: 5 of 9 cells"]
    assert sum(b.tokens for b in boxes) == 27 + (6 if markers else 2)
    assert not markers or [b.tokens for b in boxes] == [11, 11, 11]


def test_the_box_of_an_image_holds_its_marks(preprocess):
    seen = view(preprocess, "image")
    (box,) = [b for p in seen.parts for b in seen.boxes(p) if b.kind == "vision"]
    assert box.text == "image: 9 cells" and box.tokens == 9 + 3 + 2  # a mark behind every row, and one at either end


def test_numbers_of_a_box(preprocess):
    seen = view(preprocess, "tree")
    part = seen.parts[2]
    first, *_, last = seen.boxes(part)
    assert first.about == (
        f"token {part.start} · id {seen.example.input_tokens[part.start]} · position {seen.example.position_ids[part.start]} "
        "· subsegment 1 · not learned"
    )
    assert (last.kind, last.text, last.tokens) == ("target", "<|endoftext|>", 0) and last.weight == pytest.approx(1 / np.sqrt(3))


def test_text_in_turns_of_a_longer_conversation(preprocess):
    (branch,) = build_tree(view(preprocess, "text"), None).branches
    assert [s.learned for s in branch.stretches] == [False, True, False, True]
    assert [[text for markup, text in s.pieces if not markup] for s in branch.stretches] == [["Hello?"], ["Yes."], ["And now?"], ["No."]]
    assert branch.learned == sum(s.tokens for s in branch.stretches if s.learned) == (view(preprocess, "text").example.loss_masks > 0).sum()


def test_markup_is_told_from_words():
    pieces = Stretch(False, "<|im_start|>user\nA <b>?\n1. x<|im_end|>\n<|im_start|>assistant\n", 9, 0.0).pieces
    assert pieces == [(True, "<|im_start|>user"), (False, "A <b>?\n1. x"), (True, "<|im_end|> <|im_start|>assistant")]
    assert Stretch(True, "<|endoftext|>What now", 3, 1.0).pieces == [(True, "<|endoftext|>"), (False, "What now")]


@pytest.mark.parametrize("mode", [None, BiDirectionalAttn.image_tokens])
@pytest.mark.parametrize("kind", EXAMPLE)
def test_who_sees_whom_is_the_mask_of_the_model(preprocess, kind, mode):
    """Oracle: the dense mask over the whole example. Seen to fail with rows and columns exchanged."""
    seen = view(preprocess, kind)
    example = seen.example
    ids = torch.from_numpy(example.input_tokens)[None]
    branches = None if example.subsegment_ids is None else torch.from_numpy(example.subsegment_ids)[None]
    tokens = token_attributes(ids, branches, seen.vision_ids, [seen.tokenizer.frame_start_id])
    mask = dense_mask(tokens, tokens, mode)[0, 0]
    for q, row in zip(seen.parts, who_sees_whom(seen, mode), strict=True):
        for k, found in zip(seen.parts, row, strict=True):
            block = mask[q.start : q.stop, k.start : k.stop]
            assert found == (ALL if block.all() else EARLIER if block.any() else NONE)


def test_branches_are_drawn_in_their_order_and_lengths(preprocess):
    seen = view(preprocess, "tree")
    tree = build_tree(seen, BiDirectionalAttn.image_tokens)
    assert [b.part.branch for b in tree.branches] == [0, 1, 2] and tree.frames == 3
    assert tree.shared_after == len(tree.shared) - seen.example.dropped_cells < len(tree.shared)
    widths = [sum(w for _, _, w in tree.bars(b)) for b in tree.branches]
    lengths = [len(b.part) + 1 for b in tree.branches]  # the last target is drawn too
    np.testing.assert_allclose(np.divide(widths, max(widths)), np.divide(lengths, max(lengths)))
    tops = [tree.top(i) for i in range(3)]
    assert tops == sorted(tops) and tops[0] > 0 and tops[-1] + 15 < tree.height
