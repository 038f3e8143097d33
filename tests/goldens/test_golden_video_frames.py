"""The frames and time stamps of the published loader, on real files."""

import numpy as np
import pytest

from olmo.data.failures import BadVideoError
from olmo.data.load_video import VideoLoader
from olmo.data.video_reader import VideoReaderConfig
from olmo.preprocessing.frame_sampling import FrameSampler, TimeSampler
from tests.data.clips import read_number, write_clip
from tests.data.test_video_reader import BACKENDS
from tests.goldens.data_cases import cases


def sampler_of(inputs: dict):
    common = {"max_frames": inputs["max_frames"], "frame_sample_mode": inputs["mode"]}
    if inputs["time_sampling"]:
        return TimeSampler(**common, max_fps=inputs["max_fps"])
    return FrameSampler(**common, min_fps=inputs.get("min_fps"))


@pytest.mark.parametrize("case", cases("frame_sampling.json", "video_frames"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_video_frames(case, backend, tmp_path):
    """Frame ids are read back from the pixels. Seen to fail when stamps are multiplied by a float
    time base (3.0000000000000004 s are sampled one frame more)."""
    inputs, expected = case["input"], case["expected"]
    load, path = VideoLoader(VideoReaderConfig(backend=backend)), tmp_path / "clip.mp4"
    write_clip(path, frames=inputs["num_frames"], fps=int(inputs["video_fps"]), begin=inputs["stream_begin_s"])
    if expected.get("error") == "invalid_clip":
        with pytest.raises(BadVideoError) as caught:
            load(str(path), sampler_of(inputs), clip=inputs["clip"])
        assert caught.value.cause == "invalid_clip"
        return
    video = load(str(path), sampler_of(inputs), clip=inputs["clip"])
    if "fake_timestamp_fps" in inputs:
        video = video.with_fake_fps(inputs["fake_timestamp_fps"])
    assert [read_number(f) for f in video.frames] == expected["frame_ids"]
    np.testing.assert_allclose(video.timestamps, expected["timestamps_s"], atol=1e-6)
    assert video.target_fps == expected["target_fps"]
