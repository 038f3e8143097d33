"""How many bytes of activations a forward pass leaves behind for its backward pass.

    with ActivationMemory(model) as memory:
        loss = model(batch, compute_loss=True).loss.ce
    memory.saved_bytes, memory.held_bytes

Parameters and buffers do not count, and every storage counts once, however many views of it are saved. It also works on fake
tensors (`FakeTensorMode`), where shapes of any size take neither memory nor time. For eager code; compiled code decides
by itself what it keeps.
"""

from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class ActivationMemory:
    """Notes the storages of tensors while a forward pass runs inside its `with` block."""

    def __init__(self, model: nn.Module):
        self._model = {StorageWeakRef(t.untyped_storage()).cdata for t in (*model.parameters(), *model.buffers())}
        self._saved: dict[int, tuple[StorageWeakRef, int]] = {}
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda t: t)
        self._census = _Census(self._made)

    def __enter__(self) -> "ActivationMemory":
        self._hooks.__enter__()
        self._census.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._census.__exit__(*error)
        self._hooks.__exit__(*error)

    @property
    def saved_bytes(self) -> int:
        """Of tensors that autograd saved and still holds."""
        return self._alive(self._saved)

    @property
    def held_bytes(self) -> int:
        """Of all that was computed or saved and is still alive, results that the caller holds included. What selective
        checkpointing stores shows here only, because it does not pass through autograd."""
        return self._alive(self._saved | self._made)

    def _save(self, t: torch.Tensor) -> torch.Tensor:
        _note(t, self._saved)
        return t

    def _alive(self, noted: dict[int, tuple[StorageWeakRef, int]]) -> int:
        return sum(size for key, (ref, size) in noted.items() if key not in self._model and not ref.expired())


class _Census(TorchDispatchMode):
    """Notes the storage of every result."""

    def __init__(self, made: dict[int, tuple[StorageWeakRef, int]]):
        super().__init__()
        self.made = made

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                _note(leaf, self.made)
        return out


def _note(t: torch.Tensor, into: dict[int, tuple[StorageWeakRef, int]]) -> None:
    storage = t.untyped_storage()
    ref = StorageWeakRef(storage)  # keeps the identity, not the memory, so no other storage can take its place
    into.setdefault(ref.cdata, (ref, storage.nbytes()))
