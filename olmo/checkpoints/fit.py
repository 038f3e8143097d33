"""Comparing stored weights with a model by names and shapes, and filling the model."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from olmo.checkpoints.adapters import has_adapters
from olmo.checkpoints.source import open_weights
from olmo.exceptions import OLMoCheckpointError
from olmo.nn.lora import is_adapter
from olmo.weights import SCORER, WeightSource, is_scorer

Shapes = Mapping[str, tuple[int, ...]]


def model_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters under their checkpoint names (models of this package have no buffers worth saving)."""
    return dict(model.named_parameters())


@dataclass(frozen=True)
class Fit:
    """How the weights of a checkpoint and the parameters of a model correspond."""

    source: WeightSource
    loaded: tuple[str, ...]
    initialised: tuple[str, ...] = ()
    """Parameters that the checkpoint does not have and the model initialises itself."""
    ignored: tuple[str, ...] = ()
    """Scorer weights of the checkpoint for which this model has no use."""

    @property
    def folder(self) -> Path:
        return self.source.folder

    def describe(self) -> list[str]:
        """One line per thing worth telling."""
        lines = []
        adapters = [n for n in self.initialised if is_adapter(n)]
        scorer = [n for n in self.initialised if n not in adapters]
        if scorer:
            lines.append(f"{self.folder} has no {SCORER}: its {len(scorer)} tensors start from random values, all others are loaded")
        if adapters:
            lines.append(f"{self.folder} has no low-rank adapters: {len(adapters) // 2} layers get new ones, which change nothing at first")
        if self.ignored:
            lines.append(f"{self.folder} has {len(self.ignored)} weights of {SCORER} that this model does not use: left out")
        return lines


def match_weights(folder: Path, model: nn.Module) -> Fit:
    """Compare names and shapes; raises with the list of differences when the checkpoint is of another model."""
    wanted = {name: tuple(p.shape) for name, p in model_tensors(model).items()}
    adapters = {n for n in wanted if is_adapter(n)}
    source = open_weights(folder, merge=not adapters)
    integers = [n for n, dtype in source.dtypes.items() if not dtype.is_floating_point]
    if integers:
        raise OLMoCheckpointError(
            f"{folder} holds quantised weights, which cannot be read: {fold(integers)} ({source.dtypes[integers[0]]})"
        )
    scorer = {n for n in wanted if is_scorer(n)}
    # Without any of its tensors the scorer is new; with some of them the checkpoint is broken.
    may_lack = set() if any(is_scorer(n) for n in source.shapes) else scorer
    may_lack |= set() if has_adapters(source) else adapters
    absent, extra = compare_shapes(f"the checkpoint {folder}", source.shapes, wanted, may_lack)
    return Fit(source, tuple(n for n in wanted if n in source.shapes), absent, extra)


def compare_shapes(what: str, stored: Shapes, wanted: Shapes, may_lack: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(wanted but not stored, stored but not wanted), or an error that lists what does not fit."""
    absent = tuple(n for n in wanted if n not in stored)
    extra = tuple(n for n in stored if n not in wanted)
    missing = [n for n in absent if n not in may_lack]
    scorer_wanted = any(is_scorer(n) for n in wanted)
    unknown = [n for n in extra if scorer_wanted or not is_scorer(n)]
    other = [n for n in wanted if n in stored and stored[n] != wanted[n]]
    problems = [
        *([f"{len(missing)} missing ({fold(missing)})"] if missing else []),
        *([f"{len(unknown)} unknown ({fold(unknown)})"] if unknown else []),
        *([f"{len(other)} of another shape ({_fold_shapes(other, stored, wanted)})"] if other else []),
    ]
    if problems:
        raise OLMoCheckpointError(f"{what} is of another model; of its weights {'; '.join(problems)}{_vocabulary(stored, wanted)}")
    return absent, extra


def _vocabulary(stored: Shapes, wanted: Shapes) -> str:
    """Say so when two vocabularies differ: the list of shapes alone does not tell what to change."""
    name = next((n for n in wanted if n.endswith("wte.embedding")), "")
    here, there = wanted.get(name, (0,))[0], stored.get(name, (0,))[0]
    if not here or not there or here == there:
        return ""
    return f"; its vocabulary has {there} entries and the model's {here}: the two are for different tokenizers"


def fold(names: Sequence[str]) -> str:
    """All names in few words: the same name in several blocks is written once, `blocks.{0-35}.ff_out.weight`."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name in names:
        prefix, number, suffix = (re.match(r"(.*?\.)(\d+)(\..*)", name) or re.match(r"(.*)()()", name)).groups()
        groups[prefix, suffix].append(int(number or 0))
    return ", ".join(f"{prefix}{_ranges(numbers) if suffix else ''}{suffix}" for (prefix, suffix), numbers in groups.items())


def _ranges(numbers: Iterable[int]) -> str:
    spans: list[list[int]] = []
    for n in sorted(numbers):
        if spans and spans[-1][1] == n - 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    return texts[0] if texts == [str(spans[0][0])] else f"{{{','.join(texts)}}}"


def _fold_shapes(names: Sequence[str], stored: Shapes, wanted: Shapes) -> str:
    same: dict[tuple, list[str]] = defaultdict(list)
    for name in names:
        same[stored[name], wanted[name]].append(name)
    return ", ".join(f"{fold(group)} is {there}, not {here}" for (there, here), group in same.items())


def read_weights(fit: Fit, model: nn.Module) -> None:
    """Copy the matched weights into the model's parameters (sharded or whole, any dtype)."""
    tensors = model_tensors(model)
    fit.source.load({name: tensors[name].detach() for name in fit.loaded})


def initialise(model: nn.Module, names: Iterable[str], device: torch.device | str | None = None) -> set[str]:
    """Give the named parameters their initial values without touching any other; returns the names again.

    The largest module that owns only such parameters and can reset itself is reset (and first given memory on `device`,
    if that is named: the rest of a model on the meta device stays there).
    """
    names = set(names)
    left = set(names)
    while left:
        owner, inside = _owner(model, min(left), names)
        if device is not None:
            owner.to_empty(device=device)
        owner.reset_parameters()
        left -= inside
    return names


def _owner(model: nn.Module, name: str, allowed: set[str]) -> tuple[nn.Module, set[str]]:
    """The module to reset for the parameter `name`, and the names of all its parameters."""
    for prefix, module in sorted(model.named_modules(), key=lambda item: item[0].count(".") if item[0] else -1):
        inside = {f"{prefix}.{n}" if prefix else n for n, _ in module.named_parameters()}
        if name in inside and inside <= allowed and hasattr(module, "reset_parameters"):
            return module, inside
    raise OLMoCheckpointError(f"the checkpoint has no {name}, and this model cannot initialise it alone")
