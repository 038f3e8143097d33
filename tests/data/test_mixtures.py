"""Names of data sets and mixtures, their rates, and what is said about those that cannot be read."""

import math

import pytest

from olmo.data.catalogue import ALIASES, ROWS, check_name, get_dataset, is_known
from olmo.data.mixtures import MIXTURES, KwargsMixture, WeightedDataset, build_mixture, mixture_by_name
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError, OLMoMissingDataError

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
    with pytest.raises(OLMoMissingDataError, match="34 of the 34 data sets") as caught:
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


RATES = {
    "molmo2": (0.15, 0.2, 0.25, 0.15, 0.15, 0.1, 0.0995, 0.0005),
    "molmo_point": (0.15, 0.2, 0.25, 0.12, 0.11, 0.07, 0.0995, 0.0005),
    "molmo_point_long_context": (0.15, 0.2, 0.25, 0.12, 0.11, 0.07, 0.0995, 0.0005),
    "debug": (0.1, 0.2, 0.25, 0.1, 0.099, 0.001),
    "tracking": (0.4, 0.05, 0.2, 0.01, 0.15, 0.2, 0.1),
    "pretrain": (0.6, 0.3, 0.1),
}


@pytest.mark.parametrize("name", RATES)
def test_published_mixtures_hold_known_sets_at_their_rates(name):
    """Every member is a set of the catalogue or a published one without a reader; none is in there twice."""
    groups = mixture_by_name(name)
    assert tuple(group.rate for group in groups) == RATES[name]
    members = [d.dataset_name for group in groups for d in group.datasets]
    assert all(is_known(m) for m in members) and len(set(members)) == len(members)


def test_sizes_of_the_published_groups():
    sizes = {group.name: len(group.datasets) for group in mixture_by_name("molmo2")}
    assert (sizes["demo"], sizes["video_academic"], sizes["image_academic"]) == (6, 34, 32)
    assert (sizes["video_pointing"], sizes["image_pointing"], sizes["nlp"], sizes["hardcodes"]) == (4, 5, 1, 1)
    assert sizes["tracking"] + 2 == {g.name: len(g.datasets) for g in mixture_by_name("molmo_point")}["tracking"]


def test_published_shares_of_the_captions_group(monkeypatch):
    """The shares that the paper prints for a group of known sizes, in percent of all samples."""
    sizes = {"vixmo3_top_level_captions_min_3": 100_000, "pixmo_cap_qa_as_user_qa": 190_000, "pixmo_ask_model_anything": 71_000}
    sizes |= {"pixmo_multi_image_qa_multi_only_max5": 45_000, "molmo2_human_qa": 43_000, "pixmo_cap": 700_000}
    monkeypatch.setattr("olmo.data.mixtures.get_dataset", lambda name, split, **_: Sized(sizes[name]))
    (demo,) = (group for group in mixture_by_name("molmo2") if group.name == "demo")
    rates = {m.name: 13.64 * m.rate for m in build_mixture([demo], "train", MovingShapesConfig())}
    found = [rates[n] for n in sizes]
    assert found == pytest.approx([3.38, 3.11, 1.90, 1.51, 1.48, 2.26], abs=0.06)


def test_a_tracked_set_has_the_rate_of_its_kind():
    """Every member has the whole rate of its kind, on top of the root of its size."""
    (tracking,) = (group for group in mixture_by_name("molmo2") if group.name == "tracking")
    members = {d.dataset_name: d for d in tracking.datasets}
    assert members["mevis_track"].sampling_rate == pytest.approx(0.4 / 1.11, abs=1e-6)
    assert members["vicas_ground"].share(7) == pytest.approx(0.2 / 1.11 * math.sqrt(30000), rel=1e-5)
    assert {d.message_weight for d in tracking.datasets} == {0.2}


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
