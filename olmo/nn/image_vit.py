"""Vision transformers over flattened patches: SigLIP / SigLIP2, CLIP and DINOv2.

All three are the same stack of pre-norm blocks; they differ in the class token, an input norm, layer scale and biases.
The input is [frames, patches, patch * patch * 3] with patches row-major over the frame and channels fastest inside a
patch. There is no final norm: callers ask for the outputs of certain blocks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from olmo.config import BaseConfig, StrEnum
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.attention import KERNELS, Segments, attend, attend_segments
from olmo.nn.init import truncated_normal_
from olmo.pixels import PIXEL_STATISTICS


class VisionBackboneType(StrEnum):
    """Family of a ViT."""

    openai = "openai"
    siglip = "siglip"
    dino = "dino"


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}
"""MLP activations by their Hugging Face names."""


@dataclass
class VitConfig(BaseConfig):
    """A vision transformer, under the published key names."""

    image_model_type: VisionBackboneType = VisionBackboneType.openai
    """openai (CLIP), siglip (also SigLIP2) or dino."""
    image_default_input_size: list[int] = field(default_factory=lambda: [336, 336])
    """Height and width of a frame in pixels."""
    image_patch_size: int = 14
    """Side of a patch in pixels."""
    image_pos_patch_size: int = 14
    """Carried by published configs; nothing reads it."""
    image_emb_dim: int = 1024
    """Width D of the residual stream."""
    image_num_heads: int = 16
    """Query heads."""
    image_num_key_value_heads: int = 16
    """Key/value heads; must divide the query heads."""
    image_num_layers: int = 24
    """Blocks that the published ViT has; `vit_layers` counts from it and unused blocks at the end are not built."""
    image_head_dim: int = 64
    """Channels per head; heads * head_dim = D."""
    image_mlp_dim: int = 4096
    """Hidden width of the MLP."""
    image_mlp_activations: str = "gelu"
    """gelu, gelu_pytorch_tanh or quick_gelu."""
    image_dropout_rate: float = 0.0
    """Carried by published configs, always 0."""
    image_num_pos: int = 577
    """Rows of the position embedding, class token included."""
    image_norm_eps: float = 1e-5
    """Epsilon of the layer norms."""
    attention_dropout: float = 0.0
    """Dropout on attention weights while training."""
    residual_dropout: float = 0.0
    """Dropout on the output of every attention layer while training."""
    initializer_range: float = 0.02
    """Standard deviation of the attention weights at random initialisation."""
    patch_embedding_init_std: float = 0.02
    """Standard deviation of fresh patch embeddings."""
    positional_embedding_init_std: float | None = None
    """Standard deviation of fresh position embeddings; null = the published image_emb_dim ** -0.5. From random weights a tiny model
    learns where things are only if patches and positions are louder than what its first blocks add to them."""
    float32_attention: bool = True
    """Attend in fp32 when the model runs in half precision without autocast (under autocast attention is half)."""
    attention_type: str = "sdpa"
    """sdpa, or direct for the plain softmax formula."""
    sdpa_backend: str = "all"
    """SDPA kernels allowed on CUDA besides math: all, math, efficient, cudnn or flash."""
    activation_checkpointing: bool = True
    """Recompute every block in the backward pass instead of storing its activations."""
    init_path: str | None = None
    """File of pretrained weights; null starts from random ones."""
    resize_mode: str = "default"
    """How the preprocessor resizes frames: siglip, dino, metaclip, default, torch-bilinear."""
    pad_value: float = 0.0
    """Pixel value of the border that resize mode `default` pads with."""
    normalize: str = "openai"
    """Pixel statistics: openai, siglip or dino."""

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in raw.items() if k != "truncate_pos_ids"}

    @property
    def full_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that `image_default_input_size` holds."""
        height, width = self.image_default_input_size
        return height // self.image_patch_size, width // self.image_patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of the frames that the ViT gets."""
        return self.full_grid

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels of the frames that the ViT gets."""
        return self.grid[0] * self.image_patch_size, self.grid[1] * self.image_patch_size

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of the table of position embeddings: a square or, if there is none of that size, the full grid."""
        positions = self.image_num_pos - self.num_prefix_tokens
        side = math.isqrt(max(positions, 0))
        return (side, side) if side * side == positions else self.full_grid

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches in every block's output (the class token)."""
        return 0 if self.image_model_type == VisionBackboneType.siglip else 1

    @property
    def prune(self) -> bool:
        """Whether videos are to have fewer visual tokens, by whatever method; a plain ViT spares none."""
        return False

    @property
    def drops_cells(self) -> bool:
        """Whether cells of videos are dropped inside the model."""
        return False

    @property
    def sees_less(self) -> bool:
        """Whether tokens are spared by showing the model less (fewer or smaller frames), so that it drops none itself."""
        return self.prune and not self.drops_cells

    @property
    def thins_frames(self) -> bool:
        """Whether fewer of a video's sampled frames are looked at."""
        return False

    @property
    def has_scorer(self) -> bool:
        """Whether there is a learned scorer of cells."""
        return False

    @property
    def packs(self) -> bool:
        """Whether the ViT itself gets faster by pruning: its later blocks run on kept patches only."""
        return False

    @property
    def varlen_backend(self) -> str:
        """Backend choice handed to `attend_segments`."""
        return "auto"

    @property
    def kernels(self) -> str:
        """Kernel choice handed to `attend`."""
        return "math" if self.attention_type == "direct" else self.sdpa_backend

    def validate(self) -> None:
        """Refuse settings that cannot be built."""
        if self.image_num_heads * self.image_head_dim != self.image_emb_dim:
            raise OLMoConfigurationError(
                f"vit.image_num_heads * vit.image_head_dim = {self.image_num_heads * self.image_head_dim} must equal "
                f"vit.image_emb_dim = {self.image_emb_dim}"
            )
        if self.image_num_heads % self.image_num_key_value_heads:
            raise OLMoConfigurationError(
                f"vit.image_num_key_value_heads = {self.image_num_key_value_heads} must divide vit.image_num_heads = {self.image_num_heads}"
            )
        if any(side % self.image_patch_size for side in self.image_default_input_size):
            raise OLMoConfigurationError(
                f"vit.image_default_input_size = {list(self.image_default_input_size)} must be multiples of "
                f"vit.image_patch_size = {self.image_patch_size}"
            )
        for name, known in (("image_mlp_activations", ACTIVATIONS), ("sdpa_backend", KERNELS), ("normalize", PIXEL_STATISTICS)):
            if getattr(self, name) not in known:
                raise OLMoConfigurationError(f"vit.{name} = '{getattr(self, name)}' is unknown; known: {', '.join(known)}")
        positions, (rows, columns) = self.image_num_pos - self.num_prefix_tokens, self.position_grid
        if positions != rows * columns:
            raise OLMoConfigurationError(
                f"vit.image_num_pos = {self.image_num_pos} gives {positions} patch positions, which is neither the grid "
                f"{rows} x {columns} nor a square that could be interpolated to it"
            )
        if self.attention_type not in ("sdpa", "direct"):
            raise OLMoConfigurationError(f"vit.attention_type = '{self.attention_type}' is unknown; known: sdpa, direct")
        if self.image_dropout_rate:
            raise OLMoConfigurationError(f"vit.image_dropout_rate = {self.image_dropout_rate} must be 0: no published ViT uses it")

    @property
    def vit_class(self) -> type["ImageVit"]:
        """The module that this config describes."""
        return VIT_CLASSES[self.image_model_type]

    def build(self, num_blocks: int | None = None) -> "ImageVit":
        """Build the ViT with its first `num_blocks` blocks (all of them by default)."""
        self.validate()
        return self.vit_class(self, self.image_num_layers if num_blocks is None else num_blocks)


