"""Hugging Face folders through the same doors as everything else; the layouts themselves are tested beside `olmo/hf_model`."""

import json
import logging

import pytest
import torch

from olmo.checkpoints import load_config, load_model, open_weights, read_config, select_checkpoint
from olmo.exceptions import OLMoCheckpointError
from olmo.hf_model.names import stored_name
from olmo.launch import raw_config
from olmo.weights import SCORER, is_scorer
from tests.checkpoints.formats import fresh, weights_of, write_huggingface
from tests.train.tiny_run import model_config

ELSEWHERE = {
    "its own place": stored_name,
    "top": lambda n: n[n.index(SCORER) :] if is_scorer(n) else stored_name(n),
    "vision tower": lambda n: f"model.vision_tower.{n[n.index(SCORER) :]}".replace(".wq.", ".q_proj.") if is_scorer(n) else stored_name(n),
}


@pytest.fixture(scope="module")
def plain():
    config = model_config("video_olmo", "bi_directional_attn=image_tokens")
    return config, weights_of(fresh(config))


@pytest.fixture(scope="module")
def stts():
    return weights_of(fresh(model_config(), seed=1))


def assert_same(model, weights):
    loaded = dict(model.named_parameters())
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize("parts", [1, 3])
def test_the_launchers_read_a_folder(plain, tmp_path, parts):
    config, weights = plain
    folder = write_huggingface(tmp_path, config, weights, parts=parts)
    raw, selected = raw_config(str(folder))
    assert selected == folder == select_checkpoint(folder) and raw["model"]["model_name"] == "video_olmo"
    source = open_weights(folder)
    assert source.format == "huggingface" and source.shapes == {n: tuple(t.shape) for n, t in weights.items()}
    assert_same(load_model(folder), weights)


@pytest.mark.parametrize("parts", [1, 3])
def test_plain_molmo2_leaves_only_the_scorer_to_initialise(plain, tmp_path, parts, caplog):
    """`--model.model_name` is no override of a value but of the class, as the launcher of STTS sets it."""
    from olmo.checkpoints import match_weights
    from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig

    config, weights = plain
    folder = write_huggingface(tmp_path, config, weights, parts=parts)
    model = TemporalVideoOlmoConfig.from_molmo2(load_config(folder)).build_model("meta")
    fit = match_weights(folder, model)
    assert len(fit.initialised) == 14 and all(is_scorer(n) for n in fit.initialised) and set(fit.loaded) == set(weights)
    (line,) = fit.describe()
    assert "has no temporal_token_scorer: its 14 tensors start from random values, all others are loaded" in line


@pytest.mark.parametrize("place", ELSEWHERE)
def test_pruned_weights_of_unknown_layout(plain, stts, tmp_path, place, caplog):
    """Plain config, topk somewhere in it, the scorer anywhere: a model that prunes by that topk, never an unpruned one."""
    folder = write_huggingface(tmp_path, plain[0], stts, topk=0.3, rename=ELSEWHERE[place])
    config = load_config(folder)
    assert config.model_name == "temporal_video_olmo" and config.vision_backbone.vit.topk == 0.3
    assert_same(load_model(folder), stts)


def test_pruned_weights_without_topk_are_told(plain, stts, tmp_path, caplog):
    folder = write_huggingface(tmp_path, plain[0], stts)
    with caplog.at_level(logging.INFO, logger="olmo"):
        assert load_config(folder).model_name == "temporal_video_olmo"
    assert "is read as a model that prunes, with the default topk" in caplog.text


def test_another_family_is_one_sentence(plain, tmp_path):
    folder = write_huggingface(tmp_path, *plain)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "qwen3"}))
    with pytest.raises(OLMoCheckpointError, match="of type 'qwen3', which is not Molmo2"):
        read_config(folder)
    file.write_text("{")
    with pytest.raises(OLMoCheckpointError, match="cannot be read as JSON"):
        read_config(folder)


def test_unknown_and_missing_weights_are_listed(plain, tmp_path):
    config, weights = plain
    changed = {n: t for n, t in weights.items() if "ln_f" not in n} | {"vision_backbone.extra": torch.zeros(2)}
    folder = write_huggingface(tmp_path, config, changed)
    with pytest.raises(OLMoCheckpointError, match=r"1 missing \(transformer\.ln_f\.weight\); 1 unknown \(\S*vision_backbone\.extra\)"):
        load_model(folder)


@pytest.mark.parametrize("gone", ["model.safetensors.index.json", "model-00002-of-00003.safetensors"])
def test_a_download_that_is_not_whole(plain, tmp_path, gone):
    folder = write_huggingface(tmp_path, *plain, parts=3)
    (folder / gone).unlink()
    with pytest.raises(OLMoCheckpointError, match=f"is not whole: {gone} is missing"):
        select_checkpoint(folder)
