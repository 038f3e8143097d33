"""The packer's targets, on a short part of the stream that the benchmark measures."""

import pytest

from olmo.benchmark.packing import POOL, ROW_FRAMES, ROW_TOKENS, fills, imbalances, possible_fill, rows_of_stream, stream
from olmo.config_files import find_config
from olmo.data.lengths import Lengths
from olmo.data.packer import PackingConfig
from olmo.train.config import TrainConfig
from olmo.train.data import example_cost


@pytest.fixture(scope="module")
def cost():
    return example_cost(TrainConfig.load(find_config("stts_50")))


def test_the_stream_is_what_it_says():
    lengths = stream(0.5, 2000)
    frames = [e.frames for e in lengths]
    assert lengths == stream(0.5, 2000) and frames == [e.frames for e in stream(0.3, 2000)], "the same examples, whatever is pruned"
    assert frames.count(64) / 2000 == pytest.approx(0.6, abs=0.03) and min(frames) == 8 and max(f for f in frames if f < 64) == 48
    first = next(e for e in lengths if e.frames == 64)
    assert first.tokens == 64 * 83 - 64 * 81 // 2 + first.loss_tokens and 20 <= first.loss_tokens <= 400


@pytest.mark.parametrize("topk", [0.0, 0.3, 0.5, 0.7])
def test_rows_are_full_balanced_and_in_time(cost, topk):
    """Without pruning three quarters is all there can be: two videos of 64 frames never fit together. Seen to fail when a row
    takes the first examples that fit, and when rows are dealt as they come."""
    lengths, packing = stream(topk, 450), PackingConfig(buffer_size=POOL)
    rows, packer = rows_of_stream(lengths, packing)
    packed = [e for row in rows for e in row]
    filled = fills(rows)
    scarce = max(filled, key=filled.__getitem__)
    assert scarce == ("frames" if topk else "tokens")
    assert (0.99 if topk else 0.96) * possible_fill(packed, scarce) <= filled[scarce] <= possible_fill(packed, scarce) + 1e-9
    assert possible_fill(packed, scarce) > (0.99 if topk else 0.7)
    assert max(imbalances(rows, cost)) <= 1.05 and packer.longest_wait <= packing.most_rows_waited and len(packer.buffer) <= POOL <= 48


def test_what_no_packer_can_pass():
    """Three videos of more than half a row need three rows."""
    half = Lengths(ROW_TOKENS // 2 + 1, ROW_FRAMES // 4, 1)
    assert possible_fill([half] * 3, "tokens") == pytest.approx(0.5, abs=1e-3)
    assert possible_fill([half] * 3, "frames") == 0.25


def test_costs_follow_the_model(cost):
    """FLOPs of a 4B model: 2 x 3 x weights per token at least, and a frame of a pruned video costs less than one of a whole video."""
    whole = example_cost(TrainConfig.load(find_config("stts_50"), ["model.vision_backbone.vit.prune=false"]))
    assert cost.per_token == whole.per_token > 6 * 3e9 and 0 < cost.per_frame < whole.per_frame
    long, short = Lengths(8000, 0, 0), Lengths(4000, 0, 0)
    assert 2 < cost.of(long) / cost.of(short) < 4
