"""Weights of a checkpoint with low-rank adapters, read as those of the plain model: every adapter is merged into its layer."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from olmo.config import read_yaml
from olmo.exceptions import OLMoCheckpointError
from olmo.nn.lora import LoraConfig, adapter_names, is_adapter, merged
from olmo.weights import WeightSource


class MergedWeights(WeightSource):
    """The plain layers under their names; the adapters are not seen any more."""

    def __init__(self, source: WeightSource, config: LoraConfig) -> None:
        self.source, self.folder, self.format = source, source.folder, source.format
        self.scale = config.scale
        self.shapes = {name: shape for name, shape in source.shapes.items() if not is_adapter(name)}
        self.dtypes = {name: source.dtypes[name] for name in self.shapes}
        self.adapted = {name: pair for name in self.shapes if (pair := adapter_names(name))[0] in source.shapes}
        known = {name for pair in self.adapted.values() for name in pair}
        stray = [name for name in source.shapes if is_adapter(name) and name not in known]
        lost = [name for name in known if name not in source.shapes]
        if stray or lost:
            raise OLMoCheckpointError(f"the adapters of {self.folder} are not whole: {(stray or lost)[0]} stands alone")
        rank = {source.shapes[a][0] for a, _ in self.adapted.values()}
        if rank != {config.rank}:
            raise OLMoCheckpointError(
                f"{self.folder} holds adapters of rank {', '.join(map(str, sorted(rank)))}, but its config says lora.rank {config.rank}"
            )

    def read(self, name: str) -> Tensor:
        weight = self.source.read(name)
        if name not in self.adapted:
            return weight
        return merged(weight, *(self.source.read(part) for part in self.adapted[name]), self.scale)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.source.load({name: tensor for name, tensor in tensors.items() if name not in self.adapted})
        super().load({name: tensor for name, tensor in tensors.items() if name in self.adapted})


def merge_adapters(source: WeightSource, config_file: Path) -> WeightSource:
    """The same weights where there are no adapters, else merged ones; `config_file` has the block `lora` that they were trained with."""
    if not has_adapters(source):
        return source
    block = read_yaml(config_file).get("lora") if config_file.is_file() else None
    if not isinstance(block, dict):
        raise OLMoCheckpointError(
            f"{source.folder} holds low-rank adapters, but its {config_file.name} has no block 'lora' with their alpha"
        )
    return MergedWeights(source, LoraConfig.from_dict(block))


def has_adapters(source: WeightSource) -> bool:
    return any(is_adapter(name) for name in source.shapes)
