"""Folders of models of other families: on this machine, or fetched from the Hugging Face hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from olmo.exceptions import OLMoCheckpointError, OLMoEnvironmentError, first_line
from olmo.safetensors_files import SafetensorsFiles, has_safetensors, safetensors_files

PICKLED = "pytorch_model*.bin"
_SETTINGS = ["*.json", "*.txt", "*.jinja"]


def model_folder(source: str, cache_dir: str | None = None) -> Path:
    """The folder that `source` names: itself, or the snapshot of a hub id (from the cache, else by download)."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise OLMoCheckpointError(f"{folder} is no Hugging Face folder: it has no config.json")
        return folder
    if folder.is_absolute() or source.startswith(".") or source.count("/") != 1:
        raise OLMoCheckpointError(f"there is no folder {source}, and a name on the Hugging Face hub has the form owner/model")
    from huggingface_hub import snapshot_download

    def fetch(patterns: list[str], offline: bool) -> Path:
        return Path(snapshot_download(source, cache_dir=cache_dir, allow_patterns=patterns, local_files_only=offline))

    try:
        return _whole(fetch, offline=True)
    except (OSError, ValueError):  # nothing of it, or not all of it, is in the cache
        pass
    _require_hub(source)
    try:
        return _whole(fetch, offline=False)
    except Exception as err:  # the hub client raises anything from OSError to its own HTTP errors
        raise OLMoEnvironmentError(f"'{source}' cannot be downloaded: {first_line(err)[:160]}") from err


def _whole(fetch: Callable[[list[str], bool], Path], offline: bool) -> Path:
    """Safetensors where the repository has them, else the older pickled files: never both, they are the same weights."""
    folder = fetch([*_SETTINGS, "*.safetensors"], offline)
    if has_safetensors(folder):
        absent = [name for name in safetensors_files(folder) if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(f"it lacks {absent[0]}")
    else:
        folder = fetch([*_SETTINGS, PICKLED], offline)
        if not any(folder.glob(PICKLED)):
            raise FileNotFoundError(f"it holds neither model.safetensors nor {PICKLED}")
    return folder


def _require_hub(source: str) -> None:
    """Ask the hub for a sign of life: its client would retry for most of a minute."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    absent = f"'{source}' is neither a folder nor whole in the Hugging Face cache of this machine"
    if constants.HF_HUB_OFFLINE:
        raise OLMoEnvironmentError(f"{absent}, and HF_HUB_OFFLINE forbids to download it")
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as err:
        raise OLMoEnvironmentError(f"{absent}, and {constants.ENDPOINT} cannot be reached ({getattr(err, 'reason', err)})") from err


def read_settings(folder: Path) -> Any:
    """The config of a Hugging Face folder with the defaults that its `config.json` leaves out."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as err:  # unknown model types, malformed JSON, values of a wrong type
        raise OLMoCheckpointError(
            f"{folder / 'config.json'} cannot be read as the config of a known model: {first_line(err)[:160]}"
        ) from err


class PickledFiles:
    """The tensors of `pytorch_model*.bin` files (weights only: nothing in them can run), mapped and not copied."""

    def __init__(self, folder: Path) -> None:
        self._state: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob(PICKLED)):
            try:
                state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except Exception as err:  # the zip reader, the unpickler and the file system have an error each
                raise OLMoCheckpointError(f"{file} cannot be read as a file of weights: {first_line(err)[:160]}") from err
            self._state |= state
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in self._state.items()}

    def read(self, name: str) -> torch.Tensor:
        return self._state[name]


def stored_tensors(folder: Path) -> SafetensorsFiles | PickledFiles:
    """The weights of a Hugging Face folder under their stored names."""
    if has_safetensors(folder):
        return SafetensorsFiles(folder)
    if any(folder.glob(PICKLED)):
        return PickledFiles(folder)
    raise OLMoCheckpointError(f"{folder} holds no weights: neither model.safetensors (or its index) nor {PICKLED}")
