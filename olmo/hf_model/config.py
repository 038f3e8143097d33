"""`config.json` of a Hugging Face folder <-> the `model` block of a `config.yaml`.

Two layouts are read: that of transformers' own class, which is also written, and that of the published folders, whose code
came along. What Hugging Face configs cannot say (how text is formatted, training settings) travels in a block `olmo` of our
own; without it the settings of the released models are assumed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from olmo.exceptions import OLMoCheckpointError, OLMoConfigurationError
from olmo.models.molmo2.config import Molmo2Config
from olmo.nn.attention_mask import BiDirectionalAttn
from olmo.nn.image_vit import VisionBackboneType
from olmo.nn.llm_config import LayerNormType, LlmConfig
from olmo.nn.rope import RopeType
from olmo.nn.vision_backbone import ImagePooling2D, ImageProjector

OWN_BLOCK = "olmo"
"""Key of `config.json` that holds our whole model config."""
PRUNED_MODEL_TYPE = "molmo2_stts"
MODEL_TYPES = ("molmo2", PRUNED_MODEL_TYPE)

_ROPE_KEYS = (
    "factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
    "mscale", "mscale_all_dim", "truncate",
)  # fmt: skip
PRUNING_KEYS = (
    "topk", "prune", "prune_method", "prune_at", "pruning_in_scorer", "sim_reg_loss_coefficient", "rescale_bias_min", "new_ref_threshold",
    "prune_from_frame",
)  # fmt: skip
"""Keys by which a config of unknown layout is recognised as that of a pruned model."""


# ---------------------------------------------------------------------------------------------- writing


def to_hf_config(config: Molmo2Config) -> dict[str, Any]:
    """The `config.json` of transformers' own class for a plain model; refuses models that this class cannot compute."""
    _check_expressible(config)
    backbone, llm = config.vision_backbone, config.llm
    vit, ids = backbone.vit, config.special_token_ids()
    dtype_free = {"initializer_range": llm.initializer_range}
    blocks = backbone.needed_blocks if backbone.skip_unused_layers else vit.image_num_layers
    attention = {
        "num_attention_heads": vit.image_num_heads,
        "num_key_value_heads": vit.image_num_key_value_heads,
        "head_dim": vit.image_head_dim,
        "attention_dropout": vit.attention_dropout,
    }
    return {
        "model_type": "molmo2",
        "architectures": ["Molmo2ForConditionalGeneration"],
        "dtype": "float32",
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": "molmo2_vision",
            "hidden_size": vit.image_emb_dim,
            "intermediate_size": vit.image_mlp_dim,
            "num_hidden_layers": blocks,
            **attention,
            "hidden_act": vit.image_mlp_activations,
            "layer_norm_eps": vit.image_norm_eps,
            "image_size": [int(side) for side in vit.image_default_input_size],
            "patch_size": vit.image_patch_size,
            "num_position_embeddings": vit.image_num_pos,
            "initializer_range": vit.initializer_range,
        },
        "adapter_config": {
            "model_type": "molmo2_adapter",
            "vision_feature_layer": list(backbone.layers),
            "hidden_size": vit.image_emb_dim,
            **attention,
            "hidden_act": "silu",
            "intermediate_size": llm.hidden_size // 2,
            "text_hidden_size": llm.d_model,
            **dtype_free,
        },
        "text_config": {
            "model_type": "molmo2_text",
            "hidden_size": llm.d_model,
            "num_attention_heads": llm.n_heads,
            "num_key_value_heads": llm.kv_heads,
            "head_dim": llm.head_size,
            "vocab_size": llm.embedding_rows,
            "additional_vocab_size": llm.additional_vocab_size,
            "attention_bias": llm.qkv_bias,
            "qk_norm_type": str(llm.attention_layer_norm_type),
            "num_hidden_layers": llm.n_layers,
            "intermediate_size": llm.hidden_size // 2,
            "hidden_act": "silu",
            "attention_dropout": llm.attention_dropout,
            "max_position_embeddings": llm.max_position_embeddings or llm.max_sequence_length,
            "rope_parameters": _rope_parameters(llm),
            "rope_scaling_layers": _scaled_layers(llm),
            "rms_norm_eps": llm.norm_eps,
            "norm_after": llm.norm_after,
            "tie_word_embeddings": False,
            **dtype_free,
        },
        "image_start_token_id": ids["image_start"],
        "low_res_image_start_token_id": ids["low_res_image_start"],
        "image_end_token_id": ids["image_end"],
        "image_patch_id": ids["image_patch"],
        "frame_start_token_id": ids["frame_start"],
        "frame_end_token_id": ids["frame_end"],
        **dtype_free,
        OWN_BLOCK: own_block(config),
    }


