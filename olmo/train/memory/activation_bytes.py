"""What every kind of layer keeps for its backward pass, in bytes per token (or per cell), for each mode of recomputation.

Read off the code of `olmo/nn`, product by product. The types matter as much as the shapes: under autocast a norm of the ViT keeps an
fp32 copy of its input, and each linear layer behind it a bf16 copy of its own.
"""

from dataclasses import dataclass, replace

from torch import nn

from olmo.nn.image_vit import VitConfig
from olmo.nn.llm_config import LlmConfig
from olmo.nn.lora import AdaptedLinear
from olmo.nn.vision_backbone import POOL_WIDTH, ImagePooling2D, ImageProjector, MolmoVisionBackboneConfig


@dataclass(frozen=True)
class Regime:
    """Bytes of a number, by what it is for."""

    compute: int
    """Results of matrix products."""
    residual: int
    """The residual stream of the decoder."""
    gathered: int = 4
    """Weights that are gathered from all ranks, and gradients on their way there."""
    copies: bool = False
    """Autocast keeps copies of fp32 weights in bf16."""
    sharded: bool = False
    """Weights are sharded, and gathered where they are needed."""
    on_gpu: bool = True

    @property
    def mask(self) -> int:
        """Bytes of an entry of a dropout mask."""
        return 1 if self.on_gpu else self.compute


@dataclass(frozen=True)
class Kept:
    """Bytes per token that a block keeps."""

    none: float
    """Without recomputation: everything."""
    selective: float
    """Its input and the results of matrix products and attention."""
    full: float
    """Its input."""
    widest: float
    """The largest result inside it: the backward pass holds gradients of that size."""

    def of(self, mode: str) -> float:
        return getattr(self, mode)

    def moment(self, mode: str) -> float:
        """What its backward pass needs beside what is kept: what it computes again, and gradients on their way."""
        return self.none - (self.selective if mode == "selective" else 0.0 if mode == "full" else self.none) + 2 * self.widest


def with_adapters(kept: Kept, block: nn.Module, regime: Regime) -> Kept:
    """What a block keeps whose linear layers may have low-rank adapters: their results are products too."""
    c, none, products = regime.compute, 0, 0
    for layer in block.modules():
        if isinstance(layer, AdaptedLinear):
            rank = layer.lora.a.shape[0]
            none += c * rank + ((c + regime.mask) * layer.in_features if layer.lora.dropout else 0)
            products += c * (rank + layer.out_features)
    return replace(kept, none=kept.none + none, selective=kept.selective + products)


def norm(width: int, regime: Regime) -> float:
    """An RMS norm over the decoder's stream with a linear layer behind it: its fp32 input, that scaled, and the layer's input."""
    stream = regime.residual
    return width * (4 + stream + regime.compute) + 4


def layer_norm(width: int, regime: Regime, linears: int) -> float:
    """A layer norm of the ViT: its fp32 input, statistics, and the input of each linear layer (one for all where nothing is cast)."""
    return 4 * width + 8 + (4 * width if regime.compute == 4 else regime.compute * width * linears)


def vit_block(vit: VitConfig, regime: Regime, biased: bool = False) -> Kept:
    """Per patch. `biased`: with the scores as one more channel of the keys."""
    c, dim, hidden = regime.compute, vit.image_emb_dim, vit.image_mlp_dim
    width, kv = (heads * vit.image_head_dim for heads in (vit.image_num_heads, vit.image_num_key_value_heads))
    attention = c * (2 * width + 2 * kv) + 4 * vit.image_num_heads
    if biased:
        padded = (vit.image_head_dim + 8) / vit.image_head_dim
        attention = attention * padded + c * width
    dropout = regime.mask * dim if vit.residual_dropout else 0
    none = layer_norm(dim, regime, 3) + attention + layer_norm(dim, regime, 1) + c * 2 * hidden + dropout
    products = attention + c * (dim + hidden + dim)
    return Kept(none, c * dim + products, c * dim, c * hidden)


def scorer_cell(vit: VitConfig, regime: Regime) -> Kept:
    """Per cell of a frame: its patches, pooled by attention, and the three layers that score pairs of cells."""
    c, dim, hidden = regime.compute, vit.image_emb_dim, vit.image_mlp_dim
    members = vit.pooling_h * vit.pooling_w
    pooled = c * dim * (members + 1) + c * dim * (2 * members + 2) + 4 * vit.image_num_heads
    similarity = 4 * dim * members if c == 2 else 0  # in fp32, where the stream is its own copy
    none = pooled + similarity + c * (2 * dim + 4 * hidden) + 4
    inputs = c * dim * members + similarity
    return Kept(none, inputs + c * (2 * dim * members + 3 * dim + 2 * hidden), inputs, c * dim * members)


def connector_cell(vision: MolmoVisionBackboneConfig, llm: LlmConfig, window: int, regime: Regime) -> Kept:
    """Per kept cell of `window` patches: the patches gathered for it, its pooling and its projection."""
    c, vit = regime.compute, vision.vit
    pool_dim = vit.image_emb_dim * len(vision.vit_layers)
    gathered = c * window * pool_dim + 16 * window + 8
    pooled, attention = pool_dim, 0.0
    if vision.image_pooling_2d != ImagePooling2D.mean:
        widen = POOL_WIDTH.get(vision.image_pooling_2d, 1)
        pooled = vit.image_emb_dim * widen
        width, kv = (heads * vit.image_head_dim * widen for heads in (vit.image_num_heads, vit.image_num_key_value_heads))
        attention = c * (pool_dim + 2 * width + 2 * window * kv) + 4 * vit.image_num_heads + 4 * window
    hidden = llm.hidden_size // 2 if vision.image_projector == ImageProjector.mlp else 0
    inputs = gathered + c * (pooled + (pool_dim if attention else 0))
    none = gathered + attention + c * (pooled + 4 * hidden)
    return Kept(none, inputs + attention + c * 3 * hidden, inputs, c * max(window * pool_dim, hidden))


def decoder_block(llm: LlmConfig, regime: Regime) -> Kept:
    """Per position."""
    c, r, dim, hidden = regime.compute, regime.residual, llm.d_model, llm.hidden_size
    width, kv = llm.n_heads * llm.head_size, llm.kv_heads * llm.head_size
    attention = c * (width + 2 * kv) + c * (width + kv) + 2 * c * width + 4 * llm.n_heads  # fused; rotated; result and its copy
    if llm.attention_layer_norm:
        heads = llm.n_heads + llm.kv_heads
        attention += (c + (4 if c == 2 else 0)) * (width + kv) + 4 * heads
    dropout = 2 * regime.mask * dim if llm.residual_dropout or llm.response_residual_dropout else 0
    none = norm(dim, regime) + attention + norm(dim, regime) + 2 * c * hidden + dropout
    products = c * (width + 2 * kv) + c * width + 4 * llm.n_heads + c * (dim + hidden + dim)
    return Kept(none, r * dim + products, r * dim, c * hidden)


def pixels(vit: VitConfig) -> int:
    """Bytes of a frame as it comes: uint8."""
    return vit.num_patches * vit.image_patch_size**2 * 3
