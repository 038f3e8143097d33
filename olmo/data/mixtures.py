"""Named mixtures of data sets, and the rule that turns sizes into sampling rates."""

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from olmo.config import BaseConfig
from olmo.data.catalogue import check_name, get_dataset, has_reader, is_known
from olmo.data.dataset import Dataset
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.data.paths import is_data_file
from olmo.data.published_mixtures import MEMBER, PUBLISHED
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoDataFileError, OLMoMissingDataError

log = logging.getLogger(__name__)


@dataclass
class WeightedDataset(BaseConfig):
    """A data set in a group of a mixture."""

    dataset_name: str = ""
    """Name in the catalogue, with an optional split: name or name:split. Or the path of a .jsonl file, which has no splits."""

    sampling_rate: float | None = None
    """Factor on the share that follows from its size."""

    root_size_factor: float | None = None
    """null: sampled by the root of its size; 0: as if of size 1; below 1: size times this; from 1 on: an assumed size."""

    message_weight: float | None = None
    """Factor on the loss of its answers."""

    def share(self, size: int) -> float:
        """Its share before the group is normalised."""
        factor = self.root_size_factor
        if factor is None:
            root = math.sqrt(size)
        elif factor == 0:
            root = 1.0
        else:
            root = math.sqrt(factor if factor >= 1 else size * factor)
        return root * (1.0 if self.sampling_rate is None else self.sampling_rate)


@dataclass
class KwargsMixture(BaseConfig):
    """A group of data sets that together get a fixed rate."""

    rate: float = 1.0
    """Share of the group before all groups are normalised."""

    datasets: list[WeightedDataset] = field(default_factory=list)
    """Its members."""

    name: str | None = None
    """What the group is called in messages."""


@dataclass
class RootSizeMixture(BaseConfig):
    """A group sampled by the root of sizes, written as a mapping."""

    rate: float = 1.0
    """Share of the group before all groups are normalised."""

    mixture: dict[str, float | None] = field(default_factory=dict)
    """Data set -> root_size_factor (null = its real size)."""


@dataclass
class MixtureFileConfig(BaseConfig):
    """A mixture in a YAML file: either of the two."""

    groups: list[KwargsMixture] | None = None
    """Groups of data sets with fixed rates."""

    datasets: dict[str, float] | None = None
    """Data set -> rate."""


@dataclass
class Member:
    """A data set of a built mixture."""

    name: str
    dataset: Dataset
    rate: float
    message_weight: float | None = None


def groups_of(table: Sequence[tuple[str, float, str]]) -> list[KwargsMixture]:
    """The groups of a table of `olmo/data/published_mixtures.py`."""
    return [KwargsMixture(rate, [_member(word) for word in members.split()], name) for name, rate, members in table]


def _member(word: str) -> WeightedDataset:
    given = MEMBER.fullmatch(word).groupdict()
    size, rate, weight = (None if given[key] is None else float(given[key]) for key in ("size", "rate", "weight"))
    return WeightedDataset(given["name"], rate, size, weight)


_GENERATED = [
    ("moving_shapes", [("generated", 1.0, "moving_shapes")]),
    ("debug-video", [("generated", 1.0, "moving_shapes_debug")]),
    (
        "moving_shapes_all",
        [
            ("videos", 0.4, "moving_shapes moving_shapes_captions"),
            ("images", 0.4, "moving_shapes_image moving_shapes_multi_image"),
            ("text", 0.2, "moving_shapes_text"),
        ],
    ),
]

MIXTURES: dict[str, list[KwargsMixture]] = {name: groups_of(table) for name, table in (*_GENERATED, *PUBLISHED.items())}


MIXTURE_FILE = "mixture:"
"""What the path of a YAML file may begin with."""


