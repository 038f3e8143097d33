"""What the flags of test-time scaling make of checkpoints that prune, that could, and that never did."""

import numpy as np
import pytest

from olmo.checkpoints import load_config
from olmo.eval import command
from olmo.eval.test_time import Scaling
from olmo.exceptions import OLMoCliError
from olmo.inference import load
from olmo.inference.api import load_with_overrides
from tests.inference.tiny import videos, write_checkpoint

VIT = "vision_backbone.vit."


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="module")
def unpruned(tmp_path_factory):
    """Trained with `prune: false`: it knows what pruning is, but has no scorer."""
    return write_checkpoint(tmp_path_factory.mktemp("unpruned"), (f"{VIT}prune=false",))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Plain Molmo2, whose config has no key of the pruning."""
    folder = write_checkpoint(tmp_path_factory.mktemp("plain"), (f"{VIT}prune=false",))
    _make_plain(folder / "config.yaml")
    return folder


def _make_plain(file):
    import yaml

    from olmo.nn.image_vit import VitConfig

    raw = yaml.safe_load(file.read_text())
    model = raw["model"]
    model["model_name"] = "video_olmo"
    del model["compact_positions"], model["mm_preprocessor"]["video"]["topk"]
    vit = model["vision_backbone"]["vit"]
    model["vision_backbone"]["vit"] = {k: v for k, v in vit.items() if k in VitConfig.__dataclass_fields__}
    file.write_text(yaml.safe_dump(raw))


def scaled(checkpoint, *more, **settings):
    return load_config(checkpoint, Scaling(**settings).with_overrides(checkpoint, more))


def test_nothing_asked_changes_nothing(scorer):
    assert Scaling().with_overrides(scorer, ["a=1"]) == ["a=1"]


def test_a_checkpoint_with_a_scorer(scorer):
    config = scaled(scorer, max_frames=16, topk=0.3, positions="compacted")
    vit = config.vision_backbone.vit
    assert (config.mm_preprocessor.video.max_frames, vit.topk, vit.prune_method, config.compact_positions) == (16, 0.3, "scorer", True)
    assert scaled(scorer, positions="kept").compact_positions is False
    other = scaled(scorer, f"{VIT}prune_seed=7", prune_method="random").vision_backbone.vit
    assert (other.topk, other.prune_method, other.prune_seed) == (0.5, "random", 7)


@pytest.mark.parametrize("settings", [{"topk": 0.0}, {"prune_method": "none"}, {"topk": 0.0, "prune_method": "random"}])
def test_unpruned(scorer, plain, settings):
    vit = scaled(scorer, **settings).vision_backbone.vit
    assert not vit.prune and vit.topk == 0
    assert scaled(plain, **settings) == load_config(plain)


def test_a_share_that_the_preprocessor_repeats(tmp_path):
    """A config may give topk twice, and both must be equal. Seen to fail with the error about two values when only one is changed."""
    folder = write_checkpoint(tmp_path, ("mm_preprocessor.video.topk=0.5",))
    config = scaled(folder, topk=0.25)
    assert config.mm_preprocessor.pruning(config.vision_backbone.vit) == (0.25, 0)


@pytest.mark.parametrize("which", ["unpruned", "plain"])
def test_checkpoints_without_pruning_can_be_pruned_by_what_needs_no_training(which, request, tmp_path):
    """The model answers, with half of its visual tokens behind the first frame. Seen to fail (unknown key topk) when the class of
    the config does not follow `model_name`."""
    folder = request.getfixturevalue(which)
    overrides = Scaling(topk=0.5, prune_method="random", max_frames=4).with_overrides(folder, [f"{VIT}prune_at=1"])
    video = videos(tmp_path, 1).get(0, np.random.default_rng(0))["video"]
    pruned = load_with_overrides(folder, overrides).ask(video, "Which colour?", max_new_tokens=2)
    whole = load(folder).ask(video, "Which colour?", max_new_tokens=2)
    assert pruned.tokens_before - pruned.tokens_after == 4 * 9 // 2 and len(pruned.frames) == 4
    assert whole.tokens_before == whole.tokens_after


def test_what_cannot_work_is_said(scorer, unpruned, plain):
    for folder, settings, message in (
        (unpruned, {"topk": 0.5}, "was trained without pruning; say how to prune it with --prune_method"),
        (plain, {"topk": 0.5}, "say how to prune it"),
        (unpruned, {"topk": 0.5, "prune_method": "scorer"}, "has no trained scorer; methods that need none: easy"),
        (plain, {"topk": 0.5, "prune_method": "scorer"}, "has no trained scorer"),
        (unpruned, {"prune_method": "random"}, "say how much to remove with --topk"),
        (plain, {"prune_method": "random"}, "say how much to remove with --topk"),
        (scorer, {"prune_method": "rundom"}, "unknown; known: scorer, easy"),
        (plain, {"positions": "compacted"}, "removes no tokens"),
    ):
        with pytest.raises(OLMoCliError, match=message):
            Scaling(**settings).with_overrides(folder)
    with pytest.raises(OLMoCliError, match=r"--model.vision_backbone.vit.topk is set, and so is a flag"):
        Scaling(topk=0.3).with_overrides(scorer, [f"{VIT}topk=0.5"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max_frames=0", "must be at least 1"),
        ("--topk=1", r"must lie in \[0, 1\)"),
        ("--topk=-0.1", r"must lie in \[0, 1\)"),
        ("--topk=nan", r"must lie in \[0, 1\)"),
        ("--topk=0.5 --prune_method=none", "give one of them"),
        ("--positions=gone", "invalid choice"),
    ],
)
def test_values_that_never_work(words, message):
    with pytest.raises(OLMoCliError, match=message):
        command.parse(["x", "--tasks=moving_shapes", *words.split()])


def test_the_command_takes_the_flags(scorer):
    args, model, _ = command.parse([str(scorer), "--tasks=moving_shapes", "--max_frames", "4", "--topk", "0.25"])
    printed = command.printed_config(args, model, [])
    assert "max_frames: 4" in printed and "topk: 0.25" in printed
