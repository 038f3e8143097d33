"""Reading a Hugging Face folder: its weights under our names, and its settings as a `model` block."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from olmo.exceptions import OLMoCheckpointError, first_line
from olmo.hf_model.config import OWN_BLOCK, from_hf_config
from olmo.hf_model.names import EMBEDDING, HEAD, Stored, correspondence, stored_shape
from olmo.safetensors_files import SafetensorsFiles
from olmo.weights import WeightSource

_PROCESSOR_FILES = {  # newer folders keep all in the first
    "processor_config.json": None,
    "preprocessor_config.json": "image_processor",
    "video_preprocessor_config.json": "video_processor",
}
_ROWS_AT_A_TIME = 4096


class HuggingFaceWeights(WeightSource):
    """`config.json` and safetensors, in either spelling of the names.

    Hugging Face files always have an output matrix. Where it is the embedding once more, and our config does not say that the
    two are trained apart, the model is a tied one and has no such weight.
    """

    format = "huggingface"

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        raw = read_json(self.folder / "config.json")
        self._files = SafetensorsFiles(self.folder)
        self._table, unknown = correspondence(self._files.shapes, _embedding_rows(raw))
        # Weights that we do not know keep their names, so that whoever compares them with a model lists them.
        self._table |= {name: Stored((name,)) for name in unknown}
        if HEAD in self._table and EMBEDDING in self._table and not _says_untied(raw) and self._head_is_embedding():
            del self._table[HEAD]
        self.shapes = {ours: stored_shape(stored, self._files.shapes) for ours, stored in self._table.items()}
        self.dtypes = {ours: self._files.dtypes[stored.names[0]] for ours, stored in self._table.items()}

    @property
    def tied(self) -> bool:
        """Whether the embedding is the output matrix."""
        return HEAD not in self._table

    def read(self, name: str) -> Tensor:
        stored = self._table[name]
        if stored.rows is None:
            parts = [self._files.read(n) for n in stored.names]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        (start, stop), parts, at = stored.rows, [], 0
        for n in stored.names:
            rows = self._files.shapes[n][0]
            first, end = max(start - at, 0), rows if stop is None else min(stop - at, rows)
            if first < end:
                whole = self._files.read(n)
                parts.append(whole if (first, end) == (0, rows) else whole[first:end])
            at += rows
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _head_is_embedding(self) -> bool:
        head, embedding = self.read(HEAD), self.read(EMBEDDING)
        if head.shape != embedding.shape or head.dtype != embedding.dtype:
            return False
        # In pieces: trained apart, they differ in the first; and comparing makes a copy.
        return all(torch.equal(a, b) for a, b in zip(head.split(_ROWS_AT_A_TIME), embedding.split(_ROWS_AT_A_TIME), strict=True))


def read_model_block(folder: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` block for the folder's `config.json`, `raw`: what its processor and weights tell is filled in."""
    model = from_hf_config(raw, processor=_processor(folder))["model"]
    llm = dict(model["llm"]) | {"weight_tying": _tied(folder)}
    if (folder / "tokenizer.json").is_file():
        # Beside the name, where there is one: the folder may be moved or removed later.
        place = str(Path(folder).resolve())
        named = llm["tokenizer"]["identifier"] if OWN_BLOCK in raw else place
        llm["tokenizer"] = {"identifier": named, "tokenizer_dir": place}
    return model | {"llm": llm}


@cache
def _tied(folder: Path) -> bool:
    """Once per command: comparing the two matrices reads gigabytes."""
    return HuggingFaceWeights(folder).tied


def _says_untied(raw: Mapping[str, Any]) -> bool:
    return _own_llm(raw).get("weight_tying") is False


def _embedding_rows(raw: Mapping[str, Any]) -> int:
    """Rows of the embedding proper; rows behind them are those of added tokens."""
    own, text = _own_llm(raw), raw.get("text_config")
    rows = own.get("embedding_size") or own.get("vocab_size")
    if rows is None and isinstance(text, Mapping):
        rows = text.get("vocab_size")
    if not isinstance(rows, int):
        raise OLMoCheckpointError("config.json has no text_config.vocab_size, so the embedding cannot be told from added tokens")
    return rows


def _own_llm(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of the language model in our block of a `config.json`; empty if it has none."""
    own = raw.get(OWN_BLOCK)
    return own.get("llm") or {} if isinstance(own, Mapping) else {}


def _processor(folder: Path) -> dict[str, Any]:
    """Settings of the folder's processor; empty if it has none."""
    settings: dict[str, Any] = {}
    for name, part in _PROCESSOR_FILES.items():
        if (folder / name).is_file():
            found = read_json(folder / name)
            settings = found | settings if part is None else {part: found} | settings
    return settings


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping."""
    try:
        raw = json.loads(file.read_bytes())
    except (OSError, ValueError) as err:
        raise OLMoCheckpointError(f"{file} cannot be read as JSON: {first_line(err)}") from err
    if not isinstance(raw, dict):
        raise OLMoCheckpointError(f"{file} must hold a mapping of config keys, not {type(raw).__name__}")
    return raw
