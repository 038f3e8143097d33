"""From a checkpoint folder to its config and to a model with its weights, whatever the format.

All of these take the checkpoint itself: what the user names goes through `select_checkpoint` once, in the command.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from olmo.checkpoints.finding import HF_CONFIG, NATIVE_CONFIG, format_of
from olmo.checkpoints.fit import initialise, match_weights, read_weights
from olmo.checkpoints.source import open_weights
from olmo.config import read_yaml
from olmo.exceptions import OLMoCheckpointError
from olmo.safetensors_files import SafetensorsFiles
from olmo.weights import SCORER, is_scorer

log = logging.getLogger(__name__)

PLAIN, TEMPORAL = "video_olmo", "temporal_video_olmo"


def read_config(folder: str | Path) -> dict[str, Any]:
    """The raw settings of a checkpoint as `config.yaml` has them; at least the block `model`."""
    folder = Path(folder)
    if format_of(folder) == "huggingface":
        from olmo.hf_model.source import read_json, read_model_block

        written = read_json(folder / HF_CONFIG)
        raw = {"model": read_model_block(folder, written)}
    else:
        raw = written = read_yaml(folder / NATIVE_CONFIG)
        if not isinstance(raw.get("model"), dict):
            raise OLMoCheckpointError(f"{folder / NATIVE_CONFIG} has no block 'model'")
    return raw | {"model": with_pruning(folder, raw["model"], written)}


def with_pruning(folder: Path, model: dict[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """A model block that prunes if the weights have a scorer, by the `topk` that the config gives, wherever it gives it.

    The layout of the released pruned weights is unpublished, and reading them as an unpruned model would go unnoticed.
    """
    name, backbone = model.get("model_name"), model.get("vision_backbone")
    if name not in (PLAIN, TEMPORAL) or not isinstance(backbone, dict) or not isinstance(backbone.get("vit"), dict):
        return model
    if name == PLAIN and not has_scorer(folder):
        return model
    # At these two levels no config class knows the key.
    model = {k: v for k, v in model.items() if k != "topk"} | {"model_name": TEMPORAL}
    backbone = {k: v for k, v in backbone.items() if k != "topk"}
    found = sorted({float(v) for v in _values(written, "topk") if isinstance(v, int | float)})
    if "topk" not in backbone["vit"] and found:
        if len(found) > 1:
            raise OLMoCheckpointError(f"the config of {folder} gives {len(found)} values of topk: {', '.join(map(str, found))}")
        backbone["vit"] = backbone["vit"] | {"topk": found[0]}
    if name == PLAIN:
        topk = backbone["vit"].get("topk")
        origin = f"topk {topk} of its config" if topk is not None else "the default topk, because its config gives none"
        _log_once(f"{folder} has a {SCORER}: it is read as a model that prunes, with {origin}")
    return model | {"vision_backbone": backbone}


@cache
def _log_once(line: str) -> None:
    """A command reads the config of a checkpoint more than once."""
    log.info(line)


def has_scorer(folder: Path) -> bool:
    """Whether there is a scorer among the weights; those that cannot be opened are complained of when they are loaded."""
    with suppress(OLMoCheckpointError):
        # A Hugging Face folder is opened as mere files: as weights, its two large matrices are compared.
        names = SafetensorsFiles(folder).shapes if format_of(folder) == "huggingface" else open_weights(folder).shapes
        return any(is_scorer(name) for name in names)
    return False


def _values(node: Any, key: str) -> Iterator[Any]:
    """Every value of `key`, at any depth."""
    if isinstance(node, Mapping):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from _values(value, key)


def load_config(folder: str | Path, overrides: Sequence[str] = ()):
    """The model config of a checkpoint."""
    from olmo.models.model import build_model_config

    return build_model_config(read_config(folder)["model"], overrides)


def load_model(folder: str | Path, *, overrides: Sequence[str] = (), device: torch.device | str = "cpu", dtype: torch.dtype | None = None):
    """Build the model of a checkpoint with its weights, in eval mode."""
    model = load_config(folder, overrides).build_model(device="meta")
    fit = match_weights(Path(folder), model)
    for line in fit.describe():
        log.info(line)
    model = model.to(dtype=dtype).to_empty(device=device) if dtype is not None else model.to_empty(device=device)
    initialise(model, fit.initialised)
    read_weights(fit, model)
    return model.eval()
