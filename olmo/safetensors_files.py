"""A folder of safetensors: one file, or several with an index; damage is found and said in one sentence.

A safetensors file carries no check sums, so flipped bits among its numbers would pass unseen. Files written by this
package have a CRC-32 of every tensor in their metadata (key `crc32`: a JSON mapping), and files that have one are
checked when a tensor is read.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from olmo.exceptions import OLMoCheckpointError, first_line

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHECKSUMS = "crc32"
"""Key of the metadata of a file that holds the check sums."""

_LONGEST_HEADER = 100_000_000
"""The format's own limit."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def checksum(tensor: Tensor) -> str:
    """CRC-32 of a tensor's bytes, as the metadata of our files hold it."""
    return f"{zlib.crc32(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()):08x}"


def has_safetensors(folder: Path) -> bool:
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def safetensors_files(folder: Path) -> list[str]:
    """Names of the files that hold the weights of a folder: `model.safetensors`, or the parts that its index lists."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    return sorted(set(_weight_map(folder).values()))


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file, from the index."""
    file = folder / INDEX
    try:
        files = json.loads(file.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise OLMoCheckpointError(f"{file} cannot be read as an index of safetensors files: {type(err).__name__} {err}") from None
    if not isinstance(files, dict) or not all(isinstance(f, str) and Path(f).name == f for f in files.values()):
        raise OLMoCheckpointError(f"{file} must map names of tensors to names of files beside it")
    return files


def missing_part(folder: Path) -> str | None:
    """What a copy that was cut off lacks: a file that the index lists, or the end of one; None if nothing seems missing."""
    for name in safetensors_files(folder):
        file = folder / name
        if not file.is_file():
            return name
        missing = _end_of_data(file) - file.stat().st_size
        if missing > 0:
            return f"the last {missing} bytes of {name}"
    return None


def _end_of_data(file: Path) -> int:
    """Where the last tensor must end, from the header; 0 if the header makes no sense (opening the file says so)."""
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= _LONGEST_HEADER:
            return 0
        text = stream.read(length)
    if len(text) < length:
        return 8 + length
    try:
        tensors = [v for k, v in json.loads(text).items() if k != "__metadata__"]
        return 8 + length + max((t["data_offsets"][1] for t in tensors), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return 0


class SafetensorsFiles:
    """The tensors of a folder under their stored names; reading one maps its file, and copies nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.metadata: dict[str, str] = {}
        self._files: dict[str, Any] = {}
        self._checksums: dict[str, str] = {}
        for file in safetensors_files(folder):
            self._open(file)
        if not (folder / SINGLE).is_file():
            self._compare_index(_weight_map(folder))

    def _open(self, name: str) -> None:
        from safetensors import SafetensorError, safe_open

        file = self.folder / name
        try:
            opened = safe_open(file, framework="pt")
            tensors = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (it is no mapping)
            self.shapes |= {key: tuple(t.get_shape()) for key, t in tensors.items()}
            self.dtypes |= {key: _DTYPES[t.get_dtype()] for key, t in tensors.items()}
            metadata = opened.metadata() or {}
            self._checksums |= json.loads(metadata.pop(CHECKSUMS, "{}"))
        except FileNotFoundError:
            raise OLMoCheckpointError(f"the checkpoint {self.folder} is not whole: {name} is missing") from None
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as err:
            raise OLMoCheckpointError(f"{file} is damaged, or no safetensors file: {first_line(err)}") from None
        self.metadata |= metadata
        self._files |= dict.fromkeys(tensors, opened)

    def _compare_index(self, index: dict[str, str]) -> None:
        missing = sorted(index.keys() - self.shapes.keys())
        if missing:
            raise OLMoCheckpointError(
                f"{self.folder / INDEX} lists {len(missing)} tensors that its files do not hold ({', '.join(missing[:3])}): "
                "the files are not those that the index was written for"
            )

    def read(self, name: str) -> Tensor:
        """One whole tensor, mapped from its file."""
        from safetensors import SafetensorError

        try:
            value = self._files[name].get_tensor(name)
        except (OSError, SafetensorError) as err:
            raise OLMoCheckpointError(f"{name} of {self.folder} cannot be read: {first_line(err)}") from None
        expected = self._checksums.get(name)
        if expected is not None and checksum(value) != expected:
            raise OLMoCheckpointError(f"{name} of {self.folder} is damaged: its bytes do not have the check sum that was stored with them")
        return value
