"""Keys and values of past tokens, for rows of different lengths without a gap between prompt and answer."""

import torch


class KVCache:
    """Preallocated keys and values of every layer.

    The first pass writes the right-padded prompt to the front. Later passes bring one token per row and write it to that
    row's next free slot, i.e. over the padding: slot j of a row always holds its j-th token.
    """

    def __init__(self, n_layers: int, max_length: int):
        self.max_length = max_length
        self.slots: torch.Tensor | None = None
        """[B] slot of the row's new token; None while the prompt is read."""
        self.layers = [LayerCache(self) for _ in range(n_layers)]


class LayerCache:
    """The part of one layer: keys and values [B, KV, max_length, hd]."""

    def __init__(self, cache: KVCache):
        self.cache = cache
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def update(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store k, v [B, KV, S, hd] and return what the new tokens attend over."""
        if self.cache.slots is None:
            self.keys, self.values = (_allocate(t, self.cache.max_length) for t in (k, v))
            return k, v
        rows = torch.arange(k.shape[0], device=k.device)
        self.keys[rows, :, self.cache.slots] = k[:, :, 0]
        self.values[rows, :, self.cache.slots] = v[:, :, 0]
        return self.keys, self.values


def _allocate(t: torch.Tensor, length: int) -> torch.Tensor:
    used = t.shape[2]
    store = t.new_empty(*t.shape[:2], length, t.shape[3])
    store[:, :, :used] = t
    store[:, :, used:] = 0  # a masked slot may hold anything finite, but 0 * NaN would poison the row
    return store
