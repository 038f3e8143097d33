"""Names of data sets and mixtures, their rates, and what is said about those that cannot be read."""

import math

import pytest

from olmo.data.catalogue import ALIASES, ROWS, check_name, get_dataset, is_known
from olmo.data.mixtures import MIXTURES, KwargsMixture, WeightedDataset, build_mixture, mixture_by_name
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError

ACADEMIC = "all-v5-video-academic-only"
BENCHMARKS = (
    "nextqa_mc perception_test mvbench tomato motionbench temp_compass video_mme video_mme_w_subtitle long_video_bench_no_subtitle "
    "long_video_bench_w_subtitle mlvu_mc lvbench video_eval_pro_mc"
).split()


class Sized:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    return tmp_path


def test_every_name_of_the_academic_mixture_resolves(no_data):
    (group,) = mixture_by_name(ACADEMIC)
    assert len(group.datasets) == 34
    factors = {d.dataset_name: d.root_size_factor for d in group.datasets}
    assert {n for n, f in factors.items() if f} == {"tgif", "tvqa_with_sub", "paxion", "moments_in_time_qa", "kinetics_qa"}
    assert {f for f in factors.values() if f} == {60000}
    for name in factors:
        with pytest.raises(OLMoDataError) as caught:
            get_dataset(name, "train")
        message = str(caught.value)
        assert message.startswith(f"{name}: not found in {no_data}") and "download from" in message and "\n" not in message


def test_a_mixture_names_everything_that_is_missing(no_data):
    with pytest.raises(OLMoDataError, match="34 of the 34 data sets") as caught:
        build_mixture(mixture_by_name(ACADEMIC), "train", MovingShapesConfig())
    assert all(d.dataset_name in str(caught.value) for d in MIXTURES[ACADEMIC][0].datasets)


def test_the_thirteen_benchmarks_and_their_published_names(no_data):
    assert len(BENCHMARKS) == 13
    for name in [*BENCHMARKS, "temp_compass_internal", "long_video_bench", "mlvu_mc_test", "perception_test_test"]:
        row, split = check_name(name)
        with pytest.raises(OLMoDataError, match=f"^({name}|{row.name}): not found in"):
            get_dataset(name, split or row.splits[-1])


def test_a_split_may_follow_any_name(no_data):
    """Seen to fail when an alias is looked up together with its split."""
    for name, split in {
        "nextqa:train": "train",
        "nextqa_mc:val": "val",
        "motionbench_test": "test",
        "motionbench_test:validation": "validation",
    }.items():
        row, chosen = check_name(name)
        assert chosen == split and row.name == ("nextqa_mc" if "nextqa" in name else "motionbench") and is_known(name)


def test_rows_are_sound():
    for name, row in ROWS.items():
        assert row.name == name and row.title and row.source and row.style and row.splits
    for alias, target in ALIASES.items():
        row, _, split = target.partition(":")
        assert alias not in ROWS and row in ROWS and (not split or split in ROWS[row].splits)


@pytest.mark.parametrize(
    ("name", "kind"), [("text_vqa", "image"), ("mevis_track", "tracking"), ("tulu4", "text"), ("vixmo_points_minmax_0_5", "video pointing")]
)
def test_other_families_are_not_available_yet(name, kind):
    with pytest.raises(OLMoDataError, match=f"'{name}' is a {kind} data set: not available yet"):
        get_dataset(name, "train")
    with pytest.raises(OLMoDataError, match="not available yet"):
        mixture_by_name(name)


@pytest.mark.parametrize("name", ["molmo2", "debug", "molmo_point"])
def test_other_mixtures_are_not_available_yet(name):
    with pytest.raises(OLMoDataError, match=f"the mixture '{name}' needs .*: not available yet; available: moving_shapes"):
        mixture_by_name(name)


def test_typos_get_the_nearest_name(no_data):
    with pytest.raises(OLMoConfigurationError, match="did you mean 'moving_shapes'"):
        mixture_by_name("moving_shape")
    with pytest.raises(OLMoConfigurationError, match="did you mean 'perception_test'"):
        get_dataset("perceptiontest", "train")
    with pytest.raises(OLMoDataError, match="tgif has no split 'dev'; it has train, test"):
        get_dataset("tgif", "dev")


def test_shares_follow_the_published_rule():
    assert WeightedDataset("x").share(400) == 20
    assert WeightedDataset("x", root_size_factor=0).share(400) == 1
    assert WeightedDataset("x", root_size_factor=0.25).share(400) == 10
    assert WeightedDataset("x", root_size_factor=1).share(400) == 1
    assert WeightedDataset("x", root_size_factor=60000).share(400) == math.sqrt(60000)
    assert WeightedDataset("x", sampling_rate=1.5).share(400) == 30


def test_rates_of_groups_are_normalised_and_members_sorted(monkeypatch):
    sizes = {"a": 100, "b": 400, "c": 900}
    monkeypatch.setattr("olmo.data.mixtures.get_dataset", lambda name, split, **_: Sized(sizes[name]))
    groups = [
        KwargsMixture(0.9, [WeightedDataset("c"), WeightedDataset("a")]),
        KwargsMixture(0.2, [WeightedDataset("b", message_weight=0.1)]),
    ]
    members = build_mixture(groups, "train", MovingShapesConfig())
    assert [m.name for m in members] == ["a", "b", "c"] and members[1].message_weight == 0.1
    for member, rate in zip(members, (0.9 / 4, 0.2, 0.9 * 3 / 4), strict=True):
        assert member.rate == pytest.approx(rate / 1.1)
    with pytest.raises(OLMoConfigurationError, match="'a' is in the mixture twice"):
        build_mixture([*groups, KwargsMixture(1, [WeightedDataset("a")])], "train", MovingShapesConfig())


def test_a_data_set_name_is_a_mixture(no_data):
    (group,) = mixture_by_name("star")
    assert [d.dataset_name for d in group.datasets] == ["star"]