class VitAttention(nn.Module):
    """Multi-head attention of the ViT; the pooler and the scorer use the same module with other widths."""

    def __init__(self, config: VitConfig, in_dim: int | None = None, widen: int = 1):
        super().__init__()
        self.config = config
        self.heads, self.kv_heads, self.head_dim = config.image_num_heads, config.image_num_key_value_heads, config.image_head_dim * widen
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        in_dim = config.image_emb_dim if in_dim is None else in_dim
        self.wq = nn.Linear(in_dim, width)
        self.wk = nn.Linear(in_dim, kv_width)
        self.wv = nn.Linear(in_dim, kv_width)
        self.wo = nn.Linear(width, config.image_emb_dim * widen)

    def reset_parameters(self) -> None:
        for linear in (self.wq, self.wk, self.wv, self.wo):
            nn.init.normal_(linear.weight, std=self.config.initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Tensor,
        kv: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        key_bias: Tensor | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """x: [B, S, in] attends to kv: [B, S', in] (itself by default); with `segments`, x is a flat run [T, in]."""
        kv = x if kv is None else kv
        q = self.wq(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.wk(kv).unflatten(-1, (self.kv_heads, self.head_dim))
        v = self.wv(kv).unflatten(-1, (self.kv_heads, self.head_dim))
        dtype = q.dtype
        if self.config.float32_attention and not torch.is_autocast_enabled(x.device.type) and dtype in (torch.bfloat16, torch.float16):
            q, k, v = q.float(), k.float(), v.float()
        if segments is not None:
            out = attend_segments(q, k, v, segments, key_bias=key_bias, backend=self.config.varlen_backend)
        else:
            dropout = self.config.attention_dropout if self.training else 0.0
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, heads, S, hd]
            out = attend(q, k, v, mask=mask, key_bias=key_bias, dropout=dropout, kernels=self.config.kernels).transpose(1, 2)
        out = self.wo(out.to(dtype).flatten(-2))
        return F.dropout(out, self.config.residual_dropout, self.training)


class VitMlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: VitConfig):
        super().__init__()
        self.act = ACTIVATIONS[config.image_mlp_activations]
        self.w1 = nn.Linear(config.image_emb_dim, config.image_mlp_dim)
        self.w2 = nn.Linear(config.image_mlp_dim, config.image_emb_dim)

    def reset_parameters(self) -> None:
        for linear in (self.w1, self.w2):
            trunc_normal_fan_in(linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.act(self.w1(x)))


