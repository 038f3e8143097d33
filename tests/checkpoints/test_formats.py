"""One model, every format: the same weights come out, whatever wrote them and wherever the scorer stands."""

import logging

import pytest
import torch

from olmo.checkpoints import load_config, load_model, match_weights, open_weights, select_checkpoint
from olmo.exceptions import OLMoCheckpointError
from olmo.weights import SCORER, is_scorer, scorer_name
from tests.checkpoints.formats import NATIVE, fresh, weights_of, write_native
from tests.train.tiny_run import model_config


@pytest.fixture(scope="module")
def stts():
    config = model_config()
    return config, weights_of(fresh(config))


@pytest.fixture(scope="module")
def plain():
    config = model_config("video_olmo")
    return config, weights_of(fresh(config, seed=1))


def assert_same(model, weights):
    loaded = dict(model.named_parameters())
    assert loaded.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize("kind", NATIVE)
def test_the_same_weights_from_every_format(kind, stts, tmp_path):
    config, weights = stts
    folder = select_checkpoint(write_native(kind, tmp_path / "step7", config, weights))
    source = open_weights(folder)
    assert source.shapes == {n: tuple(t.shape) for n, t in weights.items()}
    assert set(source.dtypes.values()) == {torch.float32}
    assert all(torch.equal(source.read(name), value) for name, value in weights.items())
    assert load_config(folder) == config
    assert_same(load_model(folder), weights)


@pytest.mark.parametrize("kind", NATIVE)
def test_a_bf16_model_from_every_format(kind, stts, tmp_path):
    config, weights = stts
    folder = write_native(kind, tmp_path / "step7", config, weights)
    assert_same(load_model(folder, dtype=torch.bfloat16), {n: t.bfloat16() for n, t in weights.items()})


@pytest.mark.parametrize("kind", NATIVE)
def test_plain_molmo2_leaves_only_the_scorer_to_initialise(kind, plain, tmp_path, caplog):
    """Seen to fail: with every other parameter NaN before loading, a reader that skips one of them leaves the NaN."""
    config, weights = plain
    folder = write_native(kind, tmp_path / "step7", config, weights, model_name="temporal_video_olmo")
    with caplog.at_level(logging.INFO, logger="olmo"):
        model = load_model(folder)
    (line,) = [r.message for r in caplog.records if SCORER in r.message]
    assert "has no temporal_token_scorer: its 14 tensors start from random values, all others are loaded" in line
    for name, value in model.named_parameters():
        assert value.isfinite().all(), name
        if is_scorer(name):
            assert value.abs().sum() > 0 or name.endswith("bias")
        else:
            assert torch.equal(value, weights[name]), name


def moved(weights, where):
    """The weights with the scorer at another place."""
    return {where(name) if is_scorer(name) else name: value for name, value in weights.items()}


PLACES = {
    "top": lambda name: name[name.index(SCORER) :],
    "llm": lambda name: "transformer." + name[name.index(SCORER) :],
    "backbone": lambda name: "vision_backbone." + name[name.index(SCORER) :],
    "spelling": lambda name: (
        name.replace(".wq.", ".q_proj.").replace(".wk.", ".k_proj.").replace(".wv.", ".v_proj.").replace(".wo.", ".o_proj.")
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", NATIVE)
def test_the_scorer_is_found_wherever_it_stands(kind, place, stts, tmp_path):
    config, weights = stts
    folder = write_native(kind, tmp_path / "step7", config, moved(weights, PLACES[place]))
    assert_same(load_model(folder), weights)


def test_a_scorer_key_without_the_models_prefix(stts, tmp_path):
    """In a sharded checkpoint, beside the keys `model.*`; those of its optimiser state are no weights."""
    from tests.checkpoints.formats import write_config, write_published_sharded

    config, weights = stts
    write_config(tmp_path, config)
    rest = {n: t for n, t in weights.items() if not is_scorer(n)}
    scorer = {n[n.index(SCORER) :]: t for n, t in weights.items() if is_scorer(n)}
    write_published_sharded(tmp_path, rest, extra=scorer | {f"optim.state.{n}.exp_avg": t * 0 for n, t in scorer.items()})
    assert_same(load_model(tmp_path), weights)


def test_names_of_the_scorer():
    assert scorer_name("a.b.temporal_token_scorer.mlp.w1.weight") == f"vision_backbone.image_vit.transformer.{SCORER}.mlp.w1.weight"
    assert scorer_name("x.temporal_token_scorers.mlp.w1.weight") is None and scorer_name("transformer.ln_f.weight") is None


def test_two_tensors_of_one_name_are_refused(stts, tmp_path):
    config, weights = stts
    name = next(n for n in weights if is_scorer(n))
    twice = weights | {f"elsewhere.{name[name.index(SCORER) :]}": weights[name].clone()}
    folder = write_native("safetensors", tmp_path, config, twice)
    with pytest.raises(OLMoCheckpointError, match="would both be"):
        load_model(folder)


@pytest.mark.parametrize("kind", NATIVE)
def test_half_a_scorer_is_an_error(kind, stts, tmp_path):
    config, weights = stts
    folder = write_native(kind, tmp_path, config, {n: t for n, t in weights.items() if f"{SCORER}.mlp" not in n})
    with pytest.raises(OLMoCheckpointError, match=r"6 missing \(.*temporal_token_scorer\.mlp\.w1\.weight"):
        match_weights(folder, config.build_model("meta"))


# ---------------------------------------------------------------------------------------------- the config of pruned weights


def as_plain_config(config, **where):
    """The config of a plain model for weights that have a scorer, with `topk` somewhere."""
    plain = model_config("video_olmo")
    import yaml

    raw = yaml.safe_load(plain.to_yaml())
    for path, value in where.items():
        *blocks, key = path.split("__")
        node = raw
        for block in blocks:
            node = node[block]
        node[key] = value
    return raw


@pytest.mark.parametrize(
    "where", ["topk", "vision_backbone__topk", "vision_backbone__vit__topk", "mm_preprocessor__topk", "mm_preprocessor__video__topk"]
)
def test_topk_is_taken_from_wherever_it_stands(where, stts, tmp_path, caplog):
    config, weights = stts
    folder = write_native("safetensors", tmp_path, config, weights, **as_plain_config(config, **{where: 0.3}))
    with caplog.at_level(logging.INFO, logger="olmo"):
        found = load_config(folder)
    assert found.model_name == "temporal_video_olmo" and found.vision_backbone.vit.topk == 0.3
    assert "is read as a model that prunes, with topk 0.3 of its config" in caplog.text
    found.validate()
    assert_same(load_model(folder), weights)


def test_without_topk_the_default_is_used_and_said(stts, tmp_path, caplog):
    config, weights = stts
    folder = write_native("unsharded", tmp_path, config, weights, **as_plain_config(config))
    with caplog.at_level(logging.INFO, logger="olmo"):
        assert load_config(folder).vision_backbone.vit.topk == 0.5
    assert "the default topk, because its config gives none" in caplog.text


def test_two_values_of_topk_are_an_error(stts, tmp_path):
    config, weights = stts
    folder = write_native("unsharded", tmp_path, config, weights, **as_plain_config(config, topk=0.3, mm_preprocessor__topk=0.4))
    with pytest.raises(OLMoCheckpointError, match=r"gives 2 values of topk: 0\.3, 0\.4"):
        load_config(folder)


def test_a_plain_model_stays_plain(plain, tmp_path):
    config, weights = plain
    assert load_config(write_native("safetensors", tmp_path, config, weights)) == config
