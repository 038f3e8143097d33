"""The page of a real data set, written by the command: complete, self-contained, and true to what training gets."""

import html
import re
from itertools import islice

import numpy as np
import pytest
import torch

from olmo.data.mixture_stream import Draw, MixtureStream, Source
from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig
from olmo.exceptions import OLMoCliError, OLMoEnvironmentError
from olmo.launch import run_command
from olmo.pages.files import save_page
from olmo.visualize.build import open_stream, picture_strip
from olmo.visualize.command import main, parse, saved_settings, training_config
from olmo.visualize.examples import SeenExample, read_example
from tests.inference.tiny import write_checkpoint

EXAMPLES, MAPPED, SEED = 3, 20, 3
DROPPED = 36
"""Cells that leave of every video: half of 8 frames of 9 cells."""


BROKEN = 1
"""Place in the stream of a video that cannot be read."""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> MovingShapesConfig:
    config = MovingShapesConfig(root=str(tmp_path_factory.mktemp("shapes")), num_train=28, num_test=4, processes=1)
    index = MixtureStream([Source("moving_shapes", 28, 1.0)], SEED).draw(BROKEN).index
    with open(MovingShapes(config).get(index, None)["video"], "r+b") as file:
        file.truncate(2000)
    return config


@pytest.fixture(scope="module")
def words(shapes) -> list[str]:
    """A mixture whose answers weigh differently, packed on both budgets."""
    return [
        "moving_shapes",
        "--config=tiny",
        "--packing",
        f"--seed={SEED}",
        f"--examples={EXAMPLES}",
        f"--packing_map={MAPPED}",
        "--data.packing.buffer_size=6",
        "--data.packing.max_frames=16",
        "--data.max_bad_fraction=0.1",
        "--model.mm_preprocessor.loss_token_weighting=root_subsegments_root_tokens",
        f"--data.moving_shapes.root={shapes.root}",
        "--data.moving_shapes.num_train=28",
        "--data.moving_shapes.num_test=4",
        "--data.moving_shapes.processes=1",
    ]


@pytest.fixture(scope="module")
def loader(words):
    """The stream of a training with the same settings."""
    args, overrides = parse(words)
    return open_stream(training_config(args, overrides, None))


@pytest.fixture(scope="module")
def page(words, tmp_path_factory) -> str:
    return write(words, tmp_path_factory.mktemp("page") / "page.html")


def write(words, path) -> str:
    assert run_command(main, [*words, f"--output={path}"]) == 0
    return path.read_text()


def sections(page: str) -> list[str]:
    """The part of every example."""
    return re.findall(r'<section id="example-\d+">.*?</section>', page, re.S)


