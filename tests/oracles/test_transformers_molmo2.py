"""Whole models against transformers' own Molmo2 on random weights, fp32: features, logits and generated tokens.

Seen to fail with the SwiGLU halves swapped, with yarn on all layers, with bidirectional attention off, with the two selected ViT
layers in the other order, with values missing in the cache, and without the temperature.
"""

import pytest
import torch

from olmo.inference.generation import SamplingConfig, generate
from tests.oracles import check_close
from tests.oracles.molmo2 import EXAMPLES, VARIANTS, batch, hf_inputs, load_theirs, our_model, write_folder

LOGITS, FEATURES = 1e-5, 2e-5


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """transformers' model of a variant, loaded once."""
    loaded = {}

    def get(variant: str = "qwen3"):
        if variant not in loaded:
            folder = write_folder(our_model(variant), tmp_path_factory.mktemp(variant))
            loaded[variant] = load_theirs(folder)
        return loaded[variant]

    return get


def their_logits(model, inputs: dict) -> torch.Tensor:
    """[n, V] of all real tokens, row by row."""
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"].bool()]


def our_logits(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(inputs, logits="all").logits


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(theirs, variant, example):
    ours = our_model(variant)
    inputs = batch(ours, EXAMPLES[example])
    check_close(our_logits(ours, inputs), their_logits(theirs(variant), hf_inputs(ours, inputs)), LOGITS, f"molmo2 {variant} {example}")


@pytest.mark.parametrize("variant", ["qwen3", "olmo3"])
@pytest.mark.parametrize("examples", [("image", "two images"), ("long video", "video"), ("video", "text")])
def test_logits_of_rows_of_different_length(theirs, variant, examples):
    """They pad on the left, we pad on the right."""
    ours = our_model(variant)
    inputs = batch(ours, *(EXAMPLES[e] for e in examples))
    expected = their_logits(theirs(variant), hf_inputs(ours, inputs))
    check_close(our_logits(ours, inputs), expected, LOGITS, f"molmo2 {variant} batch of {' and '.join(examples)}")


@pytest.mark.parametrize("example", ["image", "video"])
def test_logits_with_causal_attention_between_image_tokens(theirs, monkeypatch, example):
    ours = our_model()
    inputs = batch(ours, EXAMPLES[example])
    both_ways = our_logits(ours, inputs)
    monkeypatch.setattr(ours.config, "bi_directional_attn", None)
    causal = our_logits(ours, inputs)
    assert (causal - both_ways).abs().max() > 0.01
    expected = their_logits(theirs(), hf_inputs(ours, inputs, bidirectional=False))
    check_close(causal, expected, LOGITS, f"molmo2 causal {example}")


@pytest.mark.parametrize("example", ["image", "two images", "video"])
def test_features(theirs, example):
    ours = our_model()
    inputs = batch(ours, EXAMPLES[example])
    pictures = {k: v for k, v in hf_inputs(ours, inputs).items() if "pixel" in k or "pooling" in k or "grids" in k or "crops" in k}
    kind = "video" if "video_grids" in pictures else "image"
    with torch.no_grad():
        output = getattr(theirs().model, f"get_{kind}_features")(**pictures)
        actual = ours.encode_vision(inputs).features
    check_close(actual, torch.cat(output.pooler_output), FEATURES, f"molmo2 features of {example}")


BATCHES = [("text",), ("image",), ("video",), ("image", "two images"), ("long video", "video"), ("video", "text")]


@pytest.mark.parametrize("variant", ["qwen3_untied", "olmo3"])
@pytest.mark.parametrize("examples", BATCHES)
def test_greedy_generation(theirs, variant, examples):
    ours = our_model(variant)
    inputs = batch(ours, *(EXAMPLES[e] for e in examples))
    given = hf_inputs(ours, inputs)
    expected = theirs(variant).generate(**given, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    actual = generate(ours, inputs, 12).token_ids
    assert actual == expected[:, given["input_ids"].shape[1] :].tolist()
    assert all(len(set(row)) > 1 for row in actual), "answers that repeat one token would not show a wrong cache"


@pytest.mark.parametrize("settings", [{}, {"top_k": 40}, {"top_p": 0.7}, {"top_k": 40, "top_p": 0.7}])
@pytest.mark.parametrize("example", ["text", "image", "video"])
def test_sampled_generation(theirs, example, settings):
    """The same seed draws the same tokens."""
    ours = our_model()
    inputs = batch(ours, EXAMPLES[example])
    given = hf_inputs(ours, inputs)
    sampling = SamplingConfig(temperature=0.8, **settings)
    for seed in range(3):
        torch.manual_seed(seed)
        sampled = {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0} | settings
        expected = theirs().generate(**given, max_new_tokens=12, eos_token_id=None, pad_token_id=0, **sampled)
        actual = generate(ours, inputs, 12, sampling=sampling, generator=torch.Generator().manual_seed(seed)).token_ids
        assert actual == expected[:, given["input_ids"].shape[1] :].tolist()
