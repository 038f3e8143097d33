"""The configs of the published parts, as their `config.json` on the hub has them, are accepted for the parts of that name only."""

import json
from itertools import product

import pytest

from olmo.convert.hub import read_settings
from olmo.convert.pretrained import SOURCES, named_config
from olmo.convert.pretrained_configs import config_of, fit_named
from olmo.exceptions import OLMoCheckpointError

QWEN = dict(
    model_type="qwen3", num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=151936,
    rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False, rope_scaling=None, max_position_embeddings=40960,
)  # fmt: skip
QWEN_4B = QWEN | dict(hidden_size=2560, intermediate_size=9728, tie_word_embeddings=True)
QWEN_8B = QWEN | dict(hidden_size=4096, intermediate_size=12288, tie_word_embeddings=False, rope_theta=1000000)
OLMO = dict(
    model_type="olmo3", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
    vocab_size=100278, rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False, tie_word_embeddings=False, sliding_window=4096,
    rope_theta=500000, max_position_embeddings=65536, layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 8,
    rope_scaling=dict(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=8192, attention_factor=1.2079441541679836, beta_fast=32.0,
        beta_slow=1.0,
    ),
)  # fmt: skip
CLIP_L = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, patch_size=14, image_size=336)
CLIP_B = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, patch_size=16, image_size=224)
SO400M = dict(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27, patch_size=14, image_size=384)
DINO = dict(model_type="dinov2", hidden_size=1024, mlp_ratio=4, num_attention_heads=16, num_hidden_layers=24, patch_size=14, image_size=518)

PUBLISHED = {
    "qwen3_4b": QWEN_4B | dict(rope_theta=1000000),
    "qwen3_4b_instruct": QWEN_4B | dict(rope_theta=5000000),
    "qwen3_8b": QWEN_8B,
    "olmo3_7b_instruct": OLMO,
    "openai": dict(model_type="clip", vision_config=CLIP_L),
    "siglip2": dict(model_type="siglip", vision_config=SO400M),
    "dinov2_large_336": DINO,
    "metaclip_l14_336": dict(model_type="clip", vision_config=CLIP_L),
    "metaclip_b16_224": dict(model_type="clip", vision_config=CLIP_B),
}
SAME = {frozenset(pair) for pair in (("openai", "metaclip_l14_336"),)}
"""Configs that no check can tell apart."""


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Name of a part -> (our config of a folder with its published `config.json`, the folder)."""
    found = {}
    for name, settings in PUBLISHED.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(settings))
        found[name] = config_of(folder, read_settings(folder)), folder
    return found


def test_every_named_part_has_a_source():
    from olmo.model_configs import LLMS, VITS

    assert SOURCES.keys() == (LLMS | VITS).keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_config_is_accepted(name, described):
    """CLIP has a block more than its named config, which uses none but the second last."""
    found, folder = described[name]
    assert fit_named(name, named_config(name), found, folder) == (name == "openai")


def test_every_other_is_refused(described):
    """Among them pairs of equal shapes: Qwen3-4B and its later Instruct differ in the base of their rotation only."""
    for name, other in product(PUBLISHED, PUBLISHED):
        if name == other or frozenset((name, other)) in SAME:
            continue
        found, folder = described[other]
        with pytest.raises(OLMoCheckpointError):
            fit_named(name, named_config(name), found, folder)
