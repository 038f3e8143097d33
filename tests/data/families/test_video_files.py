"""Which videos are there: as paths or as names, from as few listings as there are folders."""

import os
from collections import Counter
from pathlib import Path

import pytest

from olmo.data.families.video_files import Listing, videos_below, with_videos
from olmo.exceptions import OLMoDataError


@pytest.fixture
def folder(tmp_path):
    for name in ("videos/a/1.mp4", "videos/a/2.MKV", "videos/b/1.webm", "videos/b/notes.txt", "other/3.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def kept(place, where, *names):
    return [(r["video"], r["n"]) for r in with_videos(((name, {"n": n}) for n, name in enumerate(names)), place, where)]


def test_videos_by_path(folder, caplog):
    names = ("videos/a/1.mp4", "videos/a/9.mp4", "nowhere/1.mp4", "videos/../other/3.avi", "videos/a/9.mp4")
    assert kept(Listing(folder).path, folder, *names) == [("videos/a/1.mp4", 0), ("videos/../other/3.avi", 3)]
    assert f"left out: 2 of 4 videos, which are not in {folder} (the first: videos/a/9.mp4)" in caplog.text


def test_videos_by_name(folder, caplog):
    """Whatever their format, and the first of several; files of other kinds and other folders are none."""
    place = videos_below(folder, "videos")
    assert kept(place, folder / "videos", "1", "2", "1", "3", "notes") == [
        ("videos/a/1.mp4", 0),
        ("videos/a/2.MKV", 1),
        ("videos/a/1.mp4", 2),
    ]
    assert f"left out: 2 of 4 videos, which are not in {folder}/videos (the first: 3)" in caplog.text
    by_folder = videos_below(folder, "", lambda path: path.parent.name)
    assert kept(by_folder, folder, "b", "other") == [("videos/b/1.webm", 0), ("other/3.avi", 1)]


def test_no_video_at_all(folder):
    assert kept(Listing(folder).path, folder) == []
    with pytest.raises(OLMoDataError, match=r"none of its 2 videos is in .*/nowhere; the first should be 1"):
        kept(videos_below(folder, "nowhere"), folder / "nowhere", "1", "2")


def test_folders_are_listed_once_and_files_never_asked_for(folder, monkeypatch):
    """Seen to fail when every path is asked for with `is_file`."""
    asked: Counter[str] = Counter()

    def counted(function):
        def count(path, *args, **kwargs):
            asked[os.path.relpath(path, folder)] += 1
            return function(path, *args, **kwargs)

        return count

    for name in ("listdir", "scandir", "stat", "lstat"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(Path, "stat", lambda self, **kwargs: os.stat(self, **kwargs))
    paths = Listing(folder)
    assert len(kept(paths.path, folder, *(["videos/a/1.mp4", "videos/b/1.webm"] * 200))) == 400
    assert set(asked) == {"videos/a", "videos/b"} and max(asked.values()) <= 2  # is it a folder, and what is in it
    asked.clear()
    assert len(kept(videos_below(folder, "videos"), folder, *(["1", "2"] * 200))) == 400
    assert set(asked) <= {"videos", "videos/a", "videos/b"} and max(asked.values()) <= 2