def in_words(page: str) -> str:
    """The text of a page, without its styles and tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))).split())


def test_page_needs_no_other_file_and_is_meant_for_both_colour_schemes(page):
    sources = re.findall(r'(?:src|href)="([^"]{0,12})', page)
    assert sources and all(s.startswith(("data:image/j", "#")) for s in sources)
    assert "<script" not in page and "http" not in page and "prefers-color-scheme: dark" in page


def test_every_example_has_its_questions_frames_and_place(page, shapes, loader):
    data = MovingShapes(shapes)
    assert len(sections(page)) == EXAMPLES
    for number, section in enumerate(sections(page)):
        text = in_words(section)
        draw = read_example(loader, number).draw
        assert f"Example {number} moving_shapes, index {draw.index}, epoch 0" in text
        assert f"moving_shapes/train/{draw.index}" in text
        for question in data.questions[draw.index]:
            assert question.question in text and question.answer in text
        times = read_example(loader, number).times
        assert re.findall(r'class="time">([^<]+)', section) == [f"{t:.1f} s" for t in times] and len(times) == 8
        assert section.count("<img") == 8


def test_token_counts_are_exact(page, loader):
    for number, section in enumerate(sections(page)):
        example = read_example(loader, number).example
        assert f"{example.num_tokens} before pruning, {example.num_tokens - DROPPED} after" in in_words(section)
        drawn = re.findall(r'class="tok (\w+)[^"]*"[^>]*>([^<]*)</span>', section)
        cells = sum(int(text.split()[-2]) for kind, text in drawn if kind == "vision")
        assert cells == 72 and [text for kind, text in drawn if kind == "vision"] == [f"frame {k}: 9 cells" for k in range(8)]
        # every other token of the input is one box; the frames' two marks are in theirs, targets are no input
        assert sum(kind in ("text", "special") for kind, _ in drawn) == example.num_tokens - 72 - 2 * 8


def test_tokens_are_coloured_by_their_loss_weight(page, loader):
    """Seen to fail with the weight of the token that predicts instead of the one that is learned (one box to the left)."""
    examples = [read_example(loader, number).example for number in range(EXAMPLES)]
    weights = {float(w) for e in examples for w in e.loss_masks[e.loss_masks > 0]}
    greatest = max(weights)
    assert len(weights) > 1
    for section, example in zip(sections(page), examples, strict=True):
        learned = re.findall(r'class="tok \w+ learned" style="--level: ([\d.]+)" data-about="[^·"]+ · id (\d+)', section)
        where = example.loss_masks > 0
        np.testing.assert_allclose([float(level) for level, _ in learned], example.loss_masks[where] / greatest, atol=6e-4)
        assert [int(token) for _, token in learned] == example.target_tokens[where].tolist()


def test_one_tree_per_example_with_a_branch_per_message(page, shapes, loader):
    data = MovingShapes(shapes)
    for number, section in enumerate(sections(page)):
        asked = data.questions[read_example(loader, number).draw.index]
        assert section.count('<svg class="tree"') == section.count("</svg>") == 1
        assert section.count('<g class="branch"') == len(asked) > 1


def test_packing_bars_are_the_rows_of_the_loader(page, loader):
    """Oracle: the layouts of the batches. Seen to fail with the tokens before pruning."""
    drawn = re.findall(r'<div class="row">(.*?)</div>\s*</div>', page, re.S)
    rows = [row for batch in islice(loader, len(drawn)) for row in batch.layout]
    assert sum(len(r.examples) for r in rows[:-1]) < MAPPED <= sum(len(r.examples) for r in rows)
    limit, frames = loader.cfg.sequence_length, loader.cfg.packing.max_frames
    for bars, row in zip(drawn, rows, strict=True):
        tokens = [int(n) for n in re.findall(r'data-tokens="(\d+)"', bars)]
        assert tokens == [e.num_tokens - DROPPED for e in row.examples]
        assert [int(n) for n in re.findall(r'data-frames="(\d+)"', bars)] == [s.num_frames for s in row.segments]
        widths = [float(w) for w in re.findall(r"width: ([\d.]+)%", bars)]
        assert sum(widths[: len(tokens)]) == pytest.approx(100 * sum(tokens) / limit, abs=0.01)
        assert sum(widths[len(tokens) :]) == pytest.approx(100 * row.num_frames / frames, abs=0.01)
        assert f"{sum(tokens)} tokens, {100 * sum(tokens) / limit:.0f} % {row.num_frames} frames," in in_words(page)


def test_without_packing_every_example_has_a_row(words, tmp_path):
    page = write([w for w in words if "packing" not in w] + ["--packing_map=5", "--examples=0", "--split=test"], tmp_path / "rows.html")
    text = in_words(page)
    assert "5 examples in 5 rows" in text and "Packing is off" in text and "split test" in text and not sections(page)


def test_a_broken_video_is_named_and_replaced(page, shapes, loader):
    """As in training, the next example of the data set takes its place."""
    text = in_words(sections(page)[BROKEN])
    assert (
        f"Left out before it: {MovingShapes(shapes).get(loader.source.stream.draw(BROKEN).index, None)['video']}: the file cannot" in text
    )
    assert f"index {loader.source.stream.draw(BROKEN + 1).index}, epoch 0" in text
    assert "Left out: 1 could not be read (corrupt)" in in_words(page) and page.count("Left out") == 2


@pytest.mark.slow
@pytest.mark.parametrize("prune", [True, False])
def test_kept_cells_are_those_of_the_model(words, loader, tmp_path, prune):
    """Oracle: the model over a batch of all examples at once. Seen to fail with the kept cells of the frame before."""
    from olmo.checkpoints import load_model

    over = () if prune else ("vision_backbone.vit.prune=false",)
    checkpoint = write_checkpoint(tmp_path, over)
    weighting = next(w for w in words if "loss_token_weighting" in w)
    page = write([*words, f"--checkpoint={checkpoint}", "--packing_map=0", weighting], tmp_path / "kept.html")
    examples = [read_example(loader, number).example for number in range(EXAMPLES)]
    with torch.no_grad():
        vision = load_model(checkpoint).encode_vision(loader.collator(examples))
    if not prune:
        assert vision.keep_rows is None and 'class="kept"' not in page and "0 are dropped and 72 kept" in in_words(page)
        return
    assert vision.kept_per_row == (DROPPED,) * EXAMPLES
    for section, row in zip(sections(page), vision.keep_rows.view(EXAMPLES, 8, 9).sum(-1).tolist(), strict=True):
        assert [int(n) for n in re.findall(r'class="kept">(\d+)<', section)] == row
        assert re.findall(r"(\d+) of 9 cells", section) == [str(n) for n in row]
        assert section.count("<img") == 8 + 8 + 7  # frames, kept views, heat maps of all but the first


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["moving_shape"], "unknown mixture or data set 'moving_shape'; did you mean 'moving_shapes'?"),
        (["tgif"], "tgif: not found in "),
        (["moving_shapes", "--split=val"], "moving_shapes has no split 'val'; it has train, test"),
        (["moving_shapes", "--output=page.png"], "cannot write page.png: the name must end in .html"),
        (["moving_shapes", "--output=nowhere/page.html"], "there is no folder "),
        (["moving_shapes", "--config=huge"], "'huge' is neither a checkpoint folder"),
        (["moving_shapes", "--checkpoint=nowhere"], "there is no checkpoint folder nowhere"),
        (["moving_shapes", "--examples=-1"], "must not be negative"),
        (["moving_shapes", "--examples=0", "--packing_map=0"], "leave nothing to show"),
        (["moving_shapes", "--seed=-1"], "--seed=-1: must not be negative"),
        (["moving_shapes", "--data.bufer=1"], "unknown config key 'data.bufer'"),
    ],
)
def test_mistakes_are_one_sentence(words, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    assert run_command(main, [more[0], *words[1:], *more[1:]]) == 1
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    """What only writing finds out: here a name that is too long, elsewhere a full disk."""
    with pytest.raises(OLMoEnvironmentError, match="cannot write .*: File name too long"):
        save_page(tmp_path / f"{'x' * 300}.html", "page")


def test_settings_must_be_named(capsys):
    assert run_command(main, ["moving_shapes"]) == 1
    assert "--config tiny" in capsys.readouterr().err


def test_a_checkpoint_brings_its_own_settings(tmp_path):
    """Model and data as they were saved; overrides go on top of both."""
    folder = write_checkpoint(tmp_path, ("mm_preprocessor.video.max_frames=5",), data={"sequence_length": 333, "pad": None})
    args, overrides = parse(["moving_shapes", f"--checkpoint={folder}", "--seed=7", "--model.vision_backbone.vit.topk=0.25"])
    cfg = training_config(args, overrides, folder)
    assert (cfg.data.dataset, cfg.data.sequence_length, cfg.data.seed, cfg.data.num_workers) == ("moving_shapes", 333, 7, 0)
    assert (cfg.model.mm_preprocessor.video.max_frames, cfg.model.vision_backbone.vit.topk) == (5, 0.25)
    with pytest.raises(OLMoCliError, match="name a config for the data"):
        saved_settings(tmp_path)


def test_an_image_is_shown_by_its_crops(loader, words):
    """Images have no times, and no data set of the catalogue has them yet."""
    args, overrides = parse(words)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    example = loader.source.preprocessor(
        {"image": pixels, "question": "Which?", "answer": "red", "style": "vqa2"}, np.random.default_rng(0)
    )
    frames = loader.source.preprocessor.image.pixels.from_patches(example.images)
    seen = SeenExample("pictures", Draw(0, 0, 0), example, [], frames)
    strip = picture_strip(training_config(args, overrides, None), seen)
    assert [tile["time"] for row in strip["rows"] for tile in row] == ["crop 0"] and not strip["has_keep"]