def own_block(config: Molmo2Config) -> dict[str, Any]:
    """Our whole model config as plain values; files named by `init_path` are on the machine of the training and stay there."""
    block = yaml.safe_load(config.to_yaml())
    block["llm"]["init_path"] = None
    if block["vision_backbone"] is not None:
        block["vision_backbone"]["vit"]["init_path"] = None
    return block


def _rope_parameters(llm: LlmConfig) -> dict[str, Any]:
    scaled = {} if llm.rope_type == RopeType.default else {k: getattr(llm, f"rope_{k}") for k in _ROPE_KEYS}
    given = {key: value for key, value in scaled.items() if value is not None}
    return {"rope_type": str(llm.rope_type), "rope_theta": llm.rope_theta, **given}


def _scaled_layers(llm: LlmConfig) -> list[int]:
    plain = LlmConfig(rope=True, rope_theta=llm.rope_theta, d_model=llm.d_model, n_heads=llm.n_heads, head_dim=llm.head_dim)
    if llm.rope_type == RopeType.default:
        return list(range(llm.n_layers))
    return [i for i in range(llm.n_layers) if llm.rope_settings(i) != plain.rope_settings(i)]


def _check_expressible(config: Molmo2Config) -> None:
    """Refuse what transformers' class would compute differently, naming the field."""
    if config.vision_backbone is None:
        raise OLMoConfigurationError("model.vision_backbone is null: the Hugging Face class of Molmo2 always has a vision tower")
    backbone, llm = config.vision_backbone, config.llm
    for name, value, only in (
        ("bi_directional_attn", config.bi_directional_attn, BiDirectionalAttn.image_tokens),
        ("vision_backbone.vit.image_model_type", backbone.vit.image_model_type, VisionBackboneType.siglip),
        ("vision_backbone.vit.image_num_pos", backbone.vit.image_num_pos, backbone.vit.num_patches),
        ("vision_backbone.vit.normalize", backbone.vit.normalize, "siglip"),
        ("vision_backbone.image_pooling_2d", backbone.image_pooling_2d, ImagePooling2D.attention_meanq),
        ("vision_backbone.pooling_attention_mask", backbone.pooling_attention_mask, True),
        ("vision_backbone.image_projector", backbone.image_projector, ImageProjector.mlp),
        ("vision_backbone.image_padding_embed", backbone.image_padding_embed, None),
        ("llm.layer_norm_type", llm.layer_norm_type, LayerNormType.rms),
        ("llm.layer_norm_with_affine", llm.layer_norm_with_affine, True),
        ("llm.attention_layer_norm", llm.attention_layer_norm, True),
        ("llm.attention_layer_norm_with_affine", llm.attention_layer_norm_with_affine, True),
        ("llm.include_bias", llm.include_bias, False),
        ("llm.norm_bias", llm.norm_bias, False),
        ("llm.clip_qkv", llm.clip_qkv, None),
        ("llm.scale_logits", llm.scale_logits, False),
        ("llm.normalize_input_embeds", llm.normalize_input_embeds, False),
        ("llm.can_predict_extra_tokens", llm.can_predict_extra_tokens, False),
    ):
        if value != only:
            raise OLMoConfigurationError(
                f"model.{name} is {value}: the Hugging Face class of Molmo2 computes {only} only, so this model cannot be exported to it"
            )
    if llm.additional_vocab_size is None:
        raise OLMoConfigurationError("model.llm.additional_vocab_size is null: the Hugging Face class of Molmo2 has rows for added tokens")


