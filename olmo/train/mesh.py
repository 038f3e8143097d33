"""How the ranks of a run are laid out: replicas of the model, shards within a replica, and the data that each rank reads."""

from dataclasses import dataclass, field
from typing import Any

from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from olmo.config import BaseConfig
from olmo.distributed import World, initialized
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.context_parallel import check_heads


@dataclass
class ContextParallelConfig(BaseConfig):
    """Sharing every sequence among neighbouring ranks, which then read the same data."""

    degree: int = 1
    """Ranks per sequence; must divide the heads and the key/value heads of the language model."""


@dataclass
class ParallelismConfig(BaseConfig):
    """What the ranks divide among themselves besides the data."""

    data_parallel_replicate_degree: int = 1
    """Copies of the sharded model (HSDP): parameters are gathered within a copy only, gradients are summed over all. Best the number
    of machines, where their links are slower than those inside one."""
    context_parallel_config: ContextParallelConfig = field(default_factory=ContextParallelConfig)
    """Sequences over several ranks."""

    def check(self, world_size: int) -> None:
        """Refuse what does not divide the ranks evenly."""
        replicas, context = self.data_parallel_replicate_degree, self.context_parallel_config.degree
        for key, value in (("data_parallel_replicate_degree", replicas), ("context_parallel_config.degree", context)):
            if value < 1:
                raise OLMoConfigurationError(f"parallelism.{key}={value}: must be at least 1")
        if world_size % (replicas * context):
            raise OLMoConfigurationError(
                f"{world_size} ranks cannot be divided into parallelism.data_parallel_replicate_degree={replicas} copies of the model "
                f"with parallelism.context_parallel_config.degree={context} ranks per sequence: the number of ranks must be a multiple "
                f"of {replicas * context}"
            )

    def check_model(self, model: Any) -> None:
        """Refuse a model whose sequences cannot be shared by so many ranks."""
        degree = self.context_parallel_config.degree
        if degree == 1:
            return
        check_heads(degree, model.llm.n_heads, model.llm.kv_heads)
        if model.vision_backbone is None:
            return
        vit, mode = model.vision_backbone.vit, model.mm_preprocessor.video.slow_fast.mode
        if mode is not None:
            raise OLMoConfigurationError(
                f"parallelism.context_parallel_config.degree={degree} cannot go with model.mm_preprocessor.video.slow_fast.mode={mode}: "
                "frames of two kinds are not divided among ranks"
            )
        if getattr(vit, "packs", False) and vit.packing == "first_fit" and vit.refill_lone_frames:
            raise OLMoConfigurationError(
                f"parallelism.context_parallel_config.degree={degree} cannot go with model.vision_backbone.vit.packing=first_fit and "
                "refill_lone_frames=true, which make a frame depend on the others of its rank; set packing=auto or refill_lone_frames=false"
            )

    def data_ranks(self, world_size: int) -> int:
        """In how many parts the global batch is divided."""
        return world_size // self.context_parallel_config.degree

    def data_rank(self, rank: int) -> int:
        """Which of these parts a rank reads: ranks that share their sequences are neighbours."""
        return rank // self.context_parallel_config.degree


def sharding_mesh(cfg: ParallelismConfig, world: World) -> DeviceMesh | None:
    """What FSDP works on: one dimension, or replicas x shards (ranks of one replica are neighbours); None = one process without a
    group. Builds process groups, so every rank must call it."""
    if not initialized():
        return None
    replicas = cfg.data_parallel_replicate_degree
    if replicas == 1:
        return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
    return init_device_mesh(world.device.type, (replicas, world.size // replicas), mesh_dim_names=("replicate", "shard"))


def context_group(cfg: ParallelismConfig, world: World) -> ProcessGroup | None:
    """The ranks that share this rank's sequences; None = it has them alone. Builds process groups, so every rank must call it."""
    degree = cfg.context_parallel_config.degree
    if degree == 1:
        return None
    mesh = init_device_mesh(world.device.type, (cfg.data_ranks(world.size), degree), mesh_dim_names=("data", "context"))
    return mesh["context"].get_group()
