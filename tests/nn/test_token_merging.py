"""Merging of cells against loops over frames and cells.

Seen to fail with chains followed one link only, with one halving too few, with the average of averages instead of that of all
members, and with cut cells that match whole ones.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo.batch import RowLayout, VisualSegment
from olmo.nn.pruning_methods import METHODS, select
from olmo.nn.pruning_plan import CellGrid, plan_pruning
from olmo.nn.token_merging import best_matches, final_matches, merge
from tests.nn.pruning_cases import IMAGE, MIXED, VIDEO, build, cell_table, make_batch, temporal_config

GRIDS = [((6, 6), (3, 3)), ((5, 4), (3, 3)), ((4, 7), (3, 3)), ((7, 5), (2, 3)), ((2, 3), (4, 4)), ((4, 6), (1, 2))]


def plan_of(videos: list[int], cells: CellGrid, topk: float):
    segments = [s for n in videos for s in (VisualSegment(IMAGE, 1), VisualSegment(VIDEO, n, cells.num_cells))]
    return plan_pruning((RowLayout(tuple(segments), 0, 0),), sum(s.num_frames for s in segments) + 1, cells, topk)


def slow_merge(video: torch.Tensor, table: list[list[int]], budget: int) -> tuple[list[list[bool]], dict]:
    """(keep, {(frame, cell) that stays: {patch: average}}) of one video [frames, N, D], by the words of the method."""

    def vector(f, c):
        return torch.cat([video[f, p].detach() for p in table[c] if p >= 0])

    def missing(c):
        return [p < 0 for p in table[c]]

    order, match = [], {}
    for f in range(1, len(video)):
        for c in range(len(table)):
            candidates = [
                (float(torch.cosine_similarity(vector(f, c), vector(f - 1, d), dim=0)), -d)
                for d in range(len(table))
                if missing(c) == missing(d)
            ]
            similarity, d = max(candidates)
            match[f, c] = f - 1, -d
            order.append((1 - similarity, f, c))
    gone = {(f, c) for _, f, c in sorted(order)[:budget]}
    members: dict = {(f, c): [(f, c)] for f in range(len(video)) for c in range(len(table)) if (f, c) not in gone}
    for cell in gone:
        end = cell
        while end in gone:
            end = match[end]
        members[end].append(cell)
    averages = {}
    for (f, c), cells in members.items():
        averages[f, c] = {
            p: torch.stack([video[g, table[d][i]] for g, d in cells]).mean(0) for i, p in enumerate(table[c]) if p >= 0
        }  # fmt: skip
    return [[(f, c) not in gone for c in range(len(table))] for f in range(len(video))], averages


def drifting(frames: int, cells: CellGrid, generator: torch.Generator, step: float = 0.4) -> torch.Tensor:
    """[frames, N, D] that change little by little, so that chains are long."""
    steps = torch.randn(frames, cells.num_patches, 5, generator=generator, dtype=torch.float64) * step
    steps[0] /= step
    return steps.cumsum(0)


@pytest.mark.parametrize("topk", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_equals_loops(grid, window, topk):
    """Values of the cells that stay, and gradients of all patches."""
    cells, table = CellGrid(grid, window), cell_table(grid, window)
    plan = plan_of([9, 2, 5], cells, topk)
    g = torch.Generator().manual_seed(0)
    x = torch.cat([drifting(n, cells, g) for n in plan.frame_counts]).requires_grad_()
    answer = METHODS["tome"](x.detach(), plan, temporal_config(grid).vit, True)
    keep = select(answer, plan)
    merged = merge(x, keep, answer.match, plan)
    weights = torch.randn(x.shape, generator=g, dtype=torch.float64)
    expected, total, at = torch.zeros(x.shape, dtype=torch.float64), 0.0, 0
    for video, own in zip(x.split(plan.frame_counts), plan.videos, strict=True):
        kept, averages = slow_merge(video, table, own.budget)
        assert keep[at : at + own.num_frames].tolist() == kept
        for (f, _), patches in averages.items():
            for p, value in patches.items():
                expected[at + f, p] = value.detach()
                total = total + (value * weights[at + f, p]).sum()
        at += own.num_frames
    alive = cells.spread(keep)[..., None]
    torch.testing.assert_close(merged * alive, expected)
    actual = torch.autograd.grad((merged * alive * weights).sum(), x)
    torch.testing.assert_close(actual, torch.autograd.grad(total, x))


@given(st.sampled_from(GRIDS), st.lists(st.integers(2, 18), min_size=1, max_size=3), st.floats(0.1, 0.99), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_nothing_is_lost(grid, videos, topk, seed):
    """Every cell ends in a cell of its own video that stays and came no later; averages times members are the sum of all cells."""
    cells = CellGrid(*grid)
    plan = plan_of(videos, cells, topk)
    if not plan.videos:
        return
    x = torch.cat([drifting(n, cells, torch.Generator().manual_seed(seed + n), 0.1) for n in plan.frame_counts])
    similarity, match = best_matches(x, cells)
    keep = select(METHODS["tome"](x, plan, temporal_config().vit, False), plan)
    end = final_matches(keep, match, max(plan.frame_counts))
    frame = torch.arange(len(x)).repeat_interleave(cells.num_cells)
    video = plan.on_device.video[frame]
    assert keep.flatten()[end].all() and (video[end] == video).all() and (frame[end] <= frame).all()
    assert (end[keep.flatten()] == torch.arange(len(end))[keep.flatten()]).all()
    count = torch.bincount(end, minlength=len(end))
    averages = cells.split(merge(x, keep, match, plan)).flatten(0, 1)  # [P * C, G, D]
    for v in range(len(plan.videos)):
        own = video == v
        mass = (averages * count[:, None, None])[own].sum(0)
        torch.testing.assert_close(mass, cells.split(x).flatten(0, 1)[own].sum(0), atol=1e-8, rtol=1e-8)


@given(st.sampled_from(GRIDS), st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_videos_do_not_mix(grid, mine, other, seed):
    """A video alone gives what it gives between others, forwards and backwards."""
    cells = CellGrid(*grid)
    g = torch.Generator().manual_seed(seed)
    x, before, after = (drifting(n, cells, g) for n in (mine, other, 3))
    results = []
    for frames, place in (([x], slice(0, mine)), ([before, x, after], slice(other, other + mine))):
        plan = plan_of([len(f) for f in frames], cells, 0.7)
        if len(plan.videos) != len(frames):
            return
        together = torch.cat(frames).requires_grad_()
        answer = METHODS["tome"](together.detach(), plan, temporal_config().vit, False)
        merged = merge(together, select(answer, plan), answer.match, plan)[place]
        (gradient,) = torch.autograd.grad(merged.square().sum(), together)
        assert not gradient[: place.start].any() and not gradient[place.stop :].any()
        results.append((merged.detach(), gradient[place]))
    for alone, between in zip(*results, strict=True):
        torch.testing.assert_close(alone, between, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("frames", [*range(2, 12), 17, 33, 64, 65])
def test_the_longest_chains(frames):
    """Nothing ever changes and all but one frame goes: every cell ends in the first frame."""
    cells = CellGrid((2, 2), (1, 1))
    keep = torch.zeros(frames, 4, dtype=torch.bool)
    keep[0] = True
    x = torch.eye(4, dtype=torch.float64).expand(frames, 4, 4)
    similarity, match = best_matches(x, cells)
    assert torch.equal(similarity[1:], torch.ones_like(similarity[1:]))
    assert final_matches(keep, match, frames).view(frames, 4).tolist() == [[0, 1, 2, 3]] * frames


def test_cut_cells_match_cells_cut_alike():
    """2 x 3 patches in windows of 2 x 2: the right cell lacks a column. What it shows was in the left cell one frame before."""
    cells = CellGrid((2, 3), (2, 2))
    a, b, c = torch.eye(3, dtype=torch.float64)
    nothing = torch.zeros(3, dtype=torch.float64)
    before = torch.stack([a, nothing, b, b, nothing, a])  # left (a . / b .), right (b / a)
    after = torch.stack([b, nothing, a, a + c, nothing, b + c])  # left (b . / a + c .), right (a / b + c)
    similarity, match = best_matches(torch.stack([before, after]), cells)
    assert match[1].tolist() == [0, 1] and similarity[1].max() < 0.1


def test_cells_move():
    """Content that changes places is found where it was."""
    cells = CellGrid((2, 4), (1, 2))
    plan = plan_of([5], cells, 0.7)
    x = drifting(5, cells, torch.Generator().manual_seed(3), 0.05).view(5, 4, 2, 5)
    places = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(f)) for f in range(5)])
    x = x.gather(1, places[:, :, None, None].expand_as(x)).reshape(5, 8, 5)
    answer = METHODS["tome"](x, plan, temporal_config().vit, False)
    came_from = [[places[f - 1].tolist().index(p) for p in places[f].tolist()] for f in range(1, 5)]
    assert (answer.match[1:] - 4 * torch.arange(4)[:, None]).tolist() == came_from
    assert came_from != [[0, 1, 2, 3]] * 4
    keep = select(answer, plan)
    kept, averages = slow_merge(x, cell_table((2, 4), (1, 2)), plan.videos[0].budget)
    assert keep.tolist() == kept
    merged = merge(x, keep, answer.match, plan)
    for (f, _), patches in averages.items():
        for p, value in patches.items():
            torch.testing.assert_close(merged[f, p], value)


def test_join_undoes_split():
    for grid, window in GRIDS:
        cells = CellGrid(grid, window)
        x = torch.randn(3, cells.num_patches, 2)
        assert torch.equal(cells.join(cells.split(x)), x)


@pytest.mark.parametrize("packing", ["varlen", "first_fit"])
@pytest.mark.parametrize(("grid", "window"), [((6, 6), (3, 3)), ((7, 5), (2, 3))])
def test_in_the_vit(grid, window, packing):
    """Blocks after the merge see every frame's merged cells and nothing else; images and one-frame videos are as without pruning,
    padding frames are left out. Seen to fail with the merge one block late, and with the dropped cells still attended."""
    config = temporal_config(grid, window, prune_method="tome", topk=0.6, prune_at=2, packing=packing, refill_lone_frames=False)
    backbone = build(config).eval()
    vit, table, layers = backbone.image_vit, cell_table(grid, window), [4, 2]
    images, _, layout = make_batch(MIXED, config, 8)
    pixels = images.flatten(0, 1).double() / 127.5 - 1
    plan = plan_pruning(layout, 8, config.vit.cells, 0.6)
    with torch.no_grad():
        seen = vit(pixels, layers, plan)
        x = vit.run(vit.embed(pixels), range(3), {}).clone()
        alive = torch.tensor(plan.real)[:, None].repeat(1, config.vit.num_patches)
        for video in plan.videos:
            frames = slice(video.start, video.start + video.num_frames)
            keep, averages = slow_merge(x[frames], table, video.budget)
            merged = x[frames].clone()
            for (f, _), patches in averages.items():
                for p, value in patches.items():
                    merged[f, p] = value
            x[frames] = merged
            for f, row in enumerate(keep):
                for cell, stays in zip(table, row, strict=True):
                    alive[video.start + f, [p for p in cell if p >= 0]] = stays
        assert torch.equal(seen.keep, alive)
        expected = []
        for frame, mine in zip(x, alive, strict=True):
            if mine.any():
                hidden: dict = {}
                last = vit.run(frame[mine][None], range(3, 5), hidden)
                expected.append(torch.cat([last[0], frame[mine]], dim=-1))
        expected = torch.cat(expected)
    torch.testing.assert_close(seen.patches[: len(expected)], expected, atol=1e-9, rtol=1e-7)


def test_a_model_learns_through_the_average():
    """Patches that were merged away still get gradients. Seen to fail with the average of detached patches."""
    backbone = build(temporal_config(prune_method="tome", topk=0.6))
    seen = []

    def note(module, args, output):
        output.retain_grad()
        seen.append(output)

    backbone.image_vit.blocks[1].register_forward_hook(note)
    out = backbone(*make_batch([[(VIDEO, 4)]], backbone.config, 4))
    out.features.square().sum().backward()
    assert (~out.keep_rows).sum() == 9 and (seen[0].grad.abs().sum(-1) > 0).all()
