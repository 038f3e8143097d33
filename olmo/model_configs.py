"""Named language models and ViTs under their published names.

`init_path` names the file of converted weights that training from scratch starts with, below `MOLMO_DATA_DIR` (or ./data).
"""

from dataclasses import replace

from olmo.models.molmo2.config import Molmo2Config
from olmo.models.molmo2.preprocessor import Molmo2PreprocessorConfig
from olmo.nn.image_vit import VisionBackboneType, VitConfig
from olmo.nn.llm_config import AttentionLayerNormType, LayerNormType, LlmConfig
from olmo.nn.rope import RopeType
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig
from olmo.tokenizer import TokenizerConfig

_DATA = "${oc.env:MOLMO_DATA_DIR,data}"


def _llm(tokenizer: str, file: str, **fields) -> LlmConfig:
    """What all released language models share."""
    common = dict(
        rope=True,
        layer_norm_type=LayerNormType.rms,
        layer_norm_eps=1e-6,
        include_bias=False,
        attention_layer_norm=True,
        max_sequence_length=4096,
        embedding_dropout=0.0,
        residual_dropout=0.0,
        additional_vocab_size=128,
    )
    return LlmConfig(**common | fields, tokenizer=TokenizerConfig(tokenizer), init_path=f"{_DATA}/pretrained_llms/{file}")


def _qwen3(tokenizer: str, file: str, d_model: int, hidden: int, tied: bool, rope_theta: float = 1e6) -> LlmConfig:
    return _llm(
        tokenizer,
        file,
        d_model=d_model,
        n_layers=36,
        n_heads=32,
        n_kv_heads=8,
        head_dim=128,
        mlp_hidden_size=2 * hidden,
        rope_theta=rope_theta,
        attention_layer_norm_type=AttentionLayerNormType.qwen3,
        weight_tying=tied,
        vocab_size=151936,
        embedding_size=151936,
    )


LLMS: dict[str, LlmConfig] = {
    "qwen3_4b": _qwen3("Qwen/Qwen3-4B", "qwen3-4b.pt", 2560, 9728, tied=True),
    "qwen3_4b_instruct": _qwen3("Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b-instruct.pt", 2560, 9728, tied=True, rope_theta=5e6),
    "qwen3_8b_base": _qwen3("Qwen/Qwen3-8B-Base", "qwen3-8b-base.pt", 4096, 12288, tied=False),
    "qwen3_8b": _qwen3("Qwen/Qwen3-8B", "qwen3-8b.pt", 4096, 12288, tied=False),
    "olmo3_7b_instruct": _llm(
        "allenai/Olmo-3-7B-Instruct",
        "olmo3-7b-instruct.pt",
        d_model=4096,
        n_layers=32,
        n_heads=32,
        n_kv_heads=32,
        head_dim=128,
        mlp_hidden_size=22016,
        rope_theta=5e5,
        rope_type=RopeType.yarn,
        rope_factor=8.0,
        rope_attention_factor=1.2079441541679836,
        rope_beta_fast=32,
        rope_beta_slow=1,
        rope_original_max_position_embeddings=8192,
        full_attention_layers=[3, 7, 11, 15, 19, 23, 27, 31],
        attention_layer_norm_type=AttentionLayerNormType.olmo,
        norm_after=True,
        fix_pad_tokenizer=True,
        weight_tying=False,
        residual_dropout=0.1,
        vocab_size=100278,
        embedding_size=100278,
    ),
}
"""Molmo2-4B uses qwen3_4b_instruct (the STTS checkpoints qwen3_4b), Molmo2-8B qwen3_8b, Molmo2-O-7B olmo3_7b_instruct."""

DEBUG_LLM = LlmConfig(
    d_model=128,
    n_heads=2,
    n_layers=3,
    vocab_size=152064,
    embedding_size=None,
    weight_tying=False,
    rope=True,
    max_sequence_length=4096,
    tokenizer=TokenizerConfig("Qwen/Qwen2-7B"),
)
"""A few layers with a real vocabulary."""


def _vit(file: str, **fields) -> VitConfig:
    return VitConfig(**fields, init_path=f"{_DATA}/pretrained_image_encoders/{file}")


_SO400M = dict(
    image_model_type=VisionBackboneType.siglip,
    image_default_input_size=[378, 378],
    image_emb_dim=1152,
    image_num_heads=16,
    image_num_key_value_heads=16,
    image_head_dim=72,
    image_num_layers=27,
    image_mlp_dim=4304,
    image_mlp_activations="gelu_pytorch_tanh",
    image_num_pos=729,
    resize_mode="siglip",
)
_CLIP_L = dict(image_mlp_activations="quick_gelu", normalize="openai")
_CLIP_B = _CLIP_L | dict(
    image_default_input_size=[224, 224],
    image_patch_size=16,
    image_pos_patch_size=16,
    image_emb_dim=768,
    image_num_heads=12,
    image_num_key_value_heads=12,
    image_num_layers=12,
    image_mlp_dim=3072,
    image_num_pos=197,
    resize_mode="metaclip",
)
_DINO = dict(image_model_type=VisionBackboneType.dino, image_norm_eps=1e-6, resize_mode="dino", normalize="dino")

VITS: dict[str, VitConfig] = {
    "openai": _vit("vit-l-14-336.pt", **_CLIP_L, image_num_layers=23),
    "siglip": _vit("siglip-so400m-14-384.pt", **_SO400M, image_norm_eps=1e-6, normalize="siglip"),
    "siglip2": _vit("siglip2-so400m-14-384.pt", **_SO400M, image_norm_eps=1e-6, normalize="siglip"),
    "dinov2_large_336": _vit("dinov2-large-336.pt", **_DINO),
    "metaclip_l14_336": _vit("metaclip-l14-336.pt", **_CLIP_L, resize_mode="metaclip"),
    "metaclip_b16_224": _vit("metaclip-b16-224.pt", **_CLIP_B),
    "metaclip_400m_b16_224": _vit("metaclip-400m-b16-224.pt", **_CLIP_B),
}

DEBUG_VIT = VitConfig(**_SO400M | dict(image_num_layers=1))
"""One block of the size of SigLIP."""

DEBUG_MOLMO2 = Molmo2Config(
    llm=DEBUG_LLM,
    vision_backbone=MolmoVisionBackboneConfig(vit=DEBUG_VIT),
    mm_preprocessor=Molmo2PreprocessorConfig(),
)
"""A whole model that trains anywhere, with a real vocabulary."""
DEBUG_MOLMO2.mm_preprocessor.video = replace(DEBUG_MOLMO2.mm_preprocessor.video, pooling_w=3, pooling_h=3, max_frames=4)
