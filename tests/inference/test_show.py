"""Pictures of what was kept."""

from types import SimpleNamespace

import numpy as np
import pytest

from olmo.exceptions import OLMoEnvironmentError
from olmo.inference.show import check_show_path, film_strip, grey_dropped, heat_map, score_levels, score_range, show, to_pixels
from olmo.nn.pruning_plan import CellGrid
from olmo.preprocessing.pooling import pooling_index


def an_answer(frames: int = 5, size: tuple[int, int] = (40, 64), keep: bool = True) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    grid = CellGrid((9, 9), (3, 3))
    return SimpleNamespace(
        text="<b>red</b>",
        frames=rng.integers(0, 255, (frames, *size, 3), dtype=np.uint8),
        timestamps=np.arange(frames) * 0.5,
        keep_cells=rng.random((frames, grid.num_cells)) < 0.5 if keep else None,
        scores=rng.random((frames, grid.num_cells)) if keep else None,
        grid=grid,
        slow=None,
        tokens_before=100,
        tokens_after=60,
        seconds={"video": 0.1, "total": 0.2},
    )


@pytest.mark.parametrize("patches", [(9, 9), (8, 7), (10, 4)])
def test_cells_lie_where_their_patches_lie(patches):
    """Oracle: the pooling index of the preprocessor, patch by patch. Seen to fail with the padding all at one end."""
    grid = CellGrid(patches, (3, 3))
    index = pooling_index(np.arange(patches[0] * patches[1]).reshape(patches), 3, 3)
    assert index.shape[:2] == grid.shape
    spread = to_pixels(np.arange(grid.num_cells), grid, patches[0] * 5, patches[1] * 4)
    for cell, members in enumerate(index.reshape(grid.num_cells, -1)):
        for patch in members[members >= 0]:
            row, column = divmod(int(patch), patches[1])
            assert (spread[5 * row : 5 * row + 5, 4 * column : 4 * column + 4] == cell).all()


def test_kept_cells_stay_untouched_and_dropped_ones_fade():
    answer = an_answer(size=(36, 36))
    keep = np.zeros(9, dtype=bool)
    keep[4] = True
    seen = grey_dropped(answer.frames[0], keep, answer.grid)
    assert (seen[12:24, 12:24] == answer.frames[0, 12:24, 12:24]).all()
    dropped = np.delete(seen.reshape(-1, 3), np.arange(36 * 36).reshape(36, 36)[12:24, 12:24].ravel(), axis=0)
    assert dropped.min() > 180 and np.ptp(dropped.astype(int), axis=1).max() <= 3


def test_heat_map_orders_cells_by_score():
    frame = np.full((36, 36, 3), 128, dtype=np.uint8)
    picture = heat_map(frame, np.arange(9) / 8, CellGrid((9, 9), (3, 3)))
    brightness = [picture[6 + 12 * (c // 3), 6 + 12 * (c % 3)].astype(float) @ (0.2, 0.7, 0.1) for c in range(9)]
    assert (np.diff(brightness) > 0).all()


def test_levels_rank_scores_among_all_frames_but_the_first():
    """Oracle: count, cell by cell. Seen to fail with the first frame ranked too."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, (4, 9)) / 10
    levels = score_levels(scores)
    judged = scores[1:].ravel()
    for frame in range(1, 4):
        for cell in range(9):
            below, equal = (judged < scores[frame, cell]).sum(), (judged == scores[frame, cell]).sum()
            assert levels[frame, cell] == pytest.approx((below + (equal - 1) / 2) / (len(judged) - 1))
    assert (score_levels(scores + 100 * (np.arange(4) == 0)[:, None])[1:] == levels[1:]).all()


def test_a_scorer_that_tells_nothing_apart_is_named():
    scores = np.full((3, 9), 0.25)
    scores[0] = 9.0
    assert score_range(scores) == "every score is 0.25: nothing is told apart"
    scores[2, 4] = 0.5
    assert score_range(scores) == "scores from 0.25 to 0.5"


def test_film_strip_shows_at_most_so_many_frames():
    answer = an_answer(frames=30)
    strip = film_strip(answer.frames, answer.timestamps, answer.keep_cells, answer.scores, answer.grid, max_frames=16)
    assert [len(r) for r in strip["rows"]] == [8, 8] and (strip["shown"], strip["total"]) == (16, 30)
    assert strip["rows"][0][0]["time"] == "0.0 s" and strip["rows"][1][-1]["time"] == "14.5 s"
    assert strip["rows"][1][-1]["kept"] == answer.keep_cells[-1].sum()


@pytest.mark.parametrize("keep", [True, False])
def test_page_is_self_contained_and_escaped(tmp_path, keep):
    show(an_answer(keep=keep), tmp_path / "kept.html", video="a.mp4", question="What <i>now</i>?")
    page = (tmp_path / "kept.html").read_text()
    assert "&lt;b&gt;red&lt;/b&gt;" in page and "What &lt;i&gt;now" in page and "<b>red" not in page
    assert "http" not in page and 'src="data:image/jpeg;base64,' in page
    assert page.count("<img") == (5 + 5 + 4 if keep else 5)


def test_video_holds_every_frame_for_its_time(tmp_path):
    import av

    answer = an_answer(frames=5, size=(40, 64))
    show(answer, tmp_path / "kept.mp4")
    with av.open(str(tmp_path / "kept.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [round(f.time, 2) for f in frames] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    picture = frames[2].to_ndarray(format="rgb24")
    assert picture.shape[0] == 256 and picture.shape[1] > 3 * 380


def test_paths_that_cannot_be_shown(tmp_path):
    with pytest.raises(OLMoEnvironmentError, match=r"must end in .html or .mp4"):
        check_show_path(tmp_path / "kept.png")
    with pytest.raises(OLMoEnvironmentError, match="there is no folder"):
        check_show_path(tmp_path / "nowhere" / "kept.html")
    (tmp_path / "kept.html").mkdir()
    with pytest.raises(OLMoEnvironmentError, match="cannot write"):
        show(an_answer(), tmp_path / "kept.html")
