"""The unpruned model against transformers' classes on the same shapes: is what pruning is compared with any good?"""

from collections.abc import Callable

import torch

from olmo.benchmark.cases import Case
from olmo.benchmark.models import Arm, build, config_of, prepare, video_batch
from olmo.benchmark.parts import Pair, autocast, flops_of, passes, vit_features
from olmo.hf_model.torchvision_ops import declare_missing_operators


def against_transformers(case: Case, device: torch.device) -> Pair:
    """SigLIP2's tower (part vit) or Qwen3 reading text (part llm), both with scaled-dot-product attention."""
    declare_missing_operators()  # a CPU torch beside a torchvision made for GPUs, which transformers imports if it is there
    config = config_of(case, "none")
    arm = Arm(config, prepare(build(config, device), case), video_batch(case, config).to(device))
    count = flops_of(arm)
    if case.part == "vit":
        other, tflop, ours = _tower(arm, device), count.vit, passes(arm, vit_features, "forward", device)
    else:
        other, tflop, ours = _decoder(arm, device), count.llm_linear + count.llm_attention, _prefill(arm, device)
    if case.compiled:
        other = torch.compile(other, dynamic=False)

    def theirs():
        with torch.no_grad(), autocast(device):
            return other()

    return Pair(theirs, ours, None, (arm.model,), {"tflop": [tflop / 1e12] * 2})


def _tower(arm: Arm, device: torch.device) -> Callable[[], object]:
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


def _decoder(arm: Arm, device: torch.device) -> Callable[[], object]:
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


def _prefill(arm: Arm, device: torch.device) -> Callable[[], object]:
    arm.model.eval()

    def run():
        with torch.no_grad(), autocast(device):
            return arm.model.prefill(arm.batch, 1)[0]

    return run