def trunc_normal_fan_in(linear: nn.Linear) -> None:
    """Weight truncated-normal with standard deviation 1 / sqrt(inputs), cut at +-2; bias zero."""
    truncated_normal_(linear.weight, std=1 / math.sqrt(linear.in_features), bound=2.0)
    nn.init.zeros_(linear.bias)


class VitBlock(nn.Module):
    """Pre-norm block. Runs on dense frames [F, N, D] or, with `segments`, on a flat run of patches [T, D]."""

    def __init__(self, config: VitConfig):
        super().__init__()
        self.attention = VitAttention(config)
        self.feed_forward = VitMlp(config)
        self.attention_norm = nn.LayerNorm(config.image_emb_dim, eps=config.image_norm_eps)
        self.ffn_norm = nn.LayerNorm(config.image_emb_dim, eps=config.image_norm_eps)

    def reset_parameters(self) -> None:
        for module in self.children():
            module.reset_parameters()

    def forward(self, x: Tensor, *, mask: Tensor | None = None, key_bias: Tensor | None = None, segments: Segments | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask=mask, key_bias=key_bias, segments=segments)
        return x + self.feed_forward(self.ffn_norm(x))


class DinoBlock(VitBlock):
    """Block with a learned scale per channel on each branch."""

    def __init__(self, config: VitConfig):
        super().__init__(config)
        self.lambda1 = nn.Parameter(torch.ones(config.image_emb_dim))
        self.lambda2 = nn.Parameter(torch.ones(config.image_emb_dim))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.ones_(self.lambda1)
        nn.init.ones_(self.lambda2)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, key_bias: Tensor | None = None, segments: Segments | None = None) -> Tensor:
        x = x + self.lambda1 * self.attention(self.attention_norm(x), mask=mask, key_bias=key_bias, segments=segments)
        return x + self.lambda2 * self.feed_forward(self.ffn_norm(x))


