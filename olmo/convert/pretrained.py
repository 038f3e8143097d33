"""Pretrained language models and vision transformers, from Hugging Face folders to the files that `init_path` names.

A file holds the weights of one part in fp32 under our names, as the published converter writes it (language models with
`transformer.` in front). The part may be one of `olmo/model_configs.py`, whose config the folder must match, or any model
of the same families; then its config is read from the folder.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from olmo.checkpoints.fit import compare_shapes
from olmo.config import StrEnum
from olmo.convert.hub import model_folder, read_settings, stored_tensors
from olmo.convert.output import atomic_output, progress_bar, sync
from olmo.convert.pretrained_configs import config_of, fit_named
from olmo.convert.pretrained_names import Recipe, language_recipes, vision_recipes
from olmo.convert.torch_file import write_torch_file
from olmo.exceptions import OLMoCheckpointError, OLMoCliError
from olmo.nn.image_vit import VitConfig
from olmo.nn.llm_config import LlmConfig
from olmo.weights import WeightSource

log = logging.getLogger(__name__)

SOURCES = {
    "qwen3_4b": "Qwen/Qwen3-4B",
    "qwen3_4b_instruct": "Qwen/Qwen3-4B-Instruct-2507",
    "qwen3_8b_base": "Qwen/Qwen3-8B-Base",
    "qwen3_8b": "Qwen/Qwen3-8B",
    "olmo3_7b_instruct": "allenai/Olmo-3-7B-Instruct",
    "openai": "openai/clip-vit-large-patch14-336",
    "siglip": "google/siglip-so400m-patch14-384",
    "siglip2": "google/siglip2-so400m-patch14-384",
    "dinov2_large_336": "facebook/dinov2-large",
    "metaclip_l14_336": "facebook/metaclip-l14-fullcc2.5b",
    "metaclip_b16_224": "facebook/metaclip-b16-fullcc2.5b",
    "metaclip_400m_b16_224": "facebook/metaclip-b16-400m",
}
"""Named part -> where the published models take it from."""


@dataclass(frozen=True)
class Prepared:
    """A written file and the config that belongs to it."""

    file: Path
    config: LlmConfig | VitConfig
    num_tensors: int
    num_parameters: int

    @property
    def block(self) -> str:
        """The block of a config that describes the part; its key `init_path` loads the file."""
        return "model.llm" if isinstance(self.config, LlmConfig) else "model.vision_backbone.vit"

    def settings(self) -> dict[str, Any]:
        """What this block has to say where it differs from the defaults."""
        ours, plain = self.config.asdict(), type(self.config)().asdict()
        differing = {key: value for key, value in ours.items() if value != plain[key]} | {"init_path": str(self.file)}
        return {key: str(value) if isinstance(value, StrEnum) else value for key, value in differing.items()}


class PretrainedWeights(WeightSource):
    """The stored tensors of a folder as ours, made one at a time in fp32."""

    format = "huggingface"

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """`name`: a named part that the folder must hold; by default whatever it holds."""
        self.folder = folder
        found = config_of(folder, read_settings(folder))
        named = None if name is None else named_config(name)
        extra = 0 if named is None else fit_named(name, named, found, folder)
        self.config = found if named is None else named
        self._files = stored_tensors(folder)
        try:
            self._recipes = self._make_recipes(found, extra)
        except OLMoCheckpointError as err:
            raise OLMoCheckpointError(f"{folder} cannot be converted: {err}") from err
        self.shapes = {ours: recipe.shape(self._files.shapes) for ours, recipe in self._recipes.items()}
        self.dtypes = dict.fromkeys(self.shapes, torch.float32)
        self._check()

    def _make_recipes(self, found: LlmConfig | VitConfig, extra: int) -> dict[str, Recipe]:
        stored = self._files.shapes
        if isinstance(self.config, VitConfig):
            return vision_recipes(stored, self.config.image_num_layers, extra, self.config.num_prefix_tokens, self.config.grid)
        table = next((shape for name, shape in stored.items() if name.endswith("embed_tokens.weight")), (self.config.embedding_rows,))
        if table[0] != self.config.embedding_rows:
            raise OLMoCheckpointError(f"its vocabulary has {table[0]} rows, but its config says {self.config.embedding_rows}")
        family = "olmo3" if found.norm_after else "qwen3"
        return language_recipes(stored, family, self.config.n_layers, self.config.weight_tying)

    def _check(self) -> None:
        """Every tensor of our module is made, in its shape, and nothing else."""
        compare_shapes(f"what {self.folder} holds", self.shapes, _module_shapes(self.config), set())
        if isinstance(self.config, LlmConfig) and self.config.weight_tying and "lm_head.weight" in self._files.shapes:
            if not torch.equal(self._files.read("lm_head.weight").float(), self.read("transformer.wte.embedding")):
                raise OLMoCheckpointError(f"{self.folder} ties output and embedding in its config, but its two tables differ")
        if isinstance(self.config, LlmConfig) and (self.folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            rows = self.config.embedding_rows
            entries = Tokenizer.from_file(str(self.folder / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
            if entries > rows:
                raise OLMoCheckpointError(
                    f"the tokenizer of {self.folder} has {entries} entries, more than the {rows} rows of its embedding"
                )

    def read(self, name: str) -> Tensor:
        return self._recipes[name].make(self._files.read).float()

    @property
    def num_parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


def _module_shapes(config: LlmConfig | VitConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of our module, without the embedding of added tokens, which no pretrained model has."""
    from olmo.nn.llm import Transformer

    with torch.device("meta"):
        parameters = dict((config.build() if isinstance(config, VitConfig) else Transformer(config)).named_parameters())
    if isinstance(config, VitConfig):
        return {name: tuple(p.shape) for name, p in parameters.items()}
    return {f"transformer.{name}": tuple(p.shape) for name, p in parameters.items() if name != "wte.new_embedding"}


def named_config(name: str) -> LlmConfig | VitConfig:
    from olmo.model_configs import LLMS, VITS

    return (LLMS | VITS)[name]


def default_file(name: str, config: LlmConfig | VitConfig, data_dir: Path) -> Path:
    """Where the named config looks for its weights, below `data_dir`; other models go beside them."""
    if name in SOURCES:
        return data_dir.joinpath(*Path(str(config.init_path)).parts[-2:])
    kind = "pretrained_llms" if isinstance(config, LlmConfig) else "pretrained_image_encoders"
    return data_dir / kind / f"{Path(name).name.lower()}.pt"


def prepare(name: str, *, source: str | None = None, data_dir: Path, cache_dir: str | None = None, out: Path | None = None) -> Prepared:
    """Convert a named part (from `source`, or from where it was published), or the model that a folder or hub id holds."""
    if source is not None and name not in SOURCES:
        raise OLMoCliError(f"'{name}' is no named model, so --source has no meaning; named ones: {', '.join(SOURCES)}")
    folder = model_folder(SOURCES.get(name, name) if source is None else source, cache_dir)
    weights = PretrainedWeights(folder, name if name in SOURCES else None)
    file = default_file(name, weights.config, data_dir) if out is None else out
    log.info("%s: %d tensors, %s parameters", folder, len(weights.shapes), f"{weights.num_parameters:,}")
    size = 4 * weights.num_parameters
    with atomic_output(file, size) as tmp, progress_bar(f"writing {file.name}", size) as done:
        write_torch_file(tmp, weights, done)
        sync(tmp)
    return Prepared(file, weights.config, len(weights.shapes), weights.num_parameters)