def mixture_by_name(name: str) -> list[KwargsMixture]:
    """The groups of a named mixture or of a YAML file; the name of a data set or a .jsonl file stands for that alone."""
    if name.startswith(MIXTURE_FILE) or name.endswith((".yaml", ".yml")):
        return read_mixture(Path(name.removeprefix(MIXTURE_FILE)))
    if name in MIXTURES:
        return MIXTURES[name]
    if is_known(name):
        if not is_data_file(name):
            check_name(name)
        return [KwargsMixture(datasets=[WeightedDataset(name)], name=name)]
    near = difflib.get_close_matches(name, MIXTURES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"mixtures: {', '.join(MIXTURES)}, the name of a data set, a .jsonl or a .yaml file"
    raise OLMoConfigurationError(f"unknown mixture or data set '{name}'; {hint}")


def single_rates(rates: Mapping[str, float]) -> list[KwargsMixture]:
    """A rate per data set is a group per data set."""
    return [KwargsMixture(rate, [WeightedDataset(name)], name) for name, rate in rates.items()]


def read_mixture(path: Path) -> list[KwargsMixture]:
    """The groups of a YAML file; paths of .jsonl files in it are relative to it."""
    try:
        config = MixtureFileConfig.load(path)
        if (config.groups is None) == (config.datasets is None):
            raise OLMoConfigurationError("there should be either 'groups' or 'datasets'")
        groups = single_rates(config.datasets) if config.groups is None else config.groups
        for entry in (d for group in groups for d in group.datasets):
            if is_data_file(entry.dataset_name):
                entry.dataset_name = str(path.parent / entry.dataset_name)
            else:
                check_name(entry.dataset_name)
    except (OLMoConfigurationError, OLMoDataError) as err:
        raise type(err)(f"the mixture {path}: {err}") from None
    return groups


def missing_sets(missing: Mapping[str, str], count: int) -> OLMoDataError:
    """One error about all data sets (name -> what is wrong) that a mixture of `count` lacks, and how to get them."""
    if count == 1:
        return OLMoDataError(*missing.values())
    lines = [f"{len(missing)} of the {count} data sets of the mixture cannot be read:", *(f"  {what}" for what in missing.values())]
    readable = [name for name in missing if has_reader(name)]
    if readable:
        lines.append(f"to fetch what can be fetched: python scripts/download_datasets.py {' '.join(readable)}")
    if len(readable) < len(missing):
        number = len(missing) - len(readable)
        lines.append(f"{number} of them have no reader in this version: put the others into a mixture of your own, a .yaml file")
    return OLMoMissingDataError("\n".join(lines))


def build_mixture(groups: list[KwargsMixture], split: str, moving_shapes: MovingShapesConfig) -> list[Member]:
    """Load every data set and give each its rate; members are sorted by name, rates sum to 1.

    All data sets are looked for before any of them is an error, so that one message tells everything that is missing.
    """
    members: dict[str, Member] = {}
    missing: dict[str, str] = {}
    for group in groups:
        if group.rate < 0:
            raise OLMoConfigurationError(f"the rate of mixture group '{group.name}' must not be negative, but is {group.rate}")
        built = []
        for entry in group.datasets:
            for key in ("sampling_rate", "root_size_factor"):
                if (getattr(entry, key) or 0) < 0:
                    raise OLMoConfigurationError(f"the {key} of '{entry.dataset_name}' must not be negative, but is {getattr(entry, key)}")
            name, _, own_split = (entry.dataset_name, "", "") if is_data_file(entry.dataset_name) else entry.dataset_name.partition(":")
            try:
                built.append((entry, get_dataset(name, own_split or split, moving_shapes=moving_shapes)))
            except OLMoDataFileError:
                raise
            except OLMoDataError as err:
                missing[entry.dataset_name] = str(err)
        total = sum(e.share(len(d)) for e, d in built)
        for entry, dataset in built:
            rate = entry.share(len(dataset)) / total * group.rate if total > 0 else 0.0
            if entry.dataset_name in members:
                raise OLMoConfigurationError(f"the data set '{entry.dataset_name}' is in the mixture twice; name it once")
            if rate > 0:
                members[entry.dataset_name] = Member(entry.dataset_name, dataset, rate, entry.message_weight)
    if missing:
        raise missing_sets(missing, sum(len(g.datasets) for g in groups))
    if not members:
        raise OLMoConfigurationError("the mixture holds no data set with a positive rate")
    whole = sum(m.rate for m in members.values())
    result = [Member(m.name, m.dataset, m.rate / whole, m.message_weight) for _, m in sorted(members.items())]
    for m in result:
        log.info("data: %s, %d examples, rate %.4f", m.name, len(m.dataset), m.rate)
    return result
