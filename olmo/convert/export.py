"""A model as a Hugging Face folder: weights, config, tokenizer, processor, chat template and generation settings.

Plain models become transformers' own class and need no code of ours. Pruned models bring their code along (`remote_code`),
under a model type of their own: read by transformers alone they are an error, never an unpruned model.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from olmo.checkpoints.fit import compare_shapes
from olmo.convert.processor import write_processor
from olmo.convert.safetensors_file import MAX_FILE_BYTES, write_safetensors_files
from olmo.convert.writers import new_folder
from olmo.exceptions import OLMoConfigurationError
from olmo.hf_model.config import to_hf_config
from olmo.hf_model.names import EMBEDDING, HEAD, LM_HEAD, stored_name
from olmo.models.model import build_model_config
from olmo.models.molmo2.config import Molmo2Config
from olmo.weights import WeightSource, is_scorer

log = logging.getLogger(__name__)


class RenamedWeights(WeightSource):
    """The same weights under the names that a file is to have."""

    def __init__(self, source: WeightSource, names: Mapping[str, str]) -> None:
        """`names`: name in the file -> our name."""
        self.source, self.names, self.folder, self.format = source, dict(names), source.folder, source.format
        self.shapes = {stored: source.shapes[ours] for stored, ours in names.items()}
        self.dtypes = {stored: source.dtypes[ours] for stored, ours in names.items()}

    def read(self, name: str) -> Tensor:
        return self.source.read(self.names[name])


def write_huggingface(weights: WeightSource, config: Mapping[str, Any], out: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """`config`: raw settings with a block `model`, as `read_config` gives them."""
    model_config = build_model_config(config["model"])
    if not isinstance(model_config, Molmo2Config):
        raise OLMoConfigurationError(f"models of type '{config['model'].get('model_name')}' have no Hugging Face format")
    check_inputs(model_config)
    wanted = check_weights(weights, model_config)
    if prunes(model_config):
        from olmo.convert.remote_code import pruned_config, write_remote_code

        described = pruned_config(model_config)
        names = {f"model.{ours}": ours for ours in wanted}
    else:
        described = to_hf_config(model_config)
        names = {stored_name(ours): ours for ours in wanted}
        if HEAD not in wanted:  # their class always has an output matrix of its own
            names[LM_HEAD] = EMBEDDING
    described["dtype"] = str(next(iter(weights.dtypes.values()))).removeprefix("torch.")
    with new_folder(RenamedWeights(weights, names), out) as (tmp, done):
        (tmp / "config.json").write_text(json.dumps(described, indent=2) + "\n")
        write_processor(model_config, tmp)
        if prunes(model_config):
            write_remote_code(tmp)
        write_safetensors_files(tmp, RenamedWeights(weights, names), done, max_bytes)


def check_inputs(config: Molmo2Config) -> None:
    """Refuse models whose tokens are spared by what they are shown: the exported processor would show them everything."""
    vit = config.vision_backbone and config.vision_backbone.vit
    if vit and vit.sees_less:
        raise OLMoConfigurationError(
            f"model.vision_backbone.vit.prune_method is {vit.prune_method}, which no Hugging Face processor can follow: "
            "set vit.prune to false to export the same weights as an unpruned model"
        )
    if config.mm_preprocessor.video.slow_fast.mode is not None:
        raise OLMoConfigurationError("model.mm_preprocessor.video.slow_fast.mode must be null: no Hugging Face processor makes fast frames")


def prunes(config: Molmo2Config) -> bool:
    """Whether the model is more than transformers' own class computes."""
    return bool(getattr(config.vision_backbone and config.vision_backbone.vit, "prune", False))


def check_weights(weights: WeightSource, config: Molmo2Config) -> list[str]:
    """Names of the weights to write: those of the model, all of which must be there."""
    wanted = {name: tuple(p.shape) for name, p in config.build_model("meta").named_parameters()}
    compare_shapes(f"the checkpoint {weights.folder}", weights.shapes, wanted, set())
    unused = sum(is_scorer(name) for name in weights.shapes) - sum(is_scorer(name) for name in wanted)
    if unused:
        log.info("the config says that this model does not prune: the %d weights of its token scorer are left out", unused)
    return list(wanted)
