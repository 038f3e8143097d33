"""What the doctor finds in data sets that are well, broken, too long, or not there."""

import json
from dataclasses import replace
from functools import cache

import pytest

from olmo.config import parse_overrides
from olmo.data import catalogue, mixtures
from olmo.data.doctor import WHAT_TO_DO, Lengths, rates_of
from olmo.data.failures import BAD_EXAMPLE, CAUSES
from olmo.data.mixtures import KwargsMixture, WeightedDataset, build_mixture
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.data.records import DatasetRow
from olmo.data_commands.doctor import examine_all, main, parse
from olmo.exceptions import OLMoCliError, OLMoConfigurationError
from olmo.train import sft
from tests.data.clips import broken_zoo, write_clip
from tests.data.test_download_sets import example, records


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """`made_up(name, {file: video or None}, **row)`: a data set with a question on each video, and its folder."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))

    def make(name, videos, **changes):
        folder = tmp_path / "video_datasets" / name
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("".join(json.dumps({"video": v, "question": "What is it?"}) + "\n" for v in videos))
        basics = {"title": name, "folder": name, "sources": (), "style": "video_short_answer", "records": records, "example": example}
        monkeypatch.setitem(catalogue.ROWS, name, DatasetRow(name, **basics | {"files": lambda split: [f"{split}.jsonl"]} | changes))
        return folder

    return make


def mixture(monkeypatch, *members):
    """A mixture of these (name, root_size_factor)."""
    entries = [WeightedDataset(name, root_size_factor=factor) for name, factor in members]
    monkeypatch.setitem(mixtures.MIXTURES, "mixed", [KwargsMixture(1.0, entries, "mixed")])


@cache
def config(*overrides):
    """That of the tiny model, as the command makes it."""
    return sft.build_train_config(sft.parse(["tiny", "no data"])[0], parse_overrides(overrides))


def report(data, *overrides, sample=20, decode=False):
    cfg = config(*overrides)
    return examine_all(replace(cfg, data=replace(cfg.data, dataset=data)), sample, decode)


def only(data, *overrides, **options):
    (found,) = report(data, *overrides, **options)["datasets"]
    return found


def test_a_set_that_is_well(made_up, capsys):
    """Blank pictures give the lengths that decoding gives, for videos shorter and longer than the frames that are taken."""
    folder = made_up("good", ["a.mp4", "b.mp4", "c.mp4"], counts={"train": 3})
    for name, frames in (("a", 10), ("b", 20), ("c", 70)):
        write_clip(folder / f"{name}.mp4", frames=frames)
    found = only("good")
    assert found["status"] == "ok" and found["problems"] == [] and found["rate"] == 1.0
    assert (found["examples"], found["expected"], found["videos"], found["videos_missing"]) == (3, 3, 3, 0)
    assert (found["sampled"], found["readable"], found["failures"], found["over_sequence_length"]) == (3, 3, {}, 0.0)
    assert found["frames"] == {"min": 3, "median": 5, "p95": 8, "max": 8}
    assert found["tokens_after_pruning"]["max"] < found["tokens"]["max"]
    assert only("good", decode=True) == found
    assert main(["good", "--sample=2"]) == 0
    out = capsys.readouterr().out
    assert "all is well" in out and "good:train" in out and " 2/2 " in out


def test_an_inferred_layout_is_noted_beside_the_problems(made_up, capsys):
    folder = made_up("unseen", ["a.mp4"], inferred="its keys")
    note = "note: layout inferred from the paper (its keys): check the first download with data_doctor"
    assert main(["unseen"]) == 1 and note in capsys.readouterr().out
    write_clip(folder / "a.mp4")
    assert main(["unseen"]) == 0 and "inferred" not in capsys.readouterr().out
    assert only("unseen")["caution"] == note.removeprefix("note: ")


def test_broken_videos_are_counted_by_cause(made_up, tmp_path):
    folder = made_up("bad", ["good.mp4", "empty.mp4", "text.mp4", "cut_front.mp4", "audio.mp4", "nowhere.mp4", "also_nowhere.mp4"])
    broken_zoo(folder)
    found = only("bad")
    assert found["status"] == "problems" and (found["sampled"], found["readable"]) == (7, 1)
    assert found["failures"] == {"missing": 2, "empty": 1, "corrupt": 1, "truncated": 1, "no_video": 1}
    problems = {p["what"]: p["do"] for p in found["problems"]}
    assert problems.pop("2 of 7 videos are missing, first nowhere.mp4") == "run: python scripts/download_datasets.py bad"
    (missing,) = (do for what, do in problems.items() if what.startswith("2 of 7 examples cannot be read, first: ") and "nowhere" in what)
    assert "download_datasets.py bad" in missing
    (cut,) = (do for what, do in problems.items() if "cut_front.mp4" in what)
    assert cut.startswith("delete the file and fetch it again")


def test_decoding_finds_what_opening_does_not(made_up):
    """The index of the file is whole, the pictures of its second half are not."""
    folder = made_up("scrambled", ["a.mp4"])
    data = bytearray(write_clip(folder / "a.mp4", frames=40, movflags="faststart").read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle:] = b"\xff" * (len(data) - middle)
    (folder / "a.mp4").write_bytes(data)
    assert only("scrambled")["failures"] == {}
    assert only("scrambled", decode=True)["failures"] == {"corrupt": 1}


def test_one_bad_set_never_stops_the_others(made_up, monkeypatch, capsys):
    """Missing, wrong annotations, and a reader that fails in a way that nobody foresaw. Seen to fail without the last `except`."""

    def no_reader(folder, split):
        return iter([{"video": "a.mp4", "question": "?"}][{}["nothing"] :])

    write_clip(made_up("good", ["a.mp4"]) / "a.mp4")
    made_up("failing", ["a.mp4"], records=no_reader)
    (made_up("wrong", []) / "train.jsonl").write_text('{"video": 3}\n')
    made_up("bare", [])
    mixture(monkeypatch, ("failing", None), ("tgif", 60000.0), ("wrong", None), ("bare", None), ("good", None))
    found = {d["name"]: d for d in report("mixed")["datasets"]}
    assert {name: d["status"] for name, d in found.items()} == {
        "failing": "failed",
        "tgif": "missing",
        "wrong": "missing",
        "bare": "problems",
        "good": "ok",
    }
    assert found["failing"]["problems"][0]["what"] == "its reader failed: KeyError: 'nothing'"
    assert "train.jsonl, line 1: 'video' should be text, but is 3" in found["wrong"]["problems"][0]["what"]
    assert found["tgif"]["problems"][0]["do"] == "run: python scripts/download_datasets.py tgif"
    assert found["bare"]["problems"][0]["what"] == "it has no examples"
    assert main(["mixed"]) == 1
    out = capsys.readouterr().out
    assert "4 of 5 data sets have problems" in out and "shares are among the 3 of 5 data sets whose size is known" in out


def test_json(made_up, monkeypatch, capsys):
    """Nothing but the document is printed."""
    write_clip(made_up("good", ["a.mp4"] * 9) / "a.mp4")
    mixture(monkeypatch, ("good", None), ("tgif", 9.0), ("tvqa_with_sub", None))
    assert main(["mixed", "--json", "--sample=4"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["mixture"] == "mixed" and document["unknown_sizes"] == ["tvqa_with_sub"]
    assert [(d["name"], d["rate"], d["status"], d["sampled"]) for d in document["datasets"]] == [
        ("good", 0.5, "ok", 4),
        ("tgif", 0.5, "missing", 0),
        ("tvqa_with_sub", None, "missing", 0),
    ]


def test_examples_that_are_too_long(made_up):
    write_clip(made_up("long", ["a.mp4"]) / "a.mp4", frames=70)
    found = only("long", "--data.sequence_length=100")
    after = found["tokens_after_pruning"]["max"]
    assert after > 100 and found["over_sequence_length"] == 1.0
    whats = [p["what"] for p in found["problems"]]
    assert whats[0] == "1 of 1 examples are longer than sequence_length 100 after pruning" and "fit no row (too_long)" in whats[1]
    assert only("long", f"--data.sequence_length={after}")["status"] == "ok"
    assert only("long", "--model.mm_preprocessor.video.max_frames=2")["frames"]["max"] == 2


def test_splits(made_up, monkeypatch):
    """A split of its own goes before that of the config; a set without it is looked at in its first."""
    folder = made_up("two", ["a.mp4"], splits=("train", "test"))
    made_up("benchmark", [], splits=("test",))
    (folder / "test.jsonl").write_text("")
    write_clip(folder / "a.mp4")
    assert (only("two")["split"], only("two:test")["split"], only("benchmark")["split"]) == ("train", "test", "test")
    assert only("two:test")["name"] == "two:test"


def test_the_sample_is_the_same_every_time(made_up):
    folder = made_up("many", [f"{i}.mp4" for i in range(50)])
    for i in range(50):
        (folder / f"{i}.mp4").write_bytes(b"" if i % 2 else b"text")
    first, second = only("many", sample=10), only("many", sample=10)
    assert first == second and 0 < first["failures"]["empty"] < 10


def test_shares_are_those_of_training(made_up):
    for name, size in (("a", 4), ("b", 25), ("c", 9)):
        made_up(name, [f"{name}.mp4"] * size)
    entries = [WeightedDataset("a", sampling_rate=2.0), WeightedDataset("b", root_size_factor=0.5)]
    groups = [KwargsMixture(0.7, entries), KwargsMixture(0.4, [WeightedDataset("c", root_size_factor=16.0)])]
    trained = {m.name: m.rate for m in build_mixture(groups, "train", MovingShapesConfig())}
    assert rates_of(groups, {"a": 4, "b": 25, "c": 9}) == pytest.approx(trained)
    assert rates_of(groups, {"a": None, "b": None, "c": None}) == {"a": None, "b": None, "c": 1.0}


def test_lengths():
    assert Lengths.of([5, 1, 3]) == Lengths(1, 3, 5, 5) and Lengths.of([]) is None
    assert Lengths.of(range(1, 101)).p95 == 95


def test_remedies_are_for_causes_that_exist():
    assert WHAT_TO_DO.keys() <= CAUSES.keys() | {BAD_EXAMPLE}


def test_words_of_the_command():
    args, overrides = parse(["tgif", "--config=stts_50", "--data.sequence_length=99"])
    assert args.config == "stts_50" and overrides == parse_overrides(["--data.sequence_length=99"])
    with pytest.raises(OLMoCliError, match="--sample must be at least 1"):
        parse(["tgif", "--sample=0"])
    with pytest.raises(OLMoConfigurationError, match="unknown mixture or data set 'nowhere'"):
        report("nowhere")
