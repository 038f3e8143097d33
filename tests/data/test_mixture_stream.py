"""The stream of examples: a function of the place, with exact rates and whole epochs."""

import pickle
from collections import Counter

import numpy as np
import pytest

from olmo.data.mixture_stream import BLOCK, MixtureStream, Source


def stream(*sizes_and_rates, seed=1, shuffle=True):
    return MixtureStream([Source(f"set{i}", size, rate) for i, (size, rate) in enumerate(sizes_and_rates)], seed, shuffle)


def test_one_data_set_runs_through_whole_epochs():
    draws = [stream((10, 1.0)).draw(n) for n in range(40)]
    for epoch in range(4):
        part = draws[10 * epoch : 10 * epoch + 10]
        assert sorted(d.index for d in part) == list(range(10)) and {d.epoch for d in part} == {epoch}
    assert [d.index for d in draws[:10]] != [d.index for d in draws[10:20]]


def test_mixture_keeps_rates_everywhere_and_epochs_whole():
    """Any two block boundaries enclose each rate's share to within one; every data set runs through its epochs in order."""
    rates = (0.8999, 0.1, 0.0001)
    mixture = stream((700, rates[0]), (30, rates[1]), (3, rates[2]))
    seen: dict[int, list] = {0: [], 1: [], 2: []}
    for n in range(30 * BLOCK):
        draw = mixture.draw(n)
        seen[draw.dataset].append((draw.epoch, draw.index))
    for dataset, size in enumerate((700, 30, 3)):
        drawn = seen[dataset]
        assert abs(len(drawn) - rates[dataset] * 30 * BLOCK) <= 3
        for epoch in range(len(drawn) // size):
            assert sorted(drawn[epoch * size : (epoch + 1) * size]) == [(epoch, i) for i in range(size)]
    window = Counter(mixture.draw(n).dataset for n in range(10 * BLOCK, 12 * BLOCK))
    assert abs(window[1] - 0.1 * 2 * BLOCK) <= 4


@pytest.mark.parametrize("place", [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 17, 10**7 + 3])
def test_any_place_is_found_at_once(place):
    """A fresh stream asked for one place answers as one that walked there. Seen to fail when a block starts at b * BLOCK."""
    parts = ((1000, 0.31), (17, 0.55), (5, 0.14))
    walked = stream(*parts)
    for n in range(max(0, place - 3000), place):
        walked.draw(n)
    assert stream(*parts).draw(place) == walked.draw(place)


def test_places_map_to_distinct_draws_across_blocks():
    """No example is drawn twice within an epoch, nor lost, where blocks of uneven length meet."""
    parts = ((100000, 0.37), (100000, 0.63))
    draws = {(d.dataset, d.epoch, d.index) for d in map(stream(*parts).draw, range(4 * BLOCK))}
    assert len(draws) == 4 * BLOCK


def test_seeds_and_names_change_the_order():
    order = [stream((50, 1.0), seed=1).draw(n).index for n in range(50)]
    assert order != [stream((50, 1.0), seed=2).draw(n).index for n in range(50)]
    assert order == [stream((50, 1.0), seed=1).draw(n).index for n in range(50)]
    two = stream((50, 0.5), (50, 0.5))
    first = {d: [x.index for x in map(two.draw, range(200)) if x.dataset == d][:50] for d in (0, 1)}
    assert first[0] != first[1]


def test_unshuffled_and_substitutes():
    plain = stream((7, 1.0), shuffle=False)
    assert [plain.draw(n).index for n in range(9)] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert [plain.draw(5, skip=s).index for s in range(4)] == [5, 6, 0, 1]
    shuffled = stream((7, 1.0))
    order = [shuffled.draw(n).index for n in range(7)]
    assert shuffled.draw(2, skip=1).index == order[3]


def test_a_stream_goes_to_another_process():
    """Workers that are spawned, not forked, get it pickled."""
    mixture = stream((50, 0.7), (30, 0.3))
    before = [mixture.draw(n) for n in range(20)]
    again = pickle.loads(pickle.dumps(mixture))
    assert [again.draw(n) for n in range(20)] == before


def test_neighbouring_draws_share_blocks_and_orders(monkeypatch):
    """Each is made once for 2,000 draws from 34 data sets. Seen to fail with a cache of 30 orders."""
    made = Counter()
    for name in ("_make_block", "_make_order"):
        plain = getattr(MixtureStream, name)
        monkeypatch.setattr(MixtureStream, name, lambda self, *key, n=name, f=plain: made.update([(n, *key)]) or f(self, *key))
    mixture = stream(*((int(s), 1.0) for s in np.linspace(1000, 20000, 34)))
    for n in range(10**6, 10**6 + 2000):
        mixture.draw(n)
    assert set(made.values()) == {1} and Counter(name for name, *_ in made)["_make_block"] <= 3
