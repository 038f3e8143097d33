"""Named mixtures of data sets, and the rule that turns sizes into sampling rates."""

import difflib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from olmo.config import BaseConfig
from olmo.data.catalogue import check_name, get_dataset, is_known
from olmo.data.dataset import Dataset
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.data.paths import is_data_file
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoDataFileError

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


_VIDEO_ACADEMIC = """
    tgif=60000 tvqa_with_sub=60000 paxion=60000 llava_video_mc_academic llava_video_oe_academic perception_test nextqa_mc
    news_video_qa_filtered how2qa sutd_trafficqa social_iq2 sportsqa_oe cinepile_with_sub clevrer funqa star intent_qa
    video_localized_narratives road_text_vqa countix_oe camerabench_qa motionbench_train moments_in_time_qa=60000
    kinetics_qa=60000 charades_sta_all_qa coin_all_qa youcook2_all_qa activitynet_all_qa ego4d_all epic_kitchens_qa
    video_localized_narratives_caption qv_highlights vixmo_syn_video_capqa_v2 vixmo_syn_video_capqa_with_sub_v2
"""


def _group(name: str, members: str, rate: float = 1.0) -> KwargsMixture:
    pairs = (m.partition("=") for m in members.split())
    return KwargsMixture(rate, [WeightedDataset(n, root_size_factor=float(size) if size else None) for n, _, size in pairs], name)


MIXTURES: dict[str, list[KwargsMixture]] = {
    "moving_shapes": [_group("generated", "moving_shapes")],
    "debug-video": [_group("generated", "moving_shapes_debug")],
    "all-v5-video-academic-only": [_group("video_academic", _VIDEO_ACADEMIC)],
}

LATER_MIXTURES = ("debug", "molmo2", "tracking", "molmo_point", "molmo_point_long_context", "all-v5")
"""Published mixtures with image, text, pointing or tracking data, which this version cannot read yet."""


MIXTURE_FILE = "mixture:"
"""What the path of a YAML file may begin with."""


def mixture_by_name(name: str) -> list[KwargsMixture]:
    """The groups of a named mixture or of a YAML file; the name of a data set or a .jsonl file stands for that alone."""
    if is_data_file(name):
        return [KwargsMixture(datasets=[WeightedDataset(name)], name=name)]
    if name.startswith(MIXTURE_FILE) or name.endswith((".yaml", ".yml")):
        return read_mixture(Path(name.removeprefix(MIXTURE_FILE)))
    if name in MIXTURES:
        return MIXTURES[name]
    if name in LATER_MIXTURES:
        available = ", ".join(MIXTURES)
        raise OLMoDataError(f"the mixture '{name}' needs image, text, pointing or tracking data: not available yet; available: {available}")
    if is_known(name):
        check_name(name)
        return [_group(name, name)]
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


def build_mixture(groups: list[KwargsMixture], split: str, moving_shapes: MovingShapesConfig) -> list[Member]:
    """Load every data set and give each its rate; members are sorted by name, rates sum to 1.

    All data sets are looked for before any of them is an error, so that one message tells everything that is missing.
    """
    members: dict[str, Member] = {}
    missing: list[str] = []
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
                missing.append(str(err))
        total = sum(e.share(len(d)) for e, d in built)
        for entry, dataset in built:
            rate = entry.share(len(dataset)) / total * group.rate if total > 0 else 0.0
            if entry.dataset_name in members:
                raise OLMoConfigurationError(f"the data set '{entry.dataset_name}' is in the mixture twice; name it once")
            if rate > 0:
                members[entry.dataset_name] = Member(entry.dataset_name, dataset, rate, entry.message_weight)
    if missing:
        count = sum(len(g.datasets) for g in groups)
        first = "" if count == 1 else f"{len(missing)} of the {count} data sets of the mixture cannot be read: "
        raise OLMoDataError(first + "; ".join(missing))
    if not members:
        raise OLMoConfigurationError("the mixture holds no data set with a positive rate")
    whole = sum(m.rate for m in members.values())
    result = [Member(m.name, m.dataset, m.rate / whole, m.message_weight) for _, m in sorted(members.items())]
    for m in result:
        log.info("data: %s, %d examples, rate %.4f", m.name, len(m.dataset), m.rate)
    return result
