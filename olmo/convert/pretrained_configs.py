"""The config of a published language model or vision transformer, read from its Hugging Face folder.

It gives the shapes to convert to, it is printed for whoever writes a config around the weights, and it is compared with a
named config (`olmo/model_configs.py`): rotary bases and epsilons are in no tensor, so only this comparison sees that the
folder is of another model of the same size.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from olmo.exceptions import OLMoCheckpointError
from olmo.nn.image_vit import VisionBackboneType, VitConfig
from olmo.nn.llm_config import AttentionLayerNormType, LayerNormType, LlmConfig
from olmo.nn.rope import RopeType, inverse_frequencies
from olmo.tokenizer import TokenizerConfig

LANGUAGE = ("qwen3", "olmo3")
VISION = {
    **dict.fromkeys(("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model"), VisionBackboneType.siglip),
    **dict.fromkeys(("clip", "clip_vision_model"), VisionBackboneType.openai),
    "dinov2": VisionBackboneType.dino,
}
"""`model_type` of a vision model -> its family here."""


def config_of(folder: Path, settings: Any) -> LlmConfig | VitConfig:
    """Our config of the model in a folder."""
    if settings.model_type in LANGUAGE:
        return _language_config(folder, settings)
    if settings.model_type in VISION:
        return _vision_config(folder, getattr(settings, "vision_config", settings), VISION[settings.model_type])
    known = ", ".join([*LANGUAGE, *VISION])
    raise OLMoCheckpointError(f"{folder} holds a model of type '{settings.model_type}'; types that can be converted: {known}")


def _language_config(folder: Path, theirs: Any) -> LlmConfig:
    _only(folder, theirs, hidden_act="silu", attention_bias=False)
    olmo = theirs.model_type == "olmo3"
    heads = theirs.num_attention_heads
    rope, full = _rope(theirs)
    return LlmConfig(
        d_model=theirs.hidden_size,
        n_layers=theirs.num_hidden_layers,
        n_heads=heads,
        n_kv_heads=theirs.num_key_value_heads,
        head_dim=getattr(theirs, "head_dim", None) or theirs.hidden_size // heads,
        mlp_hidden_size=2 * theirs.intermediate_size,
        rope=True,
        **rope,
        full_attention_layers=full,
        layer_norm_type=LayerNormType.rms,
        layer_norm_eps=theirs.rms_norm_eps,
        include_bias=False,
        attention_layer_norm=True,
        attention_layer_norm_type=AttentionLayerNormType.olmo if olmo else AttentionLayerNormType.qwen3,
        norm_after=olmo,
        fix_pad_tokenizer=olmo,
        weight_tying=theirs.tie_word_embeddings,
        vocab_size=theirs.vocab_size,
        embedding_size=theirs.vocab_size,
        additional_vocab_size=128,
        embedding_dropout=0.0,
        residual_dropout=0.0,
        max_sequence_length=4096,
        tokenizer=TokenizerConfig(str(folder)),
    )


def _rope(theirs: Any) -> tuple[dict[str, Any], list[int] | None]:
    """Our rotary settings, and the layers that have them while the others rotate plainly (None = all)."""
    # Newer files have one block with the base inside (one per kind of layer for OLMo3), older ones a base and a block.
    blocks = getattr(theirs, "rope_parameters", None)
    if blocks is None:
        blocks = {"rope_theta": theirs.rope_theta, **(getattr(theirs, "rope_scaling", None) or {})}
    block = blocks.get("full_attention", blocks)
    kind = block.get("rope_type", block.get("type", "default"))
    fields: dict[str, Any] = {"rope_theta": float(block.get("rope_theta", getattr(theirs, "rope_theta", None) or 0))}
    if kind == "default":
        return fields, None
    if kind not in (RopeType.yarn, RopeType.llama3):
        raise OLMoCheckpointError(f"rotary frequencies of the kind '{kind}' are not supported; known: default, llama3, yarn")
    known = {
        "factor": "rope_factor",
        "attention_factor": "rope_attention_factor",
        "beta_fast": "rope_beta_fast",
        "beta_slow": "rope_beta_slow",
        "mscale": "rope_mscale",
        "mscale_all_dim": "rope_mscale_all_dim",
        "low_freq_factor": "rope_low_freq_factor",
        "high_freq_factor": "rope_high_freq_factor",
        "original_max_position_embeddings": "rope_original_max_position_embeddings",
        "truncate": "rope_truncate",
    }
    fields |= {"rope_type": RopeType(kind)} | {ours: block[name] for name, ours in known.items() if block.get(name) is not None}
    layers = getattr(theirs, "layer_types", None) if theirs.model_type == "olmo3" else None
    return fields, None if layers is None else [i for i, kind in enumerate(layers) if kind == "full_attention"]


def _vision_config(folder: Path, theirs: Any, family: VisionBackboneType) -> VitConfig:
    patch = theirs.patch_size
    num_patches = getattr(theirs, "num_patches", None)  # SigLIP2 of any aspect ratio has a table and no picture size
    side = int(num_patches**0.5) if num_patches is not None else theirs.image_size // patch
    dino = family == VisionBackboneType.dino
    if dino:
        _only(folder, theirs, use_swiglu_ffn=False, qkv_bias=True)
    kind = {"siglip": "siglip", "openai": "default", "dino": "dino"}[family]
    return VitConfig(
        image_model_type=family,
        image_default_input_size=[side * patch] * 2,
        image_patch_size=patch,
        image_pos_patch_size=patch,
        image_emb_dim=theirs.hidden_size,
        image_num_heads=theirs.num_attention_heads,
        image_num_key_value_heads=theirs.num_attention_heads,
        image_head_dim=theirs.hidden_size // theirs.num_attention_heads,
        image_num_layers=theirs.num_hidden_layers,
        image_mlp_dim=int(theirs.hidden_size * theirs.mlp_ratio) if dino else theirs.intermediate_size,
        image_mlp_activations=theirs.hidden_act,
        image_num_pos=side * side + (family != VisionBackboneType.siglip),
        image_norm_eps=theirs.layer_norm_eps,
        resize_mode=kind,
        normalize="openai" if family == VisionBackboneType.openai else kind,
    )


def _only(folder: Path, theirs: Any, **wanted: Any) -> None:
    for name, value in wanted.items():
        found = getattr(theirs, name, value)
        if found != value:
            raise OLMoCheckpointError(f"{folder} has {name} = {found} in its config.json; only {value} can be converted")


def fit_named(name: str, named: LlmConfig | VitConfig, found: LlmConfig | VitConfig, folder: Path) -> int:
    """Check that a folder holds the model of a named config; gives the blocks at its end that the named one leaves out."""
    if isinstance(named, LlmConfig) != isinstance(found, LlmConfig):
        kinds = ("a language model", "a vision transformer")
        ours, theirs = kinds if isinstance(named, LlmConfig) else kinds[::-1]
        raise OLMoCheckpointError(f"{name} is {ours}, but {folder} holds {theirs}")
    if isinstance(named, LlmConfig):
        rows, entries = named.embedding_rows, found.embedding_rows
        if rows != entries:
            raise OLMoCheckpointError(f"the vocabulary of {folder} has {entries} entries, but the embedding of {name} has {rows} rows")
        fields, extra = _LANGUAGE_FIELDS, 0
    else:
        fields = _VISION_FIELDS
        # Published CLIP towers are one block longer than the config: its last one is never used.
        extra = int(found.image_num_layers - named.image_num_layers == 1 and named.image_model_type == VisionBackboneType.openai)
        found = replace(found, image_num_layers=found.image_num_layers - extra)
    other = [f"{f} {getattr(found, f)}, not {getattr(named, f)}" for f in fields if getattr(found, f) != getattr(named, f)]
    if isinstance(named, LlmConfig):
        layers = [i for i in range(min(named.n_layers, found.n_layers)) if not _same_rotation(named, found, i)]
        bases = f"base {found.rope_theta:g}, not {named.rope_theta:g}" if found.rope_theta != named.rope_theta else "other scaling"
        other += [f"other rotary frequencies in {len(layers)} blocks ({bases})"] if layers else []
    if other:
        raise OLMoCheckpointError(f"{folder} is not the model {name}: it has {'; '.join(other)}")
    return extra


def _same_rotation(a: LlmConfig, b: LlmConfig, layer: int) -> bool:
    """The same angles, however they are written down."""
    (angles, amplitude), (others, other) = (inverse_frequencies(c.rope_settings(layer)) for c in (a, b))
    return angles.shape == others.shape and torch.allclose(angles, others) and math.isclose(amplitude, other, rel_tol=1e-6)


_LANGUAGE_FIELDS = (
    *("d_model", "n_layers", "n_heads", "kv_heads", "head_size", "hidden_size", "norm_eps", "norm_after", "attention_layer_norm_type"),
    "weight_tying",
)
_VISION_FIELDS = (
    *("image_model_type", "image_patch_size", "image_emb_dim", "image_num_heads", "image_num_layers", "image_mlp_dim"),
    *("image_mlp_activations", "image_norm_eps"),
)
"""What must be equal; sizes of pictures may differ (position embeddings are interpolated)."""
