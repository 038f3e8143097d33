"""The points of a sweep, and the words that are refused before anything runs."""

import pytest

from olmo.checkpoints import select_checkpoint
from olmo.eval import command as evaluation
from olmo.eval.sweep.command import parse, possible
from olmo.eval.sweep.plan import Point, labels_of, plan
from olmo.exceptions import OLMoCliError
from tests.inference.tiny import write_checkpoint


def test_every_setting_once():
    """Unpruned points have no method and no seed, and only the method that draws is repeated."""
    points = plan({"runs/a": [8, 16]}, [0, 0.3, 0.5], ["scorer", "random"], [0, 1])
    assert len(points) == len(set(points)) == 2 * (1 + 2 * (1 + 2))
    assert [p.name for p in points[:4]] == ["a-f8-k0-none", "a-f8-k0.3-scorer", "a-f8-k0.3-random-s0", "a-f8-k0.3-random-s1"]
    assert {p.seed for p in points if p.method != "random"} == {None}
    assert len({p.name for p in points}) == len(points)


def test_what_is_asked_for_twice_is_planned_once():
    assert len(plan({"a": [8, 8]}, [0, 0, 0.5], ["scorer", "scorer"], [0, 1])) == 2


def test_words_of_a_point_are_those_of_the_evaluation():
    point = Point("runs/a", "a", 16, 0.5, "random", 3)
    args, model, _ = evaluation.parse(["runs/a", "--tasks=moving_shapes", *point.words])
    scaling = args.scaling
    assert (scaling.max_frames, scaling.topk, scaling.prune_method) == (16, 0.5, "random")
    assert model == ["vision_backbone.vit.prune_seed=3"]
    assert evaluation.parse(["runs/a", "--tasks=moving_shapes", *Point("runs/a", "a", 8, 0, "none").words])[0].scaling.unpruned


def test_labels_tell_checkpoints_apart():
    assert labels_of(["runs/a/step9", "runs/b/step9"]) == {"runs/a/step9": "a/step9", "runs/b/step9": "b/step9"}
    assert labels_of(["runs/a/", "b"]) == {"runs/a/": "a", "b": "b"}
    with pytest.raises(OLMoCliError, match="named twice"):
        labels_of(["runs/a", "runs/a/"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--frames 0", "--frames 0: must be at least 1"),
        ("--topk 1", r"must lie in \[0, 1\)"),
        ("--methods none", "asked for with --topk 0"),
        ("--save_dir=x", "--save_dir is not for a sweep"),
        ("--prune_method=random", "--prune_method is not for a sweep"),
        ("--nproc_per_node=0", "must be at least 1"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(OLMoCliError, match=message):
        parse(["a", "--tasks=moving_shapes", "--output=o", *words.split()])


def test_other_words_go_on():
    _, words = parse("a b --tasks=moving_shapes --output o --frames 8 --max_examples 5 --device_batch_size 4 --model.x=y".split())
    assert words == ["--max_examples=5", "--device_batch_size=4", "--model.x=y"]


def test_points_that_cannot_be_run_are_left_out_with_the_reason(tmp_path):
    """A checkpoint without a scorer beside one that has it; a method that no checkpoint can do is an error."""
    with_scorer = str(write_checkpoint(tmp_path / "a").parent)
    without = str(write_checkpoint(tmp_path / "b", ("vision_backbone.vit.prune=false",)).parent)
    assert select_checkpoint(without).parent.name == "b"
    fine, left_out = possible(plan({with_scorer: [4], without: [4]}, [0, 0.5], ["scorer", "random"], [0]), [])
    assert [p.name for p in fine] == ["a-f4-k0-none", "a-f4-k0.5-scorer", "a-f4-k0.5-random-s0", "b-f4-k0-none", "b-f4-k0.5-random-s0"]
    assert list(left_out) == ["b-f4-k0.5-scorer"] and "no trained scorer" in left_out["b-f4-k0.5-scorer"]
    with pytest.raises(OLMoCliError, match="--methods rundom: --prune_method=rundom: unknown"):
        possible(plan({with_scorer: [4]}, [0, 0.5], ["rundom"], [0]), [])
    with pytest.raises(OLMoCliError, match="no point of the sweep can be run: .*no trained scorer"):
        possible(plan({without: [4]}, [0.5], ["scorer"], [0]), [])
