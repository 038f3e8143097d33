"""A folder of pictures as a video: times, clips, and what is wrong with a folder."""

import numpy as np
import pytest
from PIL import Image

from olmo.data.failures import BadVideoError
from olmo.data.load_video import VideoLoader
from olmo.data.video_reader import VideoReaderConfig
from olmo.preprocessing.frame_sampling import FrameSampler, TimeSampler
from tests.data.clips import numbered_frame, read_number


def write_frames(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number)).save(folder / f"{number:05d}.jpg", quality=90)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "met_s06e22_seg01_clip_02"
    (path / "notes").mkdir(parents=True)
    return write_frames(path, range(1, 31))


LOADER = VideoLoader(VideoReaderConfig(backend="pyav"))


def test_three_pictures_are_a_second(folder):
    """Seen to fail with 1 / 30 s for each, and with the numbers themselves as times."""
    info = LOADER.reader.probe(folder)
    assert (info.num_frames, info.duration, info.fps, info.width, info.height) == (30, 10.0, 3.0, 64, 64)
    frames = LOADER(folder, TimeSampler(8, "uniform_last_frame", max_fps=[2.0]), clip=(2.0, 4.0))
    np.testing.assert_allclose(frames.timestamps, [0, 0.5, 1, 1.5, 2])
    assert [read_number(f) for f in frames.frames] == [7, 8, 10, 11, 13]
    whole = LOADER(folder, FrameSampler(4, "uniform_last_frame"))
    assert [read_number(f) for f in whole.frames] == [1, 10, 20, 30]


def test_a_missing_picture_is_the_one_before(tmp_path):
    path = write_frames(tmp_path / "a", [1, 2, 5])
    frames = LOADER(path, TimeSampler(6, "uniform_last_frame", max_fps=[3.0]))
    assert [read_number(f) for f in frames.frames] == [1, 2, 2, 2, 5, 5]


def test_folders_that_are_no_video(tmp_path, folder):
    with pytest.raises(BadVideoError, match="no frames .*a folder without 00001.jpg"):
        LOADER(str(tmp_path), TimeSampler(4, "uniform_last_frame"))
    with pytest.raises(BadVideoError, match="does not exist"):
        LOADER(str(tmp_path / "none"), TimeSampler(4, "uniform_last_frame"))
    with pytest.raises(BadVideoError, match="lies behind the end"):
        LOADER(folder, TimeSampler(4, "uniform_last_frame"), clip=(10.0, 12.0))
    path = write_frames(tmp_path / "broken", [1, 2, 3])
    (tmp_path / "broken" / "00002.jpg").write_text("no picture")
    with pytest.raises(BadVideoError, match="cannot be decoded .*00002.jpg cannot be read as an image"):
        LOADER(path, TimeSampler(4, "uniform_last_frame", max_fps=[3.0]))
    (tmp_path / "broken" / "00001.jpg").write_text("no picture")
    with pytest.raises(BadVideoError, match="cannot be decoded .*00001.jpg cannot be read as an image"):
        LOADER(path, TimeSampler(4, "uniform_last_frame", max_fps=[3.0]))