class ImageVit(nn.Module):
    """What the three families share; a subclass sets the class attributes."""

    block_class: type[VitBlock] = VitBlock
    patch_bias = True
    pre_norm = False

    def __init__(self, config: VitConfig, num_blocks: int):
        super().__init__()
        self.config = config
        dim = config.image_emb_dim
        self.patch_embedding = nn.Linear(config.image_patch_size**2 * 3, dim, bias=self.patch_bias)
        self.positional_embedding = nn.Parameter(torch.zeros(config.image_num_pos, dim))
        self.class_embedding = nn.Parameter(torch.zeros(dim)) if config.num_prefix_tokens else None
        self.pre_ln = nn.LayerNorm(dim, eps=config.image_norm_eps) if self.pre_norm else None
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(self.block_class(config) for _ in range(num_blocks))})

    @property
    def blocks(self) -> nn.ModuleList:
        return self.transformer["resblocks"]

    def reset_parameters(self) -> None:
        """Random initialisation; works on parameters whose memory was only allocated."""
        std = self.config.image_emb_dim**-0.5
        loudness = self.config.positional_embedding_init_std
        nn.init.normal_(self.positional_embedding, std=std if loudness is None else loudness)
        if self.class_embedding is not None:
            nn.init.normal_(self.class_embedding, std=std)
        nn.init.normal_(self.patch_embedding.weight, std=self.config.patch_embedding_init_std)
        if self.patch_embedding.bias is not None:
            nn.init.zeros_(self.patch_embedding.bias)
        if self.pre_ln is not None:
            self.pre_ln.reset_parameters()
        for block in self.blocks:
            block.reset_parameters()

    def position_embedding(self) -> Tensor:
        """[tokens, D] for the grid of the frames; a table of another size is interpolated."""
        if self.config.position_grid == self.config.grid:
            return self.positional_embedding
        prefix, patches = self.positional_embedding.tensor_split([self.config.num_prefix_tokens])
        table = patches.float().unflatten(0, self.config.position_grid)[None].permute(0, 3, 1, 2)
        table = F.interpolate(table, size=self.config.grid, mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([prefix, table[0].flatten(1).T.to(prefix.dtype)])

    def embed(self, x: Tensor) -> Tensor:
        """Patches [F, N, px] to the input of block 0, [F, prefix + N, D]."""
        if x.shape[1] != self.config.num_patches:
            raise OLMoConfigurationError(
                f"frames come with {x.shape[1]} patches, but vit.image_default_input_size = {list(self.config.input_size)} "
                f"and vit.image_patch_size = {self.config.image_patch_size} make {self.config.num_patches}"
            )
        x = self.patch_embedding(x.to(self.patch_embedding.weight.dtype))
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        x = x + self.position_embedding().to(x.dtype)
        return x if self.pre_ln is None else self.pre_ln(x)

    def forward(self, x: Tensor, layers: Iterable[int] | None = None) -> dict[int, Tensor]:
        """Outputs [F, prefix + N, D] of the blocks in `layers` (all by default); later blocks do not run."""
        wanted = set(range(len(self.blocks)) if layers is None else layers)
        hidden = {}
        x = self.embed(x)
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x)
            if i in wanted:
                hidden[i] = x
        return hidden


class VisionTransformer(ImageVit):
    """CLIP: class token, a norm before the blocks, patches embedded without bias."""

    patch_bias = False
    pre_norm = True


class SiglipVisionTransformer(ImageVit):
    """SigLIP and SigLIP2: patches only."""


class DinoVisionTransformer(ImageVit):
    """DINOv2: class token and layer scale."""

    block_class = DinoBlock


VIT_CLASSES: dict[VisionBackboneType, type[ImageVit]] = {
    VisionBackboneType.openai: VisionTransformer,
    VisionBackboneType.siglip: SiglipVisionTransformer,
    VisionBackboneType.dino: DinoVisionTransformer,
}


def normalize_pixels(patches: Tensor, mode: str) -> Tensor:
    """uint8 patches [..., patch * patch * 3] to the model's float32 input; float patches are normalised already."""
    if patches.dtype != torch.uint8:
        return patches
    x = patches.float() / 255
    if mode == "siglip":
        return x * 2 - 1
    mean, std = (torch.tensor(s, device=x.device).repeat(x.shape[-1] // 3) for s in PIXEL_STATISTICS[mode])
    return (x - mean) / std
