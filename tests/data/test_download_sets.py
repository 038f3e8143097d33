"""Whole data sets: names and groups, all sources of one, what is there of it, and the command."""

import hashlib
import json
import os
import re
import time
from dataclasses import fields, replace

import numpy as np
import pytest

from olmo.data import catalogue
from olmo.data.annotations import read_jsonl
from olmo.data.catalogue import ROWS
from olmo.data.download.fetch import fetch
from olmo.data.download.http import Patience, name_of
from olmo.data.download.names import rows_of
from olmo.data.download.presence import state_of
from olmo.data.records import DatasetRow
from olmo.data.sources import ByHand, Url
from olmo.data_commands.download import main
from olmo.exceptions import OLMoCliError, OLMoConfigurationError, OLMoDataError
from tests.data.families.fixtures import Miniature
from tests.data.families.test_clips_qa import tgif
from tests.data.test_download_archives import zipped

QUICK = Patience(attempts=2, pause=0.0, timeout=5.0)


def records(folder, split):
    for entry in read_jsonl(folder / f"{split}.jsonl"):
        yield {"video": entry.need("video", str), "question": entry.need("question", str)}


def example(record, rng):
    return {"video": record["video"], "question": record["question"], "answer": "yes", "style": "video_short_answer"}


@pytest.fixture
def made_up(monkeypatch, tmp_path, web):
    """A data set in the catalogue whose annotations are on a web server, videos in an archive there, and more to fetch by hand."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    lines = [{"video": f"videos/{i % 2}.mp4", "question": f"{i}?"} for i in range(3)]
    web.files["/train.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    archive = zipped(tmp_path / "v.zip", ("0.mp4", b"0"), ("1.mp4", b"1"))
    web.files["/v.zip"] = archive.read_bytes()
    row = DatasetRow(
        name="made_up",
        title="Made up",
        folder="MadeUp",
        sources=(
            ByHand("its licence, on its page", into="papers"),
            Url(f"{web.url}/train.jsonl", sha256=hashlib.sha256(web.files["/train.jsonl"]).hexdigest()),
            Url(f"{web.url}/v.zip", into="videos", unpack=True),
        ),
        style="video_short_answer",
        records=records,
        example=example,
        files=lambda split: [f"{split}.jsonl"],
        counts={"train": 3},
    )
    monkeypatch.setitem(catalogue.ROWS, "made_up", row)
    return row


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "video_datasets" / "MadeUp"


def test_fetch_check_and_train_on_it(made_up, folder, web, capsys):
    """The whole way of a data set: missing, fetched, ready. A second run asks the server for nothing."""
    assert main(["made_up", "--check"]) == 1
    out = capsys.readouterr().out
    assert f"put it, or the archives it comes in, into {folder}/papers" in out and "python scripts/download_datasets.py made_up" in out
    assert main(["made_up"]) == 0
    assert "1 of 1 data sets are ready" in capsys.readouterr().out
    assert {p.name for p in folder.rglob("*.mp4")} == {"0.mp4", "1.mp4"} and web.asked
    assert catalogue.get_dataset("made_up").get(0, np.random.default_rng(0))["video"] == f"{folder}/videos/0.mp4"
    web.asked.clear()
    assert main(["made_up"]) == 0 and web.asked == []
    assert main(["made_up", "--check"]) == 0
    assert " 3 of 3 " in capsys.readouterr().out


def test_what_is_missing_is_named(made_up, folder, capsys):
    main(["made_up"])
    (folder / "videos/1.mp4").unlink()
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:2]))
    capsys.readouterr()
    assert main(["made_up", "--check"]) == 1
    out = capsys.readouterr().out
    assert "made_up: partial" in out
    assert "train: 2 examples, but the publisher states 3" in out and "1 of 2 videos are missing, first videos/1.mp4" in out


def test_videos_that_came_after_the_index(made_up, folder):
    """A reader may note the file as it finds it. Seen to fail with the index as it was made before the videos came."""

    def as_found(folder, split):
        kinds = {p.stem: p.name for p in (folder / "videos").glob("*.*")}
        for record in records(folder, split):
            name = record["video"].removeprefix("videos/").removesuffix(".mp4")
            yield record | {"video": f"videos/{kinds.get(name, name)}"}

    row = replace(made_up, records=as_found)
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"video": "videos/a.mp4", "question": "?"}\n' * 3)
    assert state_of(row).splits[0].first_missing == "videos/a"
    (folder / "videos").mkdir()
    (folder / "videos" / "a.webm").touch()
    time.sleep(0.02)  # the clock of the file system is coarse
    assert state_of(row).complete


def test_a_reader_that_fails_does_not_hide_the_others(made_up, folder, monkeypatch, capsys):
    def failing(folder, split):
        raise KeyError("nothing")
        yield

    folder.mkdir(parents=True)
    (folder / "train.jsonl").touch()
    monkeypatch.setitem(catalogue.ROWS, "failing", replace(made_up, name="failing", records=failing))
    assert main(["failing", "moving_shapes", "--check"]) == 1
    out = capsys.readouterr().out
    assert "train: its reader failed: KeyError: 'nothing'" in out and "1 of 2 data sets are ready" in out


def test_one_source_that_fails_does_not_stop_the_others(made_up, folder, web, capsys):
    web.files["/train.jsonl"] += b"\n"
    web.files["/v.zip"] = b"no archive"
    assert main(["made_up"]) == 1
    out = capsys.readouterr().out
    assert "not fetched: " in out and "the checksum of train.jsonl is wrong" in out and "v.zip is no zip or tar archive" in out
    assert not (folder / "train.jsonl").exists()


def test_archives_put_there_by_hand_are_unpacked(tmp_path, made_up, folder):
    (folder / "papers").mkdir(parents=True)
    zipped(folder / "papers" / "p.zip", ("p.pdf", b"p"))
    first, second = (fetch(made_up.sources, folder, patience=QUICK) for _ in range(2))
    assert (folder / "papers" / "p.pdf").exists() and (first.unpacked, second.unpacked) == (3, 0)
    zipped(folder / "papers" / "p.zip", ("p.pdf", b"a newer one"), ("q.pdf", b"q"))
    assert fetch(made_up.sources, folder, patience=QUICK).unpacked == 2


def test_archives_of_other_sources_are_left_alone(folder, web):
    """Only those that nothing else brought are taken for fetched by hand. Seen to fail with all that lie there."""
    folder.mkdir(parents=True)
    web.files["/kept.zip"] = zipped(folder / "hand.zip", ("hand.txt", b"1"), ("2.txt", b"2")).read_bytes()
    sources = (ByHand("something"), Url(f"{web.url}/kept.zip"))
    assert fetch(sources, folder, patience=QUICK).unpacked == 2
    assert fetch(sources, folder, patience=QUICK).unpacked == 0
    assert sorted(p.name for p in folder.glob("*.*") if p.is_file()) == ["2.txt", "hand.txt", "hand.zip", "kept.zip"]


def test_an_unpacked_archive_may_be_removed(made_up, folder, web):
    assert main(["made_up", "--remove_archives"]) == 0
    assert not (folder / "videos" / "v.zip").exists() and (folder / "videos" / "0.mp4").exists()
    web.asked.clear()
    assert main(["made_up"]) == 0 and web.asked == []


def test_an_interrupted_unpacking_is_begun_anew(made_up, folder):
    """Leftovers of a killed process are cleared away, and never taken for the data."""
    (folder / ".download" / "unpacking").mkdir(parents=True)
    (folder / ".download" / "unpacking" / "half.mp4").write_bytes(b"h")
    assert main(["made_up"]) == 0
    assert not list(folder.rglob("half.mp4"))


def test_tgif_is_ready_with_its_files_and_videos(monkeypatch, tmp_path):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    files = Miniature(tmp_path / "video_datasets" / "TGIF")
    assert state_of(ROWS["tgif"]).status == "missing"
    tgif(files)
    state = state_of(ROWS["tgif"], ["train"])
    assert state.status == "missing" and state.splits[0].problems() == ["3 of 3 videos are missing, first videos/tumblr_1.mp4"]
    files.touch(*(f"videos/tumblr_{i}.mp4" for i in (1, 2, 3)))
    assert state_of(ROWS["tgif"], ["train"]).complete
    state = state_of(ROWS["tgif"])
    assert state.status == "partial" and "Test_action_question.csv is not in" in state.splits[1].problem


def test_names_and_groups():
    names = lambda *words: {row.name: splits for row, splits in rows_of(words)}  # noqa: E731
    assert names("all").keys() == ROWS.keys()
    train, benchmarks = names("train"), names("eval")
    assert len(train) == 34 and train["tgif"] == ["train"] and "molmo2_syn_captions_qa" in train  # through its alias
    assert {"mvbench", "tomato", "lvbench", "nextqa_mc"} <= benchmarks.keys() and "tgif" not in benchmarks
    assert "train" not in benchmarks["nextqa_mc"]
    assert names("tgif:test", "tgif") == {"tgif": None} and names("tgif:test") == {"tgif": ["test"]}
    assert names("nextqa_mc:val", "motionbench_test", "nextqa_mc:test") == {"nextqa_mc": ["val", "test"], "motionbench": ["test"]}
    assert names("debug-video") == {"moving_shapes_debug": ["train"]}
    with pytest.raises(OLMoDataError, match="tgif has no split 'val'; it has train, test"):
        rows_of(["tgif:val"])
    with pytest.raises(OLMoConfigurationError, match="did you mean 'tgif'"):
        rows_of(["tgiff"])


def test_files_of_mixtures(tmp_path):
    (tmp_path / "my.yaml").write_text("datasets:\n  my.jsonl: 0.5\n  tgif: 0.5\n")
    assert [(row.name, splits) for row, splits in rows_of([str(tmp_path / "my.yaml")])] == [("tgif", ["train"])]
    with pytest.raises(OLMoDataError, match=r"my\.jsonl is a file of your own: there is nothing to fetch"):
        rows_of(["my.jsonl"])


def test_sources_of_the_catalogue_do_not_collide():
    """Files of different addresses have different places, and none lies outside the folder of video data sets."""
    places: dict[str, str] = {}
    for row in (row for row in ROWS.values() if isinstance(row, DatasetRow)):
        assert row.sources, row.name
        for source in row.sources:
            place = os.path.normpath(f"{row.folder}/{source.into}")
            assert not os.path.isabs(place) and not place.startswith(".."), (row.name, source)
            if isinstance(source, Url):
                place = f"{place}/{name_of(source.url)}"
                assert places.setdefault(place, source.url) == source.url, (row.name, place)


def test_what_is_said_about_use_and_numbers_is_said_by_a_document():
    """A licence that is stated names the document in brackets; numbers are of splits that there are."""
    unstated = {f.name: f.default for f in fields(DatasetRow)}["licence"]
    for row in (row for row in ROWS.values() if isinstance(row, DatasetRow)):
        assert row.licence == unstated or re.search(r"\((README|license|dataset card|conditions|abstract|ego4d-data).+\)$", row.licence), (
            row.name
        )
        assert row.counts.keys() <= set(row.splits), row.name


def test_an_inferred_layout_is_noted_where_something_is_missing(made_up, folder, capsys, monkeypatch):
    monkeypatch.setitem(ROWS, "made_up", replace(made_up, inferred="its keys"))
    assert main(["made_up", "--check"]) == 1
    note = "note: layout inferred from the paper (its keys): check the first download with data_doctor"
    assert note in capsys.readouterr().out
    assert main(["made_up"]) == 0 and note not in capsys.readouterr().out


def test_the_command(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == list(ROWS)
    tgif, cautious = (next(i for i, line in enumerate(lines) if line.startswith(f"{name} ")) for name in ("tgif", "funqa"))
    assert lines[tgif].endswith("huggingface.co/datasets/allenai/Molmo2-TGIF") and not lines[tgif + 2].startswith(" ")
    assert lines[tgif + 1].strip() == "licence: not stated here, see the home page of the set"
    assert lines[cautious + 1].strip() == "licence: CC BY-NC-SA 4.0 (README of github.com/Jingkang50/FunQA)"
    assert lines[cautious + 2].strip().startswith("layout inferred from the paper (keys of Funqa_mcqa_v1.json, ")
    for words, sentence in (([], "name what to fetch"), (["--list", "--check"], "not both")):
        with pytest.raises(OLMoCliError, match=sentence):
            main(words)


def test_a_folder_that_is_a_file(made_up, folder, capsys):
    Miniature(folder.parent).text(folder.name, "")
    assert main(["made_up"]) == 1
    assert f"{folder} cannot be written" in capsys.readouterr().out
