"""Names of weights: ours, and the two spellings of Hugging Face folders.

Published folders, and those that transformers writes, keep our tensors almost as they are (`model.transformer.blocks.0...`).
The modules of transformers' own class have other names, with split projections and one embedding for all tokens
(`model.language_model.layers.0.self_attn.q_proj...`); state dicts and some tools write those. Both are read; the first is written.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from olmo.exceptions import OLMoCheckpointError
from olmo.weights import scorer_name

EMBEDDING, NEW_EMBEDDING, HEAD = "transformer.wte.embedding", "transformer.wte.new_embedding", "transformer.ff_out.weight"
LM_HEAD = "lm_head.weight"
FUSED_EMBEDDING = "model.language_model.embed_tokens.weight"

_ATTENTION, _MLP = ("att_proj", "attn_out", "q_norm", "k_norm"), ("ff_proj", "ff_out")
_BLOCK = re.compile(r"transformer\.blocks\.(\d+)\.(\w+)\.(\w+)")
_STORED_BLOCK = re.compile(r"transformer\.blocks\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.(\w+)")


def stored_name(name: str) -> str:
    """Our name -> the name in Hugging Face files."""
    if name.startswith("transformer.ff_out."):
        return name.replace("transformer.ff_out", "lm_head")
    if found := _BLOCK.fullmatch(name):
        layer, module, kind = found.groups()
        inner = "self_attn." if module in _ATTENTION else "mlp." if module in _MLP else ""
        return f"model.transformer.blocks.{layer}.{inner}{module}.{kind}"
    return f"model.{name}"


@dataclass(frozen=True)
class Stored:
    """How one of our tensors lies in the files: the rows of some stored tensors, one below the other."""

    names: tuple[str, ...]
    """The stored tensors."""
    rows: tuple[int, int | None] | None = None
    """First and last (excluded) of their rows together; None = all."""


# Modules of transformers' own class -> (our module, place among the parts of a fused one).
_LAYER = {
    "self_attn.q_proj": ("att_proj", 0), "self_attn.k_proj": ("att_proj", 1), "self_attn.v_proj": ("att_proj", 2),
    "self_attn.o_proj": ("attn_out", 0), "self_attn.q_norm": ("q_norm", 0), "self_attn.k_norm": ("k_norm", 0),
    "mlp.up_proj": ("ff_proj", 0), "mlp.gate_proj": ("ff_proj", 1), "mlp.down_proj": ("ff_out", 0),
    "input_layernorm": ("attn_norm", 0), "post_attention_layernorm": ("ff_norm", 0),
}  # fmt: skip
_VIT_LAYER = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.fc1": "feed_forward.w1", "mlp.fc2": "feed_forward.w2", "layer_norm1": "attention_norm",
    "layer_norm2": "ffn_norm",
}  # fmt: skip
_CONNECTOR = {
    "image_pooling_2d.q_proj": "image_pooling_2d.wq", "image_pooling_2d.k_proj": "image_pooling_2d.wk",
    "image_pooling_2d.v_proj": "image_pooling_2d.wv", "image_pooling_2d.o_proj": "image_pooling_2d.wo",
    "image_projector.gate_proj": "image_projector.w1", "image_projector.down_proj": "image_projector.w2",
    "image_projector.up_proj": "image_projector.w3",
}  # fmt: skip


def our_name(stored: str) -> tuple[str, int] | None:
    """A stored name of either spelling -> (our name, place among the parts that make up our tensor); None if it is no weight of ours."""
    if (scorer := scorer_name(stored)) is not None:
        return scorer, 0
    if stored.startswith("lm_head."):
        return stored.replace("lm_head", "transformer.ff_out"), 0
    if not stored.startswith("model."):
        return None
    name = stored.removeprefix("model.")
    if name.startswith(("transformer.", "vision_backbone.")):
        found = _STORED_BLOCK.fullmatch(name)
        return (name if found is None else "transformer.blocks.{}.{}.{}".format(*found.groups())), 0
    module, _, kind = name.rpartition(".")
    return _from_module(module, kind)


def _from_module(module: str, kind: str) -> tuple[str, int] | None:
    if module == "language_model.norm":
        return f"transformer.ln_f.{kind}", 0
    if found := re.fullmatch(r"language_model\.layers\.(\d+)\.(.+)", module):
        ours = _LAYER.get(found[2])
        return None if ours is None else (f"transformer.blocks.{found[1]}.{ours[0]}.{kind}", ours[1])
    if found := re.fullmatch(r"vision_tower\.layers\.(\d+)\.(.+)", module):
        ours = _VIT_LAYER.get(found[2])
        return None if ours is None else (f"vision_backbone.image_vit.transformer.resblocks.{found[1]}.{ours}.{kind}", 0)
    if module == "vision_tower" and kind == "positional_embedding":
        return "vision_backbone.image_vit.positional_embedding", 0
    if module == "vision_tower.patch_embedding":
        return f"vision_backbone.image_vit.patch_embedding.{kind}", 0
    if module.startswith("multi_modal_projector.") and (ours := _CONNECTOR.get(module.removeprefix("multi_modal_projector."))):
        return f"vision_backbone.{ours}.{kind}", 0
    return None


def correspondence(stored: Iterable[str], embedding_rows: int) -> tuple[dict[str, Stored], list[str]]:
    """(our name -> where it lies, stored names that are no weights of ours).

    The embedding and its added rows are taken together and cut again at `embedding_rows`: transformers keeps them as one
    and writes two halves of equal size, whatever the sizes were.
    """
    parts: dict[str, dict[int, str]] = {}
    unknown = []
    for name in stored:
        ours = (EMBEDDING, 0) if name == FUSED_EMBEDDING else our_name(name)
        if ours is None:
            unknown.append(name)
            continue
        others = parts.setdefault(ours[0], {})
        if ours[1] in others:
            raise OLMoCheckpointError(f"the weights {others[ours[1]]} and {name} would both be {ours[0]}")
        others[ours[1]] = name
    table = {ours: Stored(tuple(names[i] for i in sorted(names))) for ours, names in parts.items()}
    if EMBEDDING in table:
        names = table[EMBEDDING].names + (table[NEW_EMBEDDING].names if NEW_EMBEDDING in table else ())
        table[EMBEDDING] = Stored(names, (0, embedding_rows))
        table[NEW_EMBEDDING] = Stored(names, (embedding_rows, None))
    return table, unknown


def stored_shape(stored: Stored, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of our tensor, from the shapes of what is stored."""
    first = shapes[stored.names[0]]
    if len(stored.names) == 1 and stored.rows is None:
        return first
    rows = range(sum(shapes[name][0] for name in stored.names))
    return (len(rows if stored.rows is None else rows[slice(*stored.rows)]), *first[1:])
