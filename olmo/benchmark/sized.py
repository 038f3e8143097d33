"""Models of a wanted size, for measuring what depends on nothing else."""

from dataclasses import replace

from olmo import model_configs
from olmo.models.molmo2.config import Molmo2Config
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig


def sized_config(parameters: int) -> Molmo2Config:
    """A plain Molmo2 of about that many parameters: as many decoder layers as fit, with a vocabulary in proportion."""
    large = parameters >= 8e8
    width, heads, vocabulary = (1536, 12, 151936) if large else (512, 4, 32000)
    vit = replace(model_configs.VITS["siglip2"], init_path=None)
    if not large:
        vit = replace(vit, image_emb_dim=256, image_num_heads=4, image_num_key_value_heads=4, image_head_dim=64, image_mlp_dim=1024)
    llm = replace(
        model_configs.LLMS["qwen3_4b"],
        d_model=width,
        n_heads=heads,
        n_kv_heads=heads // 2,
        mlp_hidden_size=6 * width,
        vocab_size=vocabulary,
        embedding_size=vocabulary,
        init_path=None,
    )
    backbone = MolmoVisionBackboneConfig(vit=vit, vit_layers=[-3, -9], pooling_attention_mask=True)

    def with_layers(count: int) -> Molmo2Config:
        return Molmo2Config(llm=replace(llm, n_layers=count), vision_backbone=backbone, bi_directional_attn="image_tokens")

    one, two = (sum(p.numel() for p in with_layers(n).build_model("meta").parameters()) for n in (1, 2))
    return with_layers(max(1, round(1 + (parameters - one) / (two - one))))
