"""Hugging Face folders of tiny models with random weights, as `save_pretrained` writes them."""

from pathlib import Path

from torch import nn

from tests.oracles import no_grad

VOCAB, WIDTH = 1024, 32
SIDE, PATCH, LAYERS = 84, 14, 6


def language_model(family: str, **fields) -> nn.Module:
    """Qwen3 (tied) or OLMo3 (yarn on every other layer, untied)."""
    import transformers as hf

    common = dict(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=32, rms_norm_eps=1e-6, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    if family == "qwen3":
        return no_grad(hf.Qwen3ForCausalLM(hf.Qwen3Config(**common | fields)))
    del common["head_dim"]
    yarn = dict(rope_type="yarn", rope_theta=5e5, factor=8.0, attention_factor=1.2, original_max_position_embeddings=16)
    olmo = dict(
        num_hidden_layers=4, num_key_value_heads=2, tie_word_embeddings=False, sliding_window=4096, max_position_embeddings=128,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters={"full_attention": yarn, "sliding_attention": dict(rope_type="default", rope_theta=5e5)},
    )  # fmt: skip
    return no_grad(hf.Olmo3ForCausalLM(hf.Olmo3Config(**common | olmo | fields)))


def vision_model(family: str, **fields) -> nn.Module:
    """The class of transformers with that name: a tower, or a whole image-text model around one."""
    import transformers as hf

    tower = dict(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, image_size=SIDE, patch_size=PATCH)
    if family == "Dinov2Model":
        return no_grad(hf.Dinov2Model(hf.Dinov2Config(**tower, mlp_ratio=2, **fields)))
    tower["intermediate_size"] = 48
    tower |= fields
    text = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, vocab_size=50)
    if family == "Siglip2VisionModel":
        del tower["image_size"]
        tower["num_patches"] = (SIDE // PATCH) ** 2
    model = getattr(hf, family)
    config = model.config_class(**tower) if family.endswith("VisionModel") else model.config_class(vision_config=tower, text_config=text)
    return no_grad(model(config))


def tower_of(model: nn.Module) -> nn.Module:
    return getattr(model, "vision_model", model)


def save(model: nn.Module, folder: Path, **options) -> str:
    model.save_pretrained(folder, **options)
    return str(folder)
