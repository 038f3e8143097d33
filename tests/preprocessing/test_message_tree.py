"""Message trees against a slow oracle, and the cases that the reference vectors leave out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.batch import SHARED_PREFIX
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.message_tree import MessageTreeBuilder, MessageWeight, TextPreprocessorConfig
from olmo.tokenizer import TokenizerConfig, build_tokenizer

TOK = build_tokenizer(TokenizerConfig("tiny"), 1024)
WORDS = st.sampled_from(["red", "how many", "it moves left.", "0.5", "where does the star stop?", "A. blue\nB. green"])
BRANCH = st.integers(1, 2).flatmap(lambda turns: st.lists(WORDS, min_size=2 * turns, max_size=2 * turns))


def builder(**config):
    return MessageTreeBuilder(TextPreprocessorConfig(**config), TOK)


def vision(n):
    return [np.asarray([TOK.frame_start_id, *[TOK.image_patch_id] * n, TOK.frame_end_id])]


@given(st.lists(BRANCH, min_size=2, max_size=5), st.integers(0, 4))
def test_every_branch_reads_as_if_it_were_alone(branches, cells):
    """Shared part plus branch i == the single conversation i. Seen to fail with positions counted on through the branches
    and with the end-of-sequence target left out of all branches but the last."""
    blocks = vision(cells) if cells else []
    tree = builder()(branches, blocks)
    shared = tree.subsegment_ids == SHARED_PREFIX
    assert shared[: shared.sum()].all()
    for i, branch in enumerate(branches):
        alone = builder()(branch, blocks)
        mine = tree.subsegment_ids == i
        view = shared | mine
        np.testing.assert_array_equal(tree.input_tokens[view], alone.input_tokens)
        np.testing.assert_array_equal(tree.position_ids[view], alone.position_ids)
        np.testing.assert_array_equal(tree.target_tokens[mine], alone.target_tokens[shared.sum() :])
        np.testing.assert_array_equal(tree.loss_masks[mine], alone.loss_masks[shared.sum() :])
        assert tree.target_tokens[mine][-1] == TOK.eos_token_id and tree.loss_masks[mine][-1] > 0
    assert not tree.loss_masks[shared].any()


@given(st.lists(BRANCH, min_size=2, max_size=8), st.integers(5, 80))
def test_branches_beyond_the_limit_are_dropped(branches, limit):
    """What is kept is the tree of a prefix of the branches, and every kept branch has an answer token before the limit
    (but the first, which always stays). Seen to fail with the limit compared to the text alone."""
    tree = builder()(branches, vision(3), max_tokens=limit)
    kept = int(tree.subsegment_ids[tree.subsegment_ids != SHARED_PREFIX].max()) + 1
    whole = builder()(branches, vision(3))
    np.testing.assert_array_equal(tree.input_tokens, whole.input_tokens[: len(tree.input_tokens)])
    assert kept == len(branches) or len(tree.input_tokens) + len(TOK.encode(branches[kept][0])) >= limit
    for i in range(1, kept):
        assert np.flatnonzero((tree.subsegment_ids == i) & (tree.loss_masks > 0))[0] < limit


def test_text_only_branches_share_the_first_token():
    tree = builder()([["red", "blue"], ["how many", "two"]])
    assert tree.subsegment_ids[0] == SHARED_PREFIX and tree.subsegment_ids.dtype == np.int64
    assert tree.position_ids[tree.subsegment_ids == 1][0] == 1


def test_branches_with_empty_answers_are_left_out():
    tree = builder()([["q", ""], ["how many", "two"], ["red", "blue"]], vision(1))
    alone = builder()([["how many", "two"], ["red", "blue"]], vision(1))
    np.testing.assert_array_equal(tree.input_tokens, alone.input_tokens)
    with pytest.raises(OLMoDataError, match="all of its answers are empty"):
        builder()([["q", ""], ["r", ""]])


def test_weights():
    rule = MessageWeight(None, True, True)
    assert rule.with_overrides(None) == rule
    assert rule.with_overrides(0.5) == MessageWeight(0.5, True, True)
    assert rule.with_overrides(MessageWeight(0.1, root_length=False)) == MessageWeight(0.1, True, False)
    flat = builder(loss_token_weighting="root_subsegments_root_tokens")(
        [["q", "two words"], ["r", "x"]], weight=MessageWeight(0.2, False, False)
    )
    assert set(flat.loss_masks.tolist()) == {0.0, np.float32(0.2)}


@pytest.mark.parametrize(
    ("messages", "blocks", "weight", "reason"),
    [
        ([], 0, None, "no messages"),
        ([["a", "b"], ["c"]], 0, None, "ask one question at a time"),
        ([["a", "b"], ["c", "d"]], 0, [1.0], "2 branches but 1 weights"),
        (["a <|image|> b <|image|>", "c"], 1, None, "2 <|image|> placeholders for 1"),
        ([["a <|image|> <|image|>", "c"], ["d", "e"]], 1, None, "each may have one"),
        (["what", "<im_patch> is it"], 0, None, "special token of the visual part"),
    ],
)
def test_bad_messages_are_refused(messages, blocks, weight, reason):
    with pytest.raises(OLMoDataError, match=reason.replace("|", r"\|")):
        builder()(messages, vision(1) * blocks, weight)


def test_unknown_weighting_is_refused():
    with pytest.raises(OLMoConfigurationError, match="root_subsegments_root_tokens"):
        builder(loss_token_weighting="root")
