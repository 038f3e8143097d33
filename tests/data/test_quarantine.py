"""The list of files that hung or crashed a decoder: shared by processes and runs, and never in the way of them."""

import json
import logging
import os
from multiprocessing import get_context

import pytest

from olmo.data.failures import BadVideoError, FailureLog
from olmo.data.quarantine import Quarantine, quarantine_file


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12345")
    return str(path)


@pytest.fixture
def listed(tmp_path):
    return tmp_path / "data" / "quarantine.jsonl"


def refused(quarantine: Quarantine, path: str) -> bool:
    try:
        quarantine.check(path)
    except BadVideoError as err:
        assert err.cause == "quarantined"
        return True
    return False


def test_a_line_says_which_file_what_and_when(video, listed):
    Quarantine(listed).note(BadVideoError(video, "timeout", "60 s"))
    (line,) = listed.read_text().splitlines()
    entry = json.loads(line)
    assert {k: entry[k] for k in ("path", "size", "cause")} == {"path": video, "size": 5, "cause": "timeout"}
    assert entry["mtime_ns"] == os.stat(video).st_mtime_ns and entry["when"].startswith("20")
    with pytest.raises(BadVideoError, match=rf"^{video}: .*\(timeout on 20.*; to try it again, delete its line in {listed}\)$"):
        Quarantine(listed).check(video)


@pytest.mark.parametrize("cause", ["corrupt", "truncated", "missing", "invalid_clip", "quarantined"])
def test_other_causes_are_not_listed(video, listed, cause):
    Quarantine(listed).note(BadVideoError(video, cause))
    assert not listed.exists()


@pytest.mark.parametrize("change", ["longer", "touched", "cleared"])
def test_tried_again_when_the_file_or_the_list_changes(video, listed, change):
    """Seen to fail (touched) when only sizes are compared, (cleared) when the list is read only once."""
    quarantine = Quarantine(listed)
    quarantine.note(BadVideoError(video, "crash"))
    assert refused(quarantine, video)
    if change == "longer":
        with open(video, "ab") as file:
            file.write(b"6")
        os.utime(video, ns=(0, json.loads(listed.read_text())["mtime_ns"]))
    elif change == "touched":
        os.utime(video, ns=(0, 1))
    else:
        listed.write_text("")
    assert not refused(quarantine, video)


def test_processes_see_each_other(video, tmp_path, listed):
    """A reader that looked before sees what another adds. Seen to fail when the list is read only once."""
    other = tmp_path / "b.mp4"
    other.write_bytes(b"")
    _note_many(listed, [str(other)])
    mine, theirs = Quarantine(listed), Quarantine(listed)
    assert not refused(mine, video) and not refused(theirs, video)
    theirs.note(BadVideoError(video, "crash"))
    assert all(refused(q, path) for q in (mine, theirs) for path in (video, str(other)))


def _note_many(listed, paths):
    quarantine = Quarantine(listed)
    for path in paths:
        quarantine.note(BadVideoError(path, "crash"))


def test_several_processes_may_write(tmp_path, listed):
    paths = [str(tmp_path / f"{i}.mp4") for i in range(200)]
    for path in paths:
        open(path, "w").close()
    context = get_context("fork")
    writers = [context.Process(target=_note_many, args=(listed, paths[i::4])) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(json.loads(line)["path"] for line in listed.read_text().splitlines()) == sorted(paths)


def test_a_list_that_cannot_be_written_still_counts_in_this_run(video, tmp_path, caplog):
    (tmp_path / "quarantine.jsonl").mkdir()
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    with caplog.at_level(logging.WARNING):
        quarantine.note(BadVideoError(video, "crash"))
    assert refused(quarantine, video)
    assert "cannot be written (Is a directory): later runs will try" in caplog.text


def test_broken_lines_are_named_and_ignored(video, listed, caplog):
    """Also a last line that is still being written."""
    quarantine = Quarantine(listed)
    quarantine.note(BadVideoError(video, "crash"))
    good = listed.read_text()
    listed.write_text("{}\n\nno json\n" + good + '{"path": "/b')
    with caplog.at_level(logging.WARNING):
        assert refused(quarantine, video) and refused(quarantine, video)
    said = [r.getMessage().removeprefix(f"{listed}, ").partition(":")[0] for r in caplog.records]
    assert said == ["line 1", "line 3"]


def test_counted_as_a_cause_of_its_own(video, listed, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(listed.parent))
    assert quarantine_file() == listed
    failures = FailureLog(1.0)
    failures.record(2, [BadVideoError(video, "quarantined"), BadVideoError(video, "crash")])
    assert failures.metrics()["data/bad_quarantined"] == failures.metrics()["data/bad_crash"] == 1
