"""Tensors inside larger files, each a small `torch.save` archive of its own, mapped instead of read.

torch itself can map an archive only if it is the whole file. The files of a sharded checkpoint are many archives one
after the other, and reading the embedding of a large model from one would hold a second copy of it in memory.
"""

import io
import math
import mmap
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_ALLOWED = {
    "FloatStorage": torch.float32,
    "BFloat16Storage": torch.bfloat16,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Layout(NamedTuple):
    """One tensor as its pickle describes it."""

    dtype: torch.dtype
    entry: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _LayoutUnpickler(pickle.Unpickler):
    """Reads the pickle of an archive that holds one plain tensor, without building anything but its description."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _ALLOWED:
            return _ALLOWED[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _layout
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a plain tensor")

    def persistent_load(self, pid: tuple) -> tuple[torch.dtype, str]:
        _, dtype, key, _, _ = pid
        return dtype, key


def _layout(storage: tuple[torch.dtype, str], offset: int, shape: tuple, stride: tuple, *_: Any) -> _Layout:
    dtype, key = storage
    return _Layout(dtype, f"data/{key}", offset, tuple(shape), tuple(stride))


class _Part(io.RawIOBase):
    """A range of a mapped file, as a file."""

    def __init__(self, memory: mmap.mmap, start: int, length: int) -> None:
        self.memory, self.start, self.length, self.position = memory, start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        if base + offset < 0:
            raise OSError("a position before the start")
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.length - self.position))
        begin = self.start + self.position
        buffer[:count] = self.memory[begin : begin + count]
        self.position += count
        return count


class MappedFiles:
    """The files of a folder, each mapped once. The pages are the file's own: they cost no memory that others could use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._memory: dict[str, mmap.mmap] = {}

    def tensor(self, name: str, offset: int, length: int) -> Tensor | None:
        """The tensor whose archive lies at `offset` of file `name`; None if it is stored in a way that cannot be mapped.

        It may lie at any byte, so it is for copying from, not for computing with.
        """
        try:
            memory = self._map(name)
            with zipfile.ZipFile(_Part(memory, offset, length)) as archive:
                root = archive.namelist()[0].partition("/")[0]
                layout = _LayoutUnpickler(archive.open(f"{root}/data.pkl")).load()
                if not isinstance(layout, _Layout):
                    return None
                if math.prod(layout.shape) == 0:
                    return torch.empty(layout.shape, dtype=layout.dtype)
                if archive.read(f"{root}/byteorder") != b"little":
                    return None
                entry = archive.getinfo(f"{root}/{layout.entry}")
                if entry.compress_type != zipfile.ZIP_STORED:
                    return None
        except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, TypeError, IndexError, EOFError, OSError):
            return None
        start = offset + entry.header_offset
        start += 30 + sum(int.from_bytes(memory[start + at : start + at + 2], "little") for at in (26, 28))  # name, extra fields
        needed = layout.offset + 1 + sum((size - 1) * step for size, step in zip(layout.shape, layout.stride, strict=True))
        if needed * layout.dtype.itemsize > entry.file_size or start + entry.file_size > offset + length:
            return None
        flat = torch.frombuffer(memory, dtype=layout.dtype, count=entry.file_size // layout.dtype.itemsize, offset=start)
        return flat.as_strided(layout.shape, layout.stride, layout.offset)

    def _map(self, name: str) -> mmap.mmap:
        if name not in self._memory:
            with open(self.folder / name, "rb") as file:
                # A private copy on write, only because torch wants memory that could be written to.
                self._memory[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._memory[name]
