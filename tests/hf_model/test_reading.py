"""Hugging Face folders of both spellings, whole and in parts: the same weights bit for bit, and the same model.

Seen to fail with the halves of a fused projection in the other order, with the embedding cut where the file cuts it, and with every
output matrix taken for the embedding.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo.checkpoints import load_model, match_weights, open_weights, read_config
from olmo.exceptions import OLMoCheckpointError
from olmo.hf_model.config import OWN_BLOCK, from_hf_config, to_hf_config
from olmo.hf_model.names import our_name, stored_name
from olmo.models.model import build_model_config
from olmo.tokenizer import SPECIAL_TOKENS
from tests.checkpoints.formats import weights_of, write_indexed
from tests.oracles.molmo2 import EXAMPLES, VARIANTS, batch, build, load_theirs, our_model, raw_config, write_folder

VARIANT = "qwen3_untied"  # the one with biases and a head of its own


def as_published(folder):
    """Take our block out of the config: what remains is what anybody's folder has."""
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in raw.items() if k != OWN_BLOCK}))
    return folder


def write_parts(folder):
    write_folder(our_model(VARIANT), folder)
    write_indexed(folder, load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    return folder


def write_by_transformers(folder):
    model = load_theirs(write_folder(our_model(VARIANT), folder / "first"))
    model.save_pretrained(folder / "again")
    return folder / "again"


def write_module_names(folder):
    """The names of transformers' modules, as its state dict has them."""
    write_folder(our_model(VARIANT), folder)
    state = {k: v.contiguous() for k, v in load_theirs(folder).state_dict().items()}
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in state
    save_file(state, folder / "model.safetensors")
    return folder


FOLDERS = {
    "single": lambda folder: write_folder(our_model(VARIANT), folder),
    "in parts": write_parts,
    "written by transformers": write_by_transformers,
    "module names": write_module_names,
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_weights_are_read_bit_for_bit(tmp_path, kind):
    folder = FOLDERS[kind](tmp_path / "hf")
    source, expected = open_weights(folder), weights_of(our_model(VARIANT))
    assert source.format == "huggingface" and source.shapes == {n: tuple(t.shape) for n, t in expected.items()}
    assert all(torch.equal(source.read(name), tensor) for name, tensor in expected.items())
    assert set(source.dtypes.values()) == {torch.float32}


@pytest.mark.parametrize("own_block", [True, False])
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_the_same_model(tmp_path, kind, own_block):
    folder = FOLDERS[kind](tmp_path / "hf")
    model = load_model(folder if own_block else as_published(folder))
    inputs = batch(our_model(VARIANT), EXAMPLES["video"])
    with torch.no_grad():
        assert torch.equal(model(inputs, logits="all").logits, our_model(VARIANT)(inputs, logits="all").logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_configs_of_all_variants_come_back(variant):
    config = our_model(variant).config
    written = json.loads(json.dumps(to_hf_config(config)))
    assert build_model_config(from_hf_config(written)["model"]) == config
    model = from_hf_config({k: v for k, v in written.items() if k != OWN_BLOCK})["model"]
    model["llm"]["weight_tying"] = config.llm.weight_tying
    again = build_model_config(model)
    assert to_hf_config(again) | {OWN_BLOCK: 0} == written | {OWN_BLOCK: 0}
    for i in range(config.llm.n_layers):
        assert again.llm.rope_settings(i) == config.llm.rope_settings(i)


def older_config(written: dict) -> dict:
    """The same model as the published folders describe it (`vit_config`, blocks counted from the end)."""
    vision, adapter, text = (dict(written[f"{n}_config"]) for n in ("vision", "adapter", "text"))
    rename = {"image_size": "image_default_input_size", "patch_size": "image_patch_size", "num_position_embeddings": "image_num_pos"}
    vit = {rename.get(k, k): v for k, v in vision.items()} | {"model_type": "molmo2", "num_hidden_layers": 4, "float32_attention": True}
    adapter |= {"vit_layers": [-1, -3], "pooling_attention_mask": True, "model_type": "molmo2"}
    del adapter["vision_feature_layer"]
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": None if rope["rope_type"] == "default" else rope}
    text |= {"layer_norm_eps": text.pop("rms_norm_eps"), "qkv_bias": text.pop("attention_bias"), "use_qk_norm": True}
    if text["rope_scaling"] is None:
        text["rope_scaling_layers"] = None
    top = {k: v for k, v in written.items() if k not in ("vision_config", OWN_BLOCK)}
    return top | {"vit_config": vit, "adapter_config": adapter, "text_config": text}


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_configs_of_the_older_layout(tmp_path, variant):
    model = our_model(variant)
    folder = write_folder(model, tmp_path / "hf")
    (folder / "config.json").write_text(json.dumps(older_config(to_hf_config(model.config))))
    inputs = batch(model, EXAMPLES["video"])
    with torch.no_grad():
        assert torch.equal(load_model(folder)(inputs, logits="all").logits, model(inputs, logits="all").logits)


def test_an_output_matrix_that_is_the_embedding_makes_a_tied_model(tmp_path):
    tied = our_model("qwen3")
    folder = as_published(write_folder(tied, tmp_path / "hf"))
    assert open_weights(folder).shapes.keys() == weights_of(tied).keys()
    assert read_config(folder)["model"]["llm"]["weight_tying"] is True


def test_an_output_matrix_trained_apart_is_kept(tmp_path):
    """Whatever our block says: somebody may have trained the exported model."""
    folder = write_folder(our_model("qwen3"), tmp_path / "hf")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][-1, -1] += 1
    save_file(weights, folder / "model.safetensors")
    assert read_config(folder)["model"]["llm"]["weight_tying"] is False
    model = load_model(folder)
    assert torch.equal(model.transformer.ff_out.weight, weights["lm_head.weight"])


def test_an_untied_model_whose_matrices_are_equal_stays_untied(tmp_path):
    model = build(raw_config(VARIANT))
    with torch.no_grad():
        model.transformer.ff_out.weight.copy_(model.transformer.wte.embedding)
    assert "transformer.ff_out.weight" in open_weights(write_folder(model, tmp_path / "hf")).shapes


def test_names_there_and_back():
    for name in weights_of(our_model(VARIANT)):
        assert our_name(stored_name(name)) == (name, 0)


def test_processor_and_tokenizer_of_a_folder_are_used(tmp_path):
    folder = as_published(write_folder(our_model(), tmp_path / "hf"))
    settings = {"image_processor": {"max_crops": 3, "overlap_margins": [2, 2]}, "video_processor": {"num_frames": 7, "max_fps": 1}}
    (folder / "processor_config.json").write_text(json.dumps(settings | {"use_single_crop_col_tokens": False}))
    (folder / "tokenizer.json").write_text("{}")
    config = build_model_config(read_config(folder)["model"])
    assert config.mm_preprocessor.image.max_crops == 3 and config.mm_preprocessor.image.overlap_margins == [2, 2]
    assert config.mm_preprocessor.video.max_frames == 7 and config.mm_preprocessor.video.max_fps == [1.0]
    assert config.llm.tokenizer.tokenizer_dir == str(folder)


def test_pruned_weights_of_an_unknown_layout(tmp_path):
    """Scorer tensors stand somewhere, `topk` stands somewhere."""
    raw = raw_config()
    raw["vision_backbone"] = raw["vision_backbone"] | {"vit": raw["vision_backbone"]["vit"] | {"topk": 0.3, "prune_at": 1}}
    pruned = build(raw | {"model_name": "temporal_video_olmo"})
    plain = our_model()
    folder = as_published(write_folder(plain, tmp_path / "hf"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"pruning": {"topk": 0.3, "prune_at": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights_of(pruned).items():
        if "temporal_token_scorer" in name:
            rest = name.partition("temporal_token_scorer.")[2].replace("wq.", "q_proj.")
            weights[f"model.vision_tower.scoring.temporal_token_scorer.{rest}"] = tensor
    save_file(weights, folder / "model.safetensors")
    model = load_model(folder)
    assert type(model).__name__ == "TemporalVideoOlmoModel"
    vit = model.config.vision_backbone.vit
    assert (vit.topk, vit.prune_at) == (0.3, 1)
    assert not match_weights(folder, model).initialised
    scorer = model.vision_backbone.image_vit.scorer.state_dict()
    assert all(torch.equal(t, scorer[n]) for n, t in pruned.vision_backbone.image_vit.scorer.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type="llava"), "type 'llava', which is not Molmo2"),
        (lambda c: c.pop("text_config"), "text_config"),
        (lambda c: c["text_config"].pop("hidden_size"), "config.json lacks hidden_size"),
        (lambda c: c.update(image_patch_id=5), "image_patch_id 5"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, change, message):
    folder = as_published(write_folder(our_model(), tmp_path / "hf"))
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(OLMoCheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.something.else.weight", "1 unknown .model.something.else.weight"),
        ("model.language_model.norm.weight", "would both be transformer.ln_f.weight"),
    ],
)
def test_weights_that_do_not_belong(tmp_path, name, message):
    folder = write_folder(our_model(), tmp_path / "hf")
    save_file(load_file(folder / "model.safetensors") | {name: torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(OLMoCheckpointError, match=message):
        load_model(folder)


def test_special_tokens_stand_where_the_config_says():
    ids = to_hf_config(our_model().config)
    assert ids["image_patch_id"] == 1024 + list(SPECIAL_TOKENS).index("image_patch")
