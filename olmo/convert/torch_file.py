"""Writing `torch.save` files of weights one tensor at a time.

`torch.save` wants all tensors in memory at once, which for a large model is more than the machine has. The file is a plain
zip: a pickle that says which tensor has which shape, and one uncompressed entry with the bytes of each. So it can be written
in the order of the entries, while every tensor is read only when its turn comes.
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from olmo.exceptions import OLMoCheckpointError
from olmo.weights import WeightSource

ALIGNMENT = 64
"""Bytes to which torch aligns the data of every tensor, so that mapped files can be used as they are."""
_CHUNK = 64 << 20
_ROOT = "archive"
_STORAGES = {
    torch.float32: "FloatStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.float16: "HalfStorage",
    torch.float64: "DoubleStorage",
    torch.int64: "LongStorage",
    torch.int32: "IntStorage",
    torch.uint8: "ByteStorage",
    torch.bool: "BoolStorage",
}


class _Storage:
    """Where the bytes of a tensor are; pickled as torch's persistent id of a storage."""

    def __init__(self, key: str, dtype: torch.dtype, numel: int):
        self.persistent_id = ("storage", getattr(torch, _STORAGES[dtype]), key, "cpu", numel)


class _Tensor:
    """Pickled as a tensor that owns its whole storage."""

    def __init__(self, storage: _Storage, shape: tuple[int, ...]):
        self.storage, self.shape = storage, shape

    def __reduce__(self):
        stride = torch.empty(self.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, self.shape, stride, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object):
        return obj.persistent_id if isinstance(obj, _Storage) else None


def write_torch_file(path: Path, weights: WeightSource, done: Callable[[int], None]) -> None:
    """Write what `torch.save` of a mapping of names to tensors would; `done` is called with the bytes of every piece."""
    unknown = {dtype for dtype in weights.dtypes.values() if dtype not in _STORAGES}
    if unknown:
        raise OLMoCheckpointError(f"{path.name} cannot hold {', '.join(map(str, unknown))}; convert with --dtype or to safetensors")
    tensors = {
        name: _Tensor(_Storage(str(i), weights.dtypes[name], torch.Size(shape).numel()), tuple(shape))
        for i, (name, shape) in enumerate(weights.shapes.items())
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "data.pkl", [_pickled(tensors)])
        _write_entry(archive, "byteorder", [sys.byteorder.encode()])
        for i, name in enumerate(weights.shapes):
            raw = tensor_bytes(weights.read(name))
            assert len(raw) == weights.num_bytes(name), f"{name} has {len(raw)} bytes, not {weights.num_bytes(name)}"
            _write_entry(archive, f"data/{i}", [raw[start : start + _CHUNK] for start in range(0, len(raw), _CHUNK)], done)
            del raw  # before the next one is read
        _write_entry(archive, "version", [b"3\n"])


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, row-major, without a copy where it is contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def _pickled(state: dict[str, _Tensor]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(state)
    return buffer.getvalue()


def _write_entry(
    archive: zipfile.ZipFile, name: str, pieces: list[bytes | memoryview], done: Callable[[int], None] = lambda _: None
) -> None:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
    large = sum(map(len, pieces)) >= zipfile.ZIP64_LIMIT
    # The local header: 30 bytes, the name, the extra fields. One of them is padding that aligns the data behind it.
    header = 30 + len(info.filename.encode()) + (20 if large else 0) + 4
    padding = -(archive.fp.tell() + header) % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as entry:
        for piece in pieces:
            entry.write(piece)
            done(len(piece))
