"""The one flat model block of the oldest config files, taken apart into today's blocks.

Such files have no `llm`: keys of the language model, of the preprocessing and of the prompts stand side by side, and the
keys of the ViT stand among those of the connector.
"""

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from olmo.exceptions import OLMoConfigurationError
from olmo.nn.llm_config import LlmConfig
from olmo.preprocessing.formatter import DataFormatterConfig

_RENAMED = {
    "system_prompt_kind": "system_prompt",
    "prompt_type": "prompt_templates",
    "message_formatting": "message_format",
    "multi_annotation_weighting": "loss_token_weighting",
}
_OF_THE_CONNECTOR = (
    *("image_padding_embed", "vit_layers", "image_pooling_h", "image_pooling_w", "image_pooling_2d"),
    *("image_feature_dropout", "image_projector"),
)
_GONE = {
    "block_group_size": 1,
    "alibi": False,
    "rope_impl": "llama",
    "response_attention_dropout": 0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "do_random_scale": False,
    "fix_image_input_idx": 2,
    "unconditioned": False,
    "use_cls_feature": False,
    "pad_to": None,
    "pad_value": 0,
    "gin_bindings": None,
    "prompt_override": None,
    "multi_query_attention": None,
    "pad_tokenizer": True,
}
"""Keys that nothing implements any more -> the only value that may have been set."""
_WITHOUT_EFFECT = (
    *("alibi_bias_max", "low_cpu_fsdp", "pad_token_id", "bos_token_id", "init_device", "precision", "query_pre_attn_scalar", "fsdp_wrap"),
    "legacy_image_mask",
)
_GONE_OF_THE_TOKENIZER = ("truncate_direction", "olmo_bos_token_id", "olmo_eos_token_id")


def split_flat_config(
    raw: dict[str, Any], vision: type, preprocessor: type, kept: Collection[str], older: Collection[str]
) -> dict[str, Any]:
    """The block with `llm`, `vision_backbone`, `mm_preprocessor` and `data_formatter`.

    `vision`, `preprocessor`: the config classes of these blocks; `kept`: keys that stay on the top level; `older`: further
    keys of the preprocessor, which its own migration looks at.
    """
    raw = {_RENAMED.get(key, key): value for key, value in raw.items()}
    for key, allowed in _GONE.items():
        if (value := raw.pop(key, allowed)) != allowed:
            raise OLMoConfigurationError(f"model.{key} {value} of an older config is not supported; it must be {allowed}")
    for key in _WITHOUT_EFFECT:
        raw.pop(key, None)
    llm_path, vit_path = raw.pop("llm_load_path", None), raw.pop("vit_load_path", None)
    blocks: dict[str, dict[str, Any]] = {name: dict(raw.pop(name, None) or {}) for name in ("mm_preprocessor", "data_formatter")}
    blocks["llm"] = {"tokenizer": _tokenizer(raw.pop("tokenizer", None) or {})}
    if llm_path is not None:
        blocks["llm"]["init_path"] = llm_path
    backbone = _backbone(raw, vision, vit_path)
    owners = {
        "llm": _names(LlmConfig),
        "mm_preprocessor": _names(preprocessor) | {*preprocessor._key_aliases, *older},
        "data_formatter": _names(DataFormatterConfig),
    }
    top: dict[str, Any] = {}
    for key, value in raw.items():
        owner = None if key in kept else next((name for name, known in owners.items() if key in known), None)
        # What nobody declares stays where it is, for the error that names unknown keys.
        (top if owner is None else blocks[owner])[key] = value
    return top | blocks | {"vision_backbone": backbone}


def _names(cls: type) -> set[str]:
    return {f.name for f in fields(cls)}


def _tokenizer(raw: dict[str, Any]) -> dict[str, Any]:
    raw = {k: v for k, v in raw.items() if k not in _GONE_OF_THE_TOKENIZER}
    if raw.pop("tokenizer_adds_space", False):
        raise OLMoConfigurationError("model.tokenizer.tokenizer_adds_space of an older config must be false")
    if isinstance(raw.get("identifier"), str):
        raw["identifier"] = raw["identifier"].removeprefix("mm:").removeprefix("hf-")
    return raw


def _backbone(raw: dict[str, Any], vision: type, vit_path: str | None) -> dict[str, Any] | None:
    """The vision block; takes its keys out of `raw`. These models computed all blocks of the ViT."""
    moved = {key: raw.pop(key) for key in _OF_THE_CONNECTOR if key in raw}
    flat = raw.pop("vision_backbone", None)
    if flat is None:
        return None
    vit_class = next(f.default_factory for f in fields(vision) if f.name == "vit")
    own = _names(vision)
    vit = {key: value for key, value in flat.items() if key in _names(vit_class) | {"truncate_pos_ids"} and key not in own}
    rest = {key: value for key, value in flat.items() if key not in vit}
    vit |= dict(rest.pop("vit", None) or {})
    if vit_path is not None:
        vit["init_path"] = vit_path
    return {**moved, **rest, "vit": vit, "skip_unused_layers": False}
