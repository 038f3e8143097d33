"""The unpruned model against transformers' classes on the same shapes: is what pruning is compared with any good?"""

import torch

from olmo.benchmark.cases import Case
from olmo.benchmark.models import Arm, build, config_of, prepare, video_batch
from olmo.benchmark.parts import Pair, Run, reading, vit_features, without_gradient
from olmo.hf_model.torchvision_ops import declare_missing_operators


def against_transformers(case: Case, device: torch.device) -> Pair:
    """SigLIP2's tower (part vit) or Qwen3 reading text (part llm), both with scaled-dot-product attention."""
    declare_missing_operators()  # a CPU torch beside a torchvision made for GPUs, which transformers imports if it is there
    config = config_of(case, "none")
    arm = Arm(config, prepare(build(config, device), case), video_batch(case, config).to(device))
    if case.part == "vit":
        other, ours = _tower(arm, device), without_gradient(lambda: vit_features(arm), device)
        arm.model.eval()
    else:
        other, ours = _decoder(arm, device), reading(arm, device)
    if case.compiled:
        other = torch.compile(other, dynamic=False)
    return Pair([without_gradient(other, device), ours], [arm.model])


def _tower(arm: Arm, device: torch.device) -> Run:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    vit = arm.config.vision_backbone.vit
    height, _ = vit.image_default_input_size
    config = SiglipVisionConfig(
        hidden_size=vit.image_emb_dim,
        intermediate_size=vit.image_mlp_dim,
        num_hidden_layers=arm.config.vision_backbone.needed_blocks,
        num_attention_heads=vit.image_num_heads,
        image_size=height,
        patch_size=vit.image_patch_size,
        hidden_act=vit.image_mlp_activations,
        vision_use_head=False,
        attn_implementation="sdpa",
    )
    model = SiglipVisionModel(config).to(device).eval()
    pixels = torch.randn(arm.batch.images.shape[1], 3, height, height, device=device)
    return lambda: model(pixels).last_hidden_state


def _decoder(arm: Arm, device: torch.device) -> Run:
    from transformers import Qwen3Config, Qwen3Model

    llm = arm.config.llm
    config = Qwen3Config(
        vocab_size=llm.vocab_size,
        hidden_size=llm.d_model,
        intermediate_size=llm.hidden_size // 2,
        num_hidden_layers=llm.n_layers,
        num_attention_heads=llm.n_heads,
        num_key_value_heads=llm.kv_heads,
        head_dim=llm.head_size,
        max_position_embeddings=32768,
        attn_implementation="sdpa",
    )
    model = Qwen3Model(config).to(device).eval()
    ids = arm.batch.input_ids
    return lambda: model(input_ids=ids, use_cache=True).last_hidden_state
