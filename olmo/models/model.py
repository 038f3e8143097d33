"""What every model offers the trainer and the evaluator, and the table of models."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from olmo.batch import Batch
from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.kv_cache import KVCache
from olmo.nn.losses import LossTerms
from olmo.nn.vision_backbone import VisionOutput

MODELS = {
    "video_olmo": "olmo.models.molmo2.config:Molmo2Config",
    "temporal_video_olmo": "olmo.models.temporal_video_olmo.config:TemporalVideoOlmoConfig",
}
"""`model_name` of a config file -> where its config class is."""

GROUPS = ("llm", "connector", "vit", "frame_selector", "temporal_token_scorer")
"""Parameter groups in the order in which optimizer states hold them."""

LogitRows = Literal["loss", "all", "last"]


@dataclass
class ModelOutput:
    """Result of a forward pass."""

    logits: torch.Tensor | None
    """fp32 [n, V], row-major: positions with a loss, all valid positions, or the last one of each row; None with a loss."""
    loss: LossTerms | None
    """Weighted sums over the tokens with a loss, if asked for."""
    aux_loss: torch.Tensor | None
    """0-d auxiliary loss of the token scorer, already scaled by its coefficient; None if there is none."""
    vision: VisionOutput | None
    """What the vision backbone returned; None without images."""
    tokens_after: tuple[int, ...]
    """Tokens of every row that the language model saw."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Numbers worth logging."""


@dataclass
class DecodeState:
    """Everything that decoding one more token per row needs."""

    cache: KVCache
    positions: torch.Tensor
    """[B] position id of the next token."""
    subsegments: torch.Tensor
    """[B, cache.max_length] branch of every slot; new tokens continue the branch of the row's last token."""


@dataclass
class ModelConfig(BaseConfig, ABC):
    """Base of the `model` block; the subclass is chosen by `model_name`."""

    _model_name: ClassVar[str] = ""

    model_name: str = ""
    """Selects the model class."""

    def __post_init__(self) -> None:
        if self.model_name != self._model_name:
            raise OLMoConfigurationError(f"model.model_name is '{self.model_name}' but the config is read as '{self._model_name}'")

    @abstractmethod
    def build_model(self, device: torch.device | str = "meta") -> "ModelBase":
        """The model of this (valid) config with uninitialised parameters on `device`."""


class ModelBase(nn.Module, ABC):
    """Interface of a model; parameters have their published names."""

    config: ModelConfig

    @abstractmethod
    def forward(self, batch: Batch, *, compute_loss: bool = False, logits: LogitRows = "loss", pad_to: int | None = None) -> ModelOutput:
        """Logits of the positions named by `logits`, or (with `compute_loss`) the loss of all positions that carry one.

        `pad_to`: length of the sequences that enter the language model, for static shapes; default the longest row's.
        """

    @abstractmethod
    def encode_vision(self, batch: Batch) -> VisionOutput | None:
        """Features of the batch's images; only needed by callers that time it apart from `prefill`."""

    @abstractmethod
    def prefill(
        self, batch: Batch, max_new_tokens: int, vision: VisionOutput | None = None
    ) -> tuple[torch.Tensor, DecodeState, ModelOutput]:
        """Read the prompts; logits [B, V] of each row's last token and the state for up to `max_new_tokens` steps."""

    @abstractmethod
    def decode_step(self, ids: torch.Tensor, state: DecodeState) -> torch.Tensor:
        """Append one token per row (ids [B]) and return the logits [B, V] of the next."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw fresh weights (after `to_empty`)."""

    @abstractmethod
    def pretrained_files(self) -> dict[str, str]:
        """Prefix of parameter names -> file of weights named by an `init_path` of the config."""

    @abstractmethod
    def group_of(self, name: str) -> str:
        """Which of GROUPS the parameter `name` belongs to."""

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Every parameter in exactly one group, groups in their fixed order."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in GROUPS}
        for name, parameter in self.named_parameters():
            groups[self.group_of(name)].append((name, parameter))
        return groups

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def model_config_class(name: str | None) -> type[ModelConfig]:
    """The config class registered under `name`."""
    if name not in MODELS:
        what = "model.model_name is missing" if name is None else f"model.model_name '{name}' is unknown"
        raise OLMoConfigurationError(f"{what}; known models: {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build_model_config(raw: dict[str, Any], overrides: Sequence[str] = ()) -> ModelConfig:
    """The typed config of a `model` block; its class follows `model_name`, also where an override gives it."""
    chosen = [value for key, _, value in (word.partition("=") for word in overrides) if key == "model_name"]
    raw = raw | {"model_name": chosen[-1]} if chosen else raw
    return model_config_class(raw.get("model_name")).from_dict(raw, overrides)
