"""Activation checkpointing, compilation and sharding of a model, applied from outside and in this order.

The first two replace a module's `forward` by a function around it, so that names of modules and parameters stay what they
are, and the hooks of FSDP lie outside of what is compiled or recomputed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.utils._pytree import register_dataclass
from torch.utils.checkpoint import checkpoint

from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import ModelOutput
from olmo.models.molmo2.model import Molmo2Model
from olmo.nn.temporal_image_vit import PrunedPatches
from olmo.nn.vision_backbone import VisionOutput

# FSDP finds the tensors of a module's output, whose gradients tell it when to gather parameters, through pytree.
for _output in (ModelOutput, VisionOutput, PrunedPatches):
    register_dataclass(_output)


def parallelize_model(
    model: Molmo2Model,
    *,
    mesh: DeviceMesh | None = None,
    compute_dtype: torch.dtype = torch.float32,
    fsdp_precision: str = "float",
    compile_args: dict[str, Any] | None = None,
    activation_checkpointing: bool = True,
) -> None:
    """Prepare a model (on any device, also meta) for training, in place.

    `mesh`: shard over it (1-d), or replicate and shard (2-d); None = one process. `fsdp_precision`: pure = parameters and
    gradient reduction in `compute_dtype`, mixed = reduction in fp32, float = both in fp32. `compile_args`: arguments of
    `torch.compile`; None = off. Which parts are compiled or recomputed is up to the model config.
    """
    if activation_checkpointing:
        checkpoint_activations(model)
    if compile_args is not None:
        compile_blocks(model, compile_args)
    if mesh is not None:
        shard(model, mesh, mixed_precision(fsdp_precision, compute_dtype))
    # One process too: otherwise a step without pictures would freeze the vision part there, but decay it on several ranks.
    model.run_vision_without_images = True


def checkpoint_activations(model: Molmo2Model) -> None:
    """Recompute in the backward pass what the config names."""
    llm, vision = model.config.llm, model.config.vision_backbone
    random = bool(llm.residual_dropout or llm.response_residual_dropout or llm.attention_dropout)
    for layer, block in enumerate(model.transformer.blocks):
        if llm.activation_checkpoint is not None and llm.activation_checkpoint.wraps(layer):
            _recompute(block, random)
    if vision is None:
        return
    backbone, random = model.vision_backbone, bool(vision.vit.attention_dropout or vision.vit.residual_dropout)
    if vision.vit.activation_checkpointing:
        for module in (*backbone.image_vit.blocks, _scorer(backbone)):
            _recompute(module, random)
    if vision.connector_activation_checkpointing:
        for module in (backbone.image_pooling_2d, backbone.image_projector):
            _recompute(module, random)


def compile_blocks(model: Molmo2Model, args: dict[str, Any]) -> None:
    """Compile blocks one by one: blocks of a kind share the compiled code."""
    if model.config.llm.compile == "blocks":
        model.mask_by_example = False
        for block in model.transformer.blocks:
            # decoding calls a block with a cache and one token: not worth compiled code of its own
            _compile(block, args, eager_if=lambda kwargs: kwargs.get("cache") is not None)
    vision = model.config.vision_backbone
    if vision is None:
        return
    backbone = model.vision_backbone
    if vision.compile_vit == "blocks":
        # how many patches are kept differs from batch to batch
        for block in backbone.image_vit.blocks:
            _compile(block, args | {"dynamic": None} if vision.vit.prune else args)
    if vision.compile_connector is not None:
        dynamic = {"dynamic": True} if vision.compile_connector == "dynamic" else {}
        for module in (backbone.image_pooling_2d, backbone.image_projector):
            _compile(module, args | dynamic)


def mixed_precision(fsdp_precision: str, compute_dtype: torch.dtype) -> MixedPrecisionPolicy:
    low = None if compute_dtype == torch.float32 else compute_dtype
    policies = {
        "pure": MixedPrecisionPolicy(param_dtype=low, reduce_dtype=low),
        "mixed": MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32),
        "float": MixedPrecisionPolicy(),
    }
    if fsdp_precision not in policies:
        raise OLMoConfigurationError(f"fsdp.precision must be one of {', '.join(policies)}, not '{fsdp_precision}'")
    return policies[fsdp_precision]


def shard(model: Molmo2Model, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    """FSDP2 units from the inside out: ViT blocks, scorer, ViT, pooler, projector, backbone, LLM blocks, embedding, head, model."""

    def unit(module: nn.Module | list[nn.Module] | None, mp_policy: MixedPrecisionPolicy = policy) -> None:
        if module is not None:
            fully_shard(module, mesh=mesh, mp_policy=mp_policy)

    if model.vision_backbone is not None:
        backbone = model.vision_backbone
        # blocks get activations in the right type already; only the fp32 key bias would be rounded by a cast
        keep_inputs = MixedPrecisionPolicy(policy.param_dtype, policy.reduce_dtype, cast_forward_inputs=False)
        for block in backbone.image_vit.blocks:
            unit(block, keep_inputs)
        for module in (_scorer(backbone), backbone.image_vit, backbone.image_pooling_2d, backbone.image_projector, backbone):
            unit(module)
    transformer = model.transformer
    for block in transformer.blocks:
        unit(block)
    unit(transformer.wte)
    unit(transformer.ln_f if model.config.llm.weight_tying else [transformer.ff_out, transformer.ln_f])
    unit(transformer)
    unit(model)
    register_fsdp_forward_method(transformer.wte, "project")
    for method in ("encode_vision", "prefill", "decode_step"):
        register_fsdp_forward_method(model, method)


def _scorer(backbone: nn.Module) -> nn.Module | None:
    return getattr(backbone, "scorer", None)


def _recompute(module: nn.Module | None, random: bool) -> None:
    if module is None:
        return
    forward = module.forward

    def recomputed(*args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=random, **kwargs)

    module.forward = recomputed


def _compile(module: nn.Module | None, args: dict[str, Any], eager_if: Callable[[dict], bool] = lambda kwargs: False) -> None:
    if module is None:
        return
    forward = module.forward
    compiled = torch.compile(forward, **args)

    def chosen(*positional, **kwargs):
        return (forward if eager_if(kwargs) else compiled)(*positional, **kwargs)

    module.forward = chosen
