"""Weights in plain files under our own names: `model.pt`, and safetensors (one file, or several with an index)."""

from pathlib import Path

import torch
from torch import Tensor

from olmo.checkpoints.finding import TORCH_FILE
from olmo.exceptions import OLMoCheckpointError, first_line
from olmo.safetensors_files import SafetensorsFiles
from olmo.weights import WeightSource, by_our_names


def read_torch_file(file: Path) -> dict[str, Tensor]:
    """A flat mapping of names to tensors written by `torch.save`, mapped and not copied.

    Only tensors are built from it (`weights_only`): a file that holds anything else is refused, and nothing of it runs.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as err:  # the zip reader, the unpickler and the file system have an error each
        raise OLMoCheckpointError(f"{file} cannot be read as a file of weights: {_reason(err)}") from err
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise OLMoCheckpointError(f"{file} must hold a flat mapping of parameter names to tensors")
    return state


def _reason(err: Exception) -> str:
    """torch's own advice for files that hold code is to read them with it: not what a user should be told."""
    if "Weights only load failed" in str(err):
        return "it holds more than tensors, and reading that could run code"
    return first_line(err)


class TorchFileWeights(WeightSource):
    """`model.pt`: all weights in one file."""

    format = "unsharded"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        state = read_torch_file(folder / TORCH_FILE)
        self._state = {ours: state[name] for ours, name in by_our_names(state).items()}
        self.shapes = {name: tuple(t.shape) for name, t in self._state.items()}
        self.dtypes = {name: t.dtype for name, t in self._state.items()}

    def read(self, name: str) -> Tensor:
        return self._state[name]


class SafetensorsWeights(WeightSource):
    """`model.safetensors`, or the files of `model.safetensors.index.json`, beside a `config.yaml`."""

    format = "safetensors"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = SafetensorsFiles(folder)
        self._stored = by_our_names(self._files.shapes)
        self.shapes = {ours: self._files.shapes[name] for ours, name in self._stored.items()}
        self.dtypes = {ours: self._files.dtypes[name] for ours, name in self._stored.items()}

    def read(self, name: str) -> Tensor:
        return self._files.read(self._stored[name])
