"""Building what is trained: model, shards, first weights, optimiser.

First weights are drawn on rank 0 and sent to the others' shards, so that they depend on the seed and not on the number
of ranks.
"""

import logging
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from olmo.checkpoints import Fit, initialise, match_weights, model_tensors, read_pretrained_file, read_weights
from olmo.distributed import World, initialized, whole
from olmo.models.model import GROUPS, ModelBase
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.lora import add_adapters, is_adapter
from olmo.train.config import TrainConfig
from olmo.train.mesh import context_group, sharding_mesh
from olmo.train.optim import adapt, freeze

log = logging.getLogger(__name__)


def seed_everything(seed: int) -> None:
    """Seed every generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def meta_model(cfg: TrainConfig) -> ModelBase:
    """The model without memory for its weights; what is not trained is frozen."""
    model = cfg.model.build_model(device="meta")
    if cfg.lora is not None:
        adapt(model, cfg.lora, cfg.ft_embedding)
        return model
    freeze(model, ft_llm=cfg.ft_llm, ft_vit=cfg.ft_vit, ft_connector=cfg.ft_connector, ft_embedding=cfg.ft_embedding)
    return model


def build_sharded_model(cfg: TrainConfig, world: World, *, on_meta: bool = False) -> ModelBase:
    """The model with uninitialised parameters on this rank's device: frozen parts, checkpointing, compile, shards.

    `on_meta`: leave the parameters without memory, where nothing is to be computed with them.
    """
    from olmo.models.molmo2.parallelize import parallelize_model

    model = meta_model(cfg)
    mesh, group = sharding_mesh(cfg.parallelism, world), context_group(cfg.parallelism, world)
    bf16, compiler = cfg.uses_bf16(world.device), cfg.compiler(world.device)
    if world.is_main and not on_meta:
        if cfg.precision == "amp_bf16" and not bf16:
            log.info("precision amp_bf16 needs a GPU: computing in fp32 on this CPU")
        if cfg.compile is not None and group is not None:
            log.info("torch.compile is off: sequences are shared by %d ranks", cfg.parallelism.context_parallel_config.degree)
        elif cfg.compile is not None and compiler is None:
            log.info("torch.compile is for GPUs here: running without it on this CPU")
    parallelize_model(
        model,
        mesh=mesh,
        compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        fsdp_precision=str(cfg.fsdp.precision),
        compile_args=compiler.asdict() if compiler is not None else None,
        activation_checkpointing=cfg.recompute,
        context=None if group is None else ContextParallel(group),
    )
    return model if on_meta else model.to_empty(device=world.device)


def initialise_weights(cfg: TrainConfig, model: ModelBase, world: World, names: Iterable[str] | None = None) -> None:
    """Give the named parameters (None = all) fresh values, the same for every number of ranks."""
    tensors = model_tensors(model)
    names = set(tensors if names is None else names)
    if not names:
        return
    source: dict[str, torch.Tensor] = {}
    if world.is_main:
        seed_everything(cfg.seed)
        fresh = cfg.model.build_model(device="meta")
        adapters = {n for n in names if is_adapter(n)}
        touched = initialise(fresh, names - adapters, device=world.device)
        if cfg.lora is not None:
            add_adapters(fresh, cfg.lora, fresh.group_of, GROUPS)
            touched |= initialise(fresh, adapters, device=world.device)
        source = {n: p.detach() for n, p in model_tensors(fresh).items() if n in touched}
    assign(tensors, names, source)


def load_pretrained(model: ModelBase, world: World) -> None:
    """Overwrite fresh weights with the files that the model config names (`init_path`)."""
    for prefix, path in model.pretrained_files().items():
        tensors = {n.removeprefix(prefix): p for n, p in model_tensors(model).items() if n.startswith(prefix)}
        values = read_pretrained_file(path, {n: tuple(p.shape) for n, p in tensors.items()})
        if world.is_main:
            log.info("%s: %d tensors from %s", prefix.rstrip("."), len(values), path)
        assign(tensors, set(values), values if world.is_main else {})


def assign(tensors: dict[str, nn.Parameter], names: Iterable[str], source: dict[str, torch.Tensor]) -> None:
    """Copy rank 0's `source` into everybody's parameters, whole or sharded."""
    with torch.no_grad():
        for name in sorted(names):
            target = tensors[name]
            value = (
                source[name].to(target.device, target.dtype)
                if name in source
                else torch.empty(target.shape, dtype=target.dtype, device=target.device)
            )
            if isinstance(target, DTensor):
                target.copy_(distribute_tensor(value, target.device_mesh, target.placements))
                continue
            if initialized() and dist.get_world_size() > 1:
                dist.broadcast(value, src=0)
            target.copy_(value)


def load_weights(cfg: TrainConfig, model: ModelBase, folder: Path, world: World) -> Fit:
    """Weights from a checkpoint; a plain Molmo2 one leaves only the scorer to be initialised."""
    fit = match_weights(folder, model)
    if world.is_main:
        for line in fit.describe():
            log.info(line)
    initialise_weights(cfg, model, world, fit.initialised)
    read_weights(fit, model)
    return fit


def check_finite(model: nn.Module) -> str | None:
    """Name of a parameter that holds a value that is no number, or None."""
    flags = {name: p.detach().isfinite().all() for name, p in model_tensors(model).items()}
    return next((name for name, ok in flags.items() if not bool(whole(ok))), None)
