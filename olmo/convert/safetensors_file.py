"""Writing safetensors one tensor at a time: one file, or parts of a bounded size with an index.

The header stands in front of the numbers. It has a check sum of every tensor (see `olmo/safetensors_files.py`), which is
known only when the tensor has been read, so its place is filled at the end; all check sums have the same length.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from olmo.convert.torch_file import tensor_bytes
from olmo.exceptions import OLMoCheckpointError
from olmo.safetensors_files import CHECKSUMS, INDEX, SINGLE
from olmo.weights import WeightSource

MAX_FILE_BYTES = 5_000_000_000
"""Size of a part, as the hub likes it."""
_CHUNK = 64 << 20
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_safetensors_files(folder: Path, weights: WeightSource, done: Callable[[int], None], max_bytes: int = MAX_FILE_BYTES) -> None:
    """`model.safetensors`, or `model-00001-of-0000N.safetensors` with `model.safetensors.index.json`, in a folder that is there."""
    unknown = {dtype for dtype in weights.dtypes.values() if dtype not in _TYPES}
    if unknown:
        raise OLMoCheckpointError(f"safetensors files cannot hold {', '.join(map(str, unknown))}; convert with --dtype")
    parts = _parts(weights, max_bytes)
    if len(parts) == 1:
        _write_part(folder / SINGLE, weights, parts[0], done)
        return
    files = {f"model-{i:05d}-of-{len(parts):05d}.safetensors": names for i, names in enumerate(parts, 1)}
    for file, names in files.items():
        _write_part(folder / file, weights, names, done)
    index = {
        "metadata": {"total_size": sum(weights.num_bytes(name) for name in weights.shapes)},
        "weight_map": {name: file for file, names in files.items() for name in names},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _parts(weights: WeightSource, max_bytes: int) -> list[list[str]]:
    """Names of the tensors of every file, in their order; a tensor larger than a file has one for itself."""
    parts: list[list[str]] = [[]]
    size = 0
    for name in weights.shapes:
        if parts[-1] and size + weights.num_bytes(name) > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += weights.num_bytes(name)
    return parts


def _write_part(path: Path, weights: WeightSource, names: Sequence[str], done: Callable[[int], None]) -> None:
    checksums = dict.fromkeys(names, "0" * 8)
    with open(path, "wb") as file:
        file.write(_header(weights, names, checksums))
        for name in names:
            raw, piece, crc = tensor_bytes(weights.read(name)), b"", 0
            for start in range(0, len(raw), _CHUNK):
                piece = raw[start : start + _CHUNK]
                file.write(piece)
                crc = zlib.crc32(piece, crc)
                done(len(piece))
            checksums[name] = f"{crc:08x}"
            del raw, piece  # before the next one is read
        file.seek(0)
        file.write(_header(weights, names, checksums))


def _header(weights: WeightSource, names: Sequence[str], checksums: dict[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt", CHECKSUMS: json.dumps(checksums)}}
    start = 0
    for name in names:
        end = start + weights.num_bytes(name)
        entries[name] = {"dtype": _TYPES[weights.dtypes[name]], "shape": list(weights.shapes[name]), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers are aligned
    return len(text).to_bytes(8, "little") + text
