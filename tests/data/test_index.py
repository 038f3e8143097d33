"""The index: the same records as the reader yields, from a mapped file that is made anew when the annotations change."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from olmo.data.annotations import read_jsonl
from olmo.data.index import BATCH, Index, open_indexed, write_index
from olmo.data.records import DatasetRow, open_ended, split_evenly
from olmo.data.sources import ByHand
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError


def records(folder, split):
    for entry in read_jsonl(folder / f"{split}.jsonl"):
        yield {"video": f"{entry.need('id', str)}.mp4", "question": entry.need("question", str)}


ROW = DatasetRow(
    name="mine",
    title="Mine",
    folder="Mine",
    sources=(ByHand("a page"),),
    style="video_short_answer",
    records=records,
    example=lambda record, rng: {"video": record["video"], "message_list": [open_ended(record["question"], str(rng.integers(10)))]},
    files=lambda split: [f"{split}.jsonl"],
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    path = tmp_path / "video_datasets" / "Mine"
    path.mkdir(parents=True)
    (path / "train.jsonl").write_text('{"id": "a", "question": "Wo?"}\n{"id": "b", "question": "Wann? ä"}\n')
    return path


@pytest.mark.parametrize("size", [0, 1, BATCH, BATCH + 1, 2 * BATCH])
def test_every_record_comes_back(tmp_path, size):
    """Seen to fail with the last, shorter batch counted as a full one."""
    assert write_index(tmp_path / "i.arrow", ({"n": n, "text": "ß\n\"'"} for n in range(size))) == size
    index = pickle.loads(pickle.dumps(Index(tmp_path / "i.arrow")))
    assert len(index) == size
    for n in {0, 1, size // 2, BATCH - 1, BATCH, size - 1} & set(range(size)):
        assert index[n] == {"n": n, "text": "ß\n\"'"}
    for n in (-1, size):
        with pytest.raises(IndexError):
            index[n]


def test_examples_and_paths(folder):
    dataset = open_indexed(ROW, "train")
    assert len(dataset) == 2
    example = dataset.get(1, np.random.default_rng(0))
    assert example["video"] == str(folder / "b.mp4") and example["message_list"][0]["question"] == "Wann? ä"
    assert dataset.get(1, np.random.default_rng(0)) == example


def test_an_index_is_made_once_and_anew_when_annotations_change(folder):
    first = open_indexed(ROW, "train").index.path
    made = first.stat().st_mtime_ns
    assert open_indexed(ROW, "train").index.path == first and first.stat().st_mtime_ns == made
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"id": "c", "question": "Wer?"}\n')
    second = open_indexed(ROW, "train")
    assert len(second) == 3 and [p.name for p in first.parent.glob("*.arrow")] == [second.index.path.name]


def test_a_broken_annotation_leaves_no_index(folder):
    """And the error names the data set, the file and the line."""
    (folder / "train.jsonl").write_text('{"id": "a", "question": "Wo?"}\n{"id": "b"}\n')
    with pytest.raises(OLMoDataError, match=r"^mine: .*train.jsonl, line 2: the key 'question' is missing; there is id"):
        open_indexed(ROW, "train")
    assert not list((folder.parents[1] / "indices").glob("*.arrow*")) and not list((folder.parents[1] / "indices").glob("*.part*"))


def test_missing_files_say_what_to_download(folder):
    with pytest.raises(OLMoDataError, match=r"mine: val.jsonl is not in .*Mine \(there is train.jsonl\); download from a page \(by hand\)"):
        open_indexed(ROW, "val")
    with pytest.raises(OLMoDataError, match="mine: not found in .*Nobody; download from"):
        open_indexed(replace(ROW, folder="Nobody"), "train")


def test_a_folder_that_cannot_be_written(folder):
    (folder.parents[1] / "indices").write_text("a file where the folder should be")
    with pytest.raises(OLMoEnvironmentError, match="the index of mine cannot be written to .*indices: File exists"):
        open_indexed(ROW, "train")


def test_groups_are_even():
    """The published examples: 7 of at most 3, and 11 of at most 5."""
    assert [len(g) for g in split_evenly(range(7), 3)] == [3, 2, 2] and [len(g) for g in split_evenly(range(11), 5)] == [4, 4, 3]
    assert sum(split_evenly(range(11), 5), []) == list(range(11))
