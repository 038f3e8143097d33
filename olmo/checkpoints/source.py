"""From a folder to the weights in it, whatever their format."""

from pathlib import Path

from olmo.checkpoints.adapters import merge_adapters
from olmo.checkpoints.files import SafetensorsWeights, TorchFileWeights
from olmo.checkpoints.finding import NATIVE_CONFIG, format_of, no_checkpoint
from olmo.checkpoints.sharded import ShardedWeights
from olmo.exceptions import OLMoCheckpointError
from olmo.weights import WeightSource


def open_weights(folder: str | Path, *, merge: bool = True, averaged: bool = False) -> WeightSource:
    """The weights of a checkpoint: names, shapes and dtypes at once, the numbers when asked for.

    Low-rank adapters are merged into their layers, unless `merge` is false. `averaged`: with the running averages that training kept.
    """
    folder = Path(folder)
    if averaged and format_of(folder) != "sharded":
        raise OLMoCheckpointError(f"{folder} holds no running average of weights: only sharded checkpoints of a training do")
    source = ShardedWeights(folder, averaged=True) if averaged else _open(folder)
    return merge_adapters(source, folder / NATIVE_CONFIG) if merge else source


def _open(folder: Path) -> WeightSource:
    match format_of(folder):
        case "sharded":
            return ShardedWeights(folder)
        case "unsharded":
            return TorchFileWeights(folder)
        case "safetensors":
            return SafetensorsWeights(folder)
        case "huggingface":
            from olmo.hf_model.source import HuggingFaceWeights

            return HuggingFaceWeights(folder)
    raise no_checkpoint(folder)
