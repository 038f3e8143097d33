"""Every block of the ViT families against transformers' towers, in the geometry of the released ones (27 x 27 patches, heads of 72).

Seen to fail with: exact gelu for quick_gelu, the pre-norm left out, lambda1 and lambda2 swapped, patches with columns before rows.
"""

import re
from dataclasses import replace

import pytest
import torch

from olmo.model_configs import VITS
from olmo.nn.image_vit import VitConfig
from tests.oracles import HIDDEN, check_close, no_grad

LAYERS = 4
RENAMES = [
    (r"^vision_model\.", ""),
    (r"embeddings\.patch_embedding(s\.projection)?\.", "patch_embedding."),
    (r"embeddings\.position_embeddings?(\.weight)?$", "positional_embedding"),
    (r"embeddings\.(class_embedding|cls_token)$", "class_embedding"),
    (r"^pre_layrnorm\.", "pre_ln."),
    (r"^encoder\.layers?\.", "transformer.resblocks."),
    (r"\.(self_attn|attention(\.attention|\.output)?)\.", ".attention."),
    (r"attention\.(q_proj|query)\.", "attention.wq."),
    (r"attention\.(k_proj|key)\.", "attention.wk."),
    (r"attention\.(v_proj|value)\.", "attention.wv."),
    (r"attention\.(out_proj|o_proj|dense)\.", "attention.wo."),
    (r"\.(layer_norm1|norm1)\.", ".attention_norm."),
    (r"\.(layer_norm2|norm2)\.", ".ffn_norm."),
    (r"\.mlp\.fc([12])\.", r".feed_forward.w\1."),
    (r"\.layer_scale([12])\.lambda1$", r".lambda\1"),
]


def our_state_dict(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Their weights under our names; what belongs to the head that we do not have is left out."""
    state = {}
    for name, tensor in theirs.state_dict().items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if name == "patch_embedding.weight" and tensor.dim() == 4:
            tensor = tensor.permute(0, 2, 3, 1).flatten(1)
        elif name == "positional_embedding":
            tensor = tensor.squeeze(0)
        elif name == "class_embedding":
            tensor = tensor.flatten()
        if not re.match(r"post_layernorm|layernorm|head|embeddings\.", name):
            state[name] = tensor
    return state


def to_patches(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """[F, 3, H, W] to [F, N, patch * patch * 3], written with loops."""
    frames = []
    for picture in pixels:
        rows, columns = (range(0, side, patch) for side in picture.shape[1:])
        frames.append(torch.stack([picture[:, r : r + patch, c : c + patch].permute(1, 2, 0).flatten() for r in rows for c in columns]))
    return torch.stack(frames)


def narrow(name: str) -> VitConfig:
    """A named tower with the same heads, grid, activation and eps, but two heads and four blocks only."""
    full = VITS[name]
    width = 2 * full.image_head_dim
    small = dict(image_emb_dim=width, image_num_heads=2, image_num_key_value_heads=2, image_mlp_dim=4 * width, image_num_layers=LAYERS)
    return replace(full, **small, init_path=None)


def tower(name: str, config: VitConfig, **more) -> torch.nn.Module:
    """The transformers model of that name and shape; activation and eps are those of its own defaults."""
    import transformers

    shape = dict(hidden_size=config.image_emb_dim, num_hidden_layers=LAYERS, num_attention_heads=2, patch_size=config.image_patch_size)
    mlp = {"mlp_ratio": 4} if name == "Dinov2" else {"intermediate_size": config.image_mlp_dim}
    model = getattr(transformers, "Dinov2Model" if name == "Dinov2" else f"{name}VisionModel")
    return no_grad(model(getattr(transformers, model.config_class.__name__)(**shape, **mlp, **more)))


def compare(theirs: torch.nn.Module, config: VitConfig, patches: torch.Tensor, what: str, **inputs) -> None:
    ours = config.build().eval()
    ours.load_state_dict(our_state_dict(theirs))
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True).hidden_states[1:]
        hidden = ours(patches)
    assert sorted(hidden) == list(range(LAYERS))
    for i, reference in enumerate(expected):
        check_close(hidden[i], reference, HIDDEN, f"{what} block {i}")


@pytest.mark.parametrize(
    ("ours", "theirs"), [("siglip2", "Siglip"), ("openai", "CLIP"), ("metaclip_b16_224", "CLIP"), ("dinov2_large_336", "Dinov2")]
)
def test_tower(ours, theirs):
    """SigLIP and SigLIP2 of fixed size are one class there."""
    config = narrow(ours)
    side = config.image_default_input_size[0]
    pixels = torch.randn(2, 3, side, side)
    more = {"vision_use_head": False} if theirs == "Siglip" else {"hidden_act": "quick_gelu"} if theirs == "CLIP" else {}
    patches = to_patches(pixels, config.image_patch_size)
    compare(tower(theirs, config, image_size=side, **more), config, patches, f"{theirs} as {ours}", pixel_values=pixels)


def test_siglip2_of_any_size():
    """The class named SigLIP2 takes patches; on a grid of the size of its position table it is the same tower."""
    config = narrow("siglip2")
    patches = torch.randn(2, 729, 588)
    theirs = tower("Siglip2", config, num_patches=729, vision_use_head=False)
    inputs = dict(pixel_attention_mask=torch.ones(2, 729, dtype=torch.long), spatial_shapes=torch.tensor([[27, 27]] * 2))
    compare(theirs, config, patches, "Siglip2", pixel_values=patches, **inputs)
