"""From a folder to the weights in it, whatever their format."""

from pathlib import Path

from olmo.checkpoints.files import SafetensorsWeights, TorchFileWeights
from olmo.checkpoints.finding import format_of, no_checkpoint
from olmo.checkpoints.sharded import ShardedWeights
from olmo.weights import WeightSource


def open_weights(folder: str | Path) -> WeightSource:
    """The weights of a checkpoint: names, shapes and dtypes at once, the numbers when asked for."""
    folder = Path(folder)
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