# ---------------------------------------------------------------------------------------------- reading


def from_hf_config(raw: Mapping[str, Any], *, processor: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{"model": {...}}` as in a `config.yaml`.

    `processor`: the folder's processor settings, where it has some. Weight tying is set to true: only the weights can say.
    """
    if isinstance(raw.get(OWN_BLOCK), Mapping):
        return {"model": dict(raw[OWN_BLOCK])}
    if raw.get("model_type") not in MODEL_TYPES:
        raise OLMoCheckpointError(
            f"config.json describes a model of type '{raw.get('model_type')}', which is not Molmo2 (known: {', '.join(MODEL_TYPES)})"
        )
    text, adapter = _block(raw, "text_config"), _block(raw, "adapter_config")
    vision = _block(raw, "vision_config" if "vision_config" in raw else "vit_config")
    pruning = dict(_find_pruning(raw))
    pruned = bool(pruning) or raw["model_type"] == PRUNED_MODEL_TYPE
    model = {
        "model_name": "temporal_video_olmo" if pruned else "video_olmo",
        "bi_directional_attn": "image_tokens",
        "llm": _llm(text),
        "vision_backbone": {
            "vit": _vit(vision, adapter) | pruning,
            "vit_layers": list(adapter.get("vision_feature_layer", adapter.get("vit_layers", []))),
            "pooling_attention_mask": adapter.get("pooling_attention_mask", True),
            "image_feature_dropout": adapter.get("image_feature_dropout", 0.0),
            "normalize_on_gpu": True,
        },
        "mm_preprocessor": _preprocessor(processor or {}),
        "data_formatter": {
            "prompt_templates": "uber_model_v2",
            "message_format": "qwen3",
            "system_prompt": "demo_or_style_v2",
            "pointing_format": "html-v2",
        },
    }
    _check_special_tokens(raw, model)
    return {"model": model}


def _block(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(raw.get(name), Mapping):
        raise OLMoCheckpointError(f"config.json has no block '{name}'")
    return raw[name]


def _get(block: Mapping[str, Any], *names: str) -> Any:
    """The value under the first of these names that is there: newer and older spellings."""
    for name in names:
        if name in block:
            return block[name]
    raise OLMoCheckpointError(f"config.json lacks {' or '.join(names)}")


def _llm(text: Mapping[str, Any]) -> dict[str, Any]:
    layers = text["num_hidden_layers"]
    rope = dict(text.get("rope_parameters") or {"rope_theta": text.get("rope_theta")} | dict(text.get("rope_scaling") or {}))
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaled = text.get("rope_scaling_layers")
    everywhere = kind == "default" or scaled is None or set(scaled) == set(range(layers))
    rows = _get(text, "vocab_size")
    return {
        "d_model": _get(text, "hidden_size"),
        "n_heads": _get(text, "num_attention_heads"),
        "n_kv_heads": _get(text, "num_key_value_heads"),
        "head_dim": _get(text, "head_dim"),
        "n_layers": layers,
        "mlp_hidden_size": 2 * _get(text, "intermediate_size"),
        "qkv_bias": _get(text, "attention_bias", "qkv_bias"),
        "include_bias": False,
        "rope": True,
        "rope_theta": _get(rope, "rope_theta"),
        "rope_type": kind,
        **{f"rope_{key}": rope[key] for key in _ROPE_KEYS if kind != "default" and rope.get(key) is not None},
        "full_attention_layers": None if everywhere else list(scaled),
        "attention_layer_norm": text.get("use_qk_norm", True),
        "attention_layer_norm_type": _get(text, "qk_norm_type"),
        "layer_norm_type": "rms",
        "layer_norm_eps": _get(text, "rms_norm_eps", "layer_norm_eps"),
        "norm_after": _get(text, "norm_after"),
        "vocab_size": rows,
        "embedding_size": rows,
        "additional_vocab_size": _get(text, "additional_vocab_size"),
        "max_sequence_length": _get(text, "max_position_embeddings"),
        "attention_dropout": text.get("attention_dropout", 0.0),
        "residual_dropout": text.get("residual_dropout", 0.0),
        "embedding_dropout": text.get("embedding_dropout", 0.0),
        "initializer_range": text.get("initializer_range", 0.02),
        "weight_tying": True,
    }


def _vit(vision: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, Any]:
    # Newer files count the blocks that are there and name features from the front, older ones count those of the whole ViT.
    return {
        "image_model_type": "siglip",
        "image_default_input_size": list(_get(vision, "image_size", "image_default_input_size")),
        "image_patch_size": _get(vision, "patch_size", "image_patch_size"),
        "image_pos_patch_size": _get(vision, "patch_size", "image_patch_size"),
        "image_emb_dim": _get(vision, "hidden_size"),
        "image_num_heads": _get(vision, "num_attention_heads"),
        "image_num_key_value_heads": _get(vision, "num_key_value_heads"),
        "image_num_layers": _get(vision, "num_hidden_layers"),
        "image_head_dim": _get(vision, "head_dim"),
        "image_mlp_dim": _get(vision, "intermediate_size"),
        "image_mlp_activations": _get(vision, "hidden_act"),
        "image_num_pos": _get(vision, "num_position_embeddings", "image_num_pos"),
        "image_norm_eps": _get(vision, "layer_norm_eps"),
        "attention_dropout": vision.get("attention_dropout", 0.0),
        "residual_dropout": vision.get("residual_dropout", 0.0),
        "initializer_range": vision.get("initializer_range", 0.02),
        "resize_mode": "siglip",
        "normalize": "siglip",
    }


def _find_pruning(node: Any) -> Iterator[tuple[str, Any]]:
    """Settings of pruning wherever they stand in a config: the layout of the released pruned models is not published."""
    if isinstance(node, Mapping) and "topk" in node:
        yield from ((key, node[key]) for key in PRUNING_KEYS if key in node)
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _find_pruning(value)


def _preprocessor(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Layout of images and videos: that of the released models, with the numbers that the folder's processor names."""
    image, video = processor.get("image_processor") or {}, processor.get("video_processor") or {}
    image_pool, video_pool = image.get("pooling_size") or [2, 2], video.get("pooling_size") or [3, 3]
    single_columns = processor.get("use_single_crop_col_tokens")
    return {
        "video": {
            "max_frames": video.get("num_frames") or 128,
            "frame_sample_mode": "uniform_last_frame",
            "max_fps": [float(video.get("max_fps") or 2.0)],
            "time_sampling": True,
            "time_mode": "per-frame-compact",
            "pooling_h": video_pool[0],
            "pooling_w": video_pool[1],
            "use_frame_special_tokens": processor.get("use_frame_special_tokens", True),
            "per_frame_special_token": True,
        },
        "image": {
            "crop_mode": "overlap-and-resize-c2",
            "max_crops": image.get("max_crops") or 8,
            "overlap_margins": list(image.get("overlap_margins") or [4, 4]),
            "pooling_h": image_pool[0],
            "pooling_w": image_pool[1],
            "multi_image_pooling_h": image_pool[0],
            "multi_image_pooling_w": image_pool[1],
            "use_col_tokens": processor.get("image_use_col_tokens", True),
            "use_single_crop_col_tokens": False if single_columns is None and not processor else single_columns,
            "use_single_crop_start_token": processor.get("use_single_crop_start_token", True),
            "max_images": 5,
            "max_multi_image_crops": image.get("max_crops") or 8,
        },
    }


def _check_special_tokens(raw: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Our special tokens follow the embedding in a fixed order; a folder with others could not be read right."""
    from olmo.tokenizer import SPECIAL_TOKENS

    names = {"image_start_token_id": "image_start", "image_patch_id": "image_patch", "frame_start_token_id": "frame_start"}
    order = list(SPECIAL_TOKENS)
    for key, name in names.items():
        expected = model["llm"]["vocab_size"] + order.index(name)
        if raw.get(key, expected) != expected:
            raise OLMoCheckpointError(f"config.json gives {key} {raw[key]}, but behind a vocabulary of this size it must be {expected}")
