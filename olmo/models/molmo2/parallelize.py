"""Activation checkpointing, compilation and sharding of a model, applied from outside and in this order.

The first two replace a module's `forward` by a function around it, so that names of modules and parameters stay what they
are, and the hooks of FSDP lie outside of what is compiled or recomputed.
"""

from collections.abc import Callable
from functools import cache, partial
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.utils._pytree import register_dataclass
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from olmo.exceptions import OLMoConfigurationError
from olmo.models.model import ModelOutput
from olmo.models.molmo2.model import Molmo2Model
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.lora import draws_dropout
from olmo.nn.losses import EAGER, ChunkFunctions
from olmo.nn.temporal_image_vit import PrunedPatches
from olmo.nn.vision_backbone import VisionOutput

RECOMPUTE = ("none", "selective", "full")

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
    activation_checkpointing: str = "full",
    context: ContextParallel | None = None,
) -> None:
    """Prepare a model (on any device, also meta) for training, in place.

    `mesh`: shard over it (1-d), or replicate and shard (2-d); None = one process. `fsdp_precision`: pure = parameters and
    gradient reduction in `compute_dtype`, mixed = reduction in fp32, float = both in fp32. `compile_args`: arguments of
    `torch.compile`; None = off. `activation_checkpointing`: none = activations are stored, full = blocks store their input and are
    computed again in the backward pass, selective = they also store the results of matrix products and attention, and repeat
    only the cheap rest. Which parts are compiled or recomputed is up to the model config.
    """
    if activation_checkpointing not in RECOMPUTE:
        raise OLMoConfigurationError(f"activation_checkpointing must be one of {', '.join(RECOMPUTE)}, not '{activation_checkpointing}'")
    if activation_checkpointing != "none":
        checkpoint_activations(model, selective=activation_checkpointing == "selective")
    if compile_args is not None:
        compile_blocks(model, compile_args)
    if mesh is not None:
        shard(model, mesh, mixed_precision(fsdp_precision, compute_dtype))
    model.context = context
    # One process too: otherwise a step without pictures would freeze the vision part there, but decay it on several ranks.
    model.run_vision_without_images = True


def checkpoint_activations(model: Molmo2Model, selective: bool = False) -> None:
    """Recompute in the backward pass what the config names; `selective`: all but matrix products and attention."""
    llm, vision = model.config.llm, model.config.vision_backbone
    random = bool(llm.residual_dropout or llm.response_residual_dropout or llm.attention_dropout)
    for layer, block in enumerate(model.transformer.blocks):
        if llm.activation_checkpoint is not None and llm.activation_checkpoint.wraps(layer):
            _recompute(block, random, selective)
    if vision is None:
        return
    backbone, random = model.vision_backbone, bool(vision.vit.attention_dropout or vision.vit.residual_dropout)
    if vision.vit.activation_checkpointing:
        for module in (*backbone.image_vit.blocks, _scorer(backbone)):
            _recompute(module, random, selective)
    if vision.connector_activation_checkpointing:
        for module in (backbone.image_pooling_2d, backbone.image_projector):
            _recompute(module, random, selective)


def compile_blocks(model: Molmo2Model, args: dict[str, Any]) -> None:
    """Compile blocks one by one: blocks of a kind share the compiled code.

    The decoder's shapes are those of `args["dynamic"]`: false where sequences are padded to one length. How many frames and patches
    there are differs from batch to batch, and so do kept cells and positions with a loss: there the first size is a symbol
    from the start. So the ViT has one graph each for dense, biased and packed blocks, and nothing is compiled again.
    """
    varying = args | {"dynamic": True}
    if model.config.llm.compile == "blocks":
        model.mask_by_example = False
        for block in model.transformer.blocks:
            # decoding calls a block with a cache and one token: not worth compiled code of its own
            compiled = torch.compile(block.forward, **args)
            block.forward = _chosen(block.forward, compiled, eager_if=lambda args, kwargs: kwargs.get("cache") is not None)
        head = model.transformer.wte if model.config.llm.weight_tying else model.transformer.ff_out
        head.loss_functions = ChunkFunctions(*(_any_number(f, varying, fixed=(1, 2)) for f in EAGER))
    vision = model.config.vision_backbone
    if vision is None:
        return
    backbone = model.vision_backbone
    if vision.compile_vit == "blocks":
        for block in backbone.image_vit.blocks:
            block.forward = _any_number(block.forward, varying)
        if (scorer := _scorer(backbone)) is not None:
            scorer.forward = _any_number(scorer.forward, varying, fixed=(2,))
    if vision.compile_connector is not None:
        for module in (backbone.image_pooling_2d, backbone.image_projector):
            if module is not None:
                module.forward = _any_number(module.forward, varying if vision.compile_connector == "dynamic" else args)


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


def _recompute(module: nn.Module | None, random: bool, selective: bool) -> None:
    if module is None:
        return
    forward, random = module.forward, random or draws_dropout(module)
    contexts = {"context_fn": partial(create_selective_checkpoint_contexts, _keep_products)} if selective else {}

    def recomputed(*args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=random, **contexts, **kwargs)

    # Compiled code belongs to a code object, of which each may have a few graphs only: a copy for every kind of module.
    code = _own_code(recomputed.__code__, type(module).__name__)
    module.forward = FunctionType(code, recomputed.__globals__, closure=recomputed.__closure__)


@cache
def _own_code(code: CodeType, kind: str) -> CodeType:
    return code.replace(co_name=f"recomputed_{kind}")


_PRODUCTS = (
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_"),
    *("torch_attn::_varlen_attn", "flash_attn::", "flex_attention"),
)
"""How the names of operators begin whose results selective checkpointing stores."""


def _keep_products(ctx: Any, op: Any, *args, **kwargs) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op.name().startswith(_PRODUCTS) else CheckpointPolicy.PREFER_RECOMPUTE


def _chosen(forward: Callable, compiled: Callable, eager_if: Callable[[tuple, dict], bool]) -> Callable:
    """`compiled`, but `forward` itself for the calls that are not worth it."""

    def chosen(*args, **kwargs):
        return (forward if eager_if(args, kwargs) else compiled)(*args, **kwargs)

    return chosen


def _any_number(function: Callable, args: dict[str, Any], fixed: tuple[int, ...] = ()) -> Callable:
    """`function` compiled for any number of frames, patches, cells or rows: the first size of its tensors.

    All other sizes, and all of the positional arguments `fixed`, are constants of the graph. Without these marks two sizes that
    happen to be equal in the first batch would be taken for one. A single frame or row, which would need a graph of its own,
    goes around it.
    """
    compiled = torch.compile(function, **args)

    def marked(*positional, **kwargs):
        for i, t in enumerate((*positional, *kwargs.values())):
            if isinstance(t, torch.Tensor) and t.dim():
                constant = i in fixed
                if args["dynamic"] and not constant:
                    torch._dynamo.maybe_mark_dynamic(t, 0)
                for dim in range(0 if constant else 1, t.dim()):
                    torch._dynamo.mark_static(t, dim)
        return compiled(*positional, **kwargs)

    return _chosen(function, marked, eager_if=lambda args, kwargs: args[0].shape[0] == 1)
