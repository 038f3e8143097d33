"""How the tensors of published language models and vision transformers become ours: names, fused rows, layouts.

A recipe says which stored tensors one of ours is made of. Recipes are made from names and shapes alone, so that a wrong
file is refused before anything is read.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from olmo.checkpoints.fit import fold
from olmo.exceptions import OLMoCheckpointError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recipe:
    """One of our tensors: stored ones stacked along their rows, then laid out differently."""

    parts: tuple[str, ...]
    """Stored names."""
    layout: Callable[[torch.Tensor], torch.Tensor] | None = None

    def make(self, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
        parts = [read(name) for name in self.parts]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole if self.layout is None else self.layout(whole)

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return tuple(self.make(lambda name: torch.empty(shapes[name], device="meta")).shape)


# ---------------------------------------------------------------------------------------------- language models

_NORMS = {
    "qwen3": {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm"},
    "olmo3": {"attn_norm": "post_attention_layernorm", "ff_norm": "post_feedforward_layernorm"},
}
"""Our norms of a block -> theirs; OLMo3 norms what a branch gives instead of what it gets."""


def language_recipes(stored: Shapes, family: str, layers: int, tied: bool) -> dict[str, Recipe]:
    """Recipes of Qwen3 or OLMo3 under our names, `transformer.` in front. Every stored tensor must have its place."""
    root = "model." if any(name.startswith("model.") for name in stored) else ""
    recipes = {
        "transformer.wte.embedding": Recipe((f"{root}embed_tokens.weight",)),
        "transformer.ln_f.weight": Recipe((f"{root}norm.weight",)),
    }
    for i in range(layers):
        ours, theirs = f"transformer.blocks.{i}", f"{root}layers.{i}"
        recipes[f"{ours}.att_proj.weight"] = Recipe(tuple(f"{theirs}.self_attn.{p}_proj.weight" for p in "qkv"))
        recipes[f"{ours}.attn_out.weight"] = Recipe((f"{theirs}.self_attn.o_proj.weight",))
        recipes[f"{ours}.ff_proj.weight"] = Recipe((f"{theirs}.mlp.up_proj.weight", f"{theirs}.mlp.gate_proj.weight"))
        recipes[f"{ours}.ff_out.weight"] = Recipe((f"{theirs}.mlp.down_proj.weight",))
        for name in ("q_norm", "k_norm"):
            recipes[f"{ours}.{name}.weight"] = Recipe((f"{theirs}.self_attn.{name}.weight",))
        for norm, name in _NORMS[family].items():
            recipes[f"{ours}.{norm}.weight"] = Recipe((f"{theirs}.{name}.weight",))
    if not tied:
        recipes["transformer.ff_out.weight"] = Recipe(("lm_head.weight",))
    _check_parts(recipes, stored, ignored={"lm_head.weight"} if tied else set())
    return recipes


# ---------------------------------------------------------------------------------------------- vision transformers

_IGNORED = re.compile(
    r"text_model\.|(visual|text)_projection\.|logit_(scale|bias)$|(vision_model\.)?(post_layernorm|head)\.|(dinov2\.)?(layernorm\.|embeddings\.mask_token$)"
    r"|classifier\.|.*\.position_ids$"
)
"""What a whole image-text model or a classifier has around its vision tower, and what follows the tower's last block."""

_RENAMES = [
    (re.compile(pattern), ours)
    for pattern, ours in [
        (r"^(vision_model|dinov2)\.", ""),
        (r"^embeddings\.patch_embeddings?\.(projection\.)?", "patch_embedding."),
        (r"^embeddings\.position_embeddings?(\.weight)?$", "positional_embedding"),
        (r"^embeddings\.(class_embedding|cls_token)$", "class_embedding"),
        (r"^pre_layrnorm\.", "pre_ln."),
        (r"^encoder\.layers?\.", "transformer.resblocks."),
        (r"\.(self_attn|attention\.attention|attention\.output)\.", ".attention."),
        (r"\.attention\.(q_proj|query)\.", ".attention.wq."),
        (r"\.attention\.(k_proj|key)\.", ".attention.wk."),
        (r"\.attention\.(v_proj|value)\.", ".attention.wv."),
        (r"\.attention\.(out_proj|dense)\.", ".attention.wo."),
        (r"\.mlp\.fc([12])\.", r".feed_forward.w\1."),
        (r"\.(layer_norm|norm)1\.", ".attention_norm."),
        (r"\.(layer_norm|norm)2\.", ".ffn_norm."),
        (r"\.layer_scale([12])\.lambda1$", r".lambda\1"),
    ]
]
"""Spellings of CLIP, SigLIP, SigLIP2 and DINOv2 -> ours, applied in this order."""

_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")


def vision_recipes(stored: Shapes, layers: int, extra_layers: int, num_prefix: int, grid: tuple[int, int]) -> dict[str, Recipe]:
    """Recipes of a vision tower: its first `layers` blocks; `extra_layers` more at its end may be left out."""
    recipes, surplus = {}, []
    for name in stored:
        if _IGNORED.match(name):
            continue
        ours = name
        for pattern, replacement in _RENAMES:
            ours = pattern.sub(replacement, ours)
        block = _BLOCK.match(ours)
        if block and int(block[1]) >= layers:
            if int(block[1]) >= layers + extra_layers:
                surplus.append(name)
            continue
        layout = None
        if ours == "patch_embedding.weight":
            layout = channels_last
        elif ours == "class_embedding":
            layout = torch.flatten
        elif ours == "positional_embedding":
            layout = _Positions(num_prefix, grid)
        recipes[ours] = Recipe((name,), layout)
    if surplus:
        raise OLMoCheckpointError(f"{len(surplus)} of the stored weights belong to blocks beyond the {layers} wanted ({fold(surplus)})")
    return recipes


def channels_last(weight: torch.Tensor) -> torch.Tensor:
    """A convolution [D, 3, p, p] as a linear layer [D, p * p * 3] on patches whose channels lie together (SigLIP2 has one already)."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


@dataclass(frozen=True)
class _Positions:
    """The position embedding as a table [prefix + patches, D], interpolated where the grid is another one."""

    num_prefix: int
    grid: tuple[int, int]

    def __call__(self, table: torch.Tensor) -> torch.Tensor:
        table = table.reshape(-1, table.shape[-1])
        prefix, patches = table[: self.num_prefix], table[self.num_prefix :]
        rows, columns = self.grid
        side = math.isqrt(len(patches))
        if len(patches) == rows * columns or side * side != len(patches):
            return table
        square = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        # A factor with a little added, as DINOv2 itself does it: the size is never one too small through rounding.
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([prefix.float(), resized[0].flatten(1).T])


def _check_parts(recipes: Mapping[str, Recipe], stored: Shapes, ignored: set[str]) -> None:
    used = {name for recipe in recipes.values() for name in recipe.parts}
    missing = [name for recipe in recipes.values() for name in recipe.parts if name not in stored]
    # Older files carry the frequencies of the rotary embedding, which are computed here.
    left = [name for name in stored if name not in used | ignored and not name.endswith("rotary_emb.inv_freq")]
    problems = [
        *([f"{len(missing)} missing ({fold(missing)})"] if missing else []),
        *([f"{len(left)} without a place in our model ({fold(left)})"] if left else []),
    ]
    if problems:
        raise OLMoCheckpointError(f"of the stored weights {'; '.join(problems)}")
