"""From annotations and a video file to what the model gets: the part of the video that is asked about, and what is said in it."""

import numpy as np
import pytest

from olmo.config import read_yaml
from olmo.data.catalogue import get_dataset
from olmo.data.loader import DataLoaderConfig
from olmo.models.molmo2.preprocessor import build_preprocessor
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from tests.data.clips import write_clip
from tests.data.families.test_molmo2_sets import FILES, spoken
from tests.patches import unpatchify


@pytest.fixture(scope="module")
def config(request):
    return TemporalVideoOlmoConfig.from_dict(read_yaml(request.config.rootpath / "configs" / "tiny.yaml")["model"])


def preprocessed(config, name):
    """(arrays of the first example, its tokenizer, its path, the reader)."""
    load = DataLoaderConfig().video_loader("pyav")
    preprocessor = build_preprocessor(config, is_training=True, seq_len=2000, load_video=load)
    raw = get_dataset(name, "train").get(0, np.random.default_rng(0))
    return preprocessor(raw, np.random.default_rng(0)), preprocessor.tokenizer, raw["video"], load.reader


def test_a_step_shows_its_part_of_the_video(config, miniature):
    """The frames are those from the start of the segment to its end. Oracle: the file read at those times. Seen to fail
    without the clip in the metadata."""
    files = miniature("COIN")
    step = {"id": "1", "segment": [2.0, 4.0], "label": "jack up the car"}
    files.json("COIN.json", {"database": {"abc": {"subset": "training", "annotation": [step]}}})
    files.touch("videos/abc.mp4")
    pixels, _ = config.vision_backbone.vit.image_default_input_size
    write_clip(files.folder / "videos" / "abc.mp4", frames=60, size=(pixels, pixels))
    found, tokenizer, path, reader = preprocessed(config, "coin_all_qa")
    times = np.array(found.metadata["frame_times"])
    assert times[0] == 0 and 1.8 < times[-1] <= 2.0
    expected = reader.frames_at(path, 2.0 + times)
    np.testing.assert_array_equal(unpatchify(found.images, (pixels // 14, pixels // 14), 14), expected)
    assert tokenizer.decode(found.input_tokens.tolist()).endswith("jack up the car")


def test_what_is_said_is_in_front_of_the_question(config, miniature):
    files = miniature("youtube-cc")
    files.parquet(FILES["molmo2_syn_captions_subtitle_qa"], [spoken()])
    files.touch("part-1/abc/abc.mp4")
    write_clip(files.folder / "part-1" / "abc" / "abc.mp4", frames=40)
    found, tokenizer, _, _ = preprocessed(config, "molmo2_syn_captions_subtitle_qa")
    text = tokenizer.decode(found.input_tokens.tolist())
    assert "subtitle\n0.5 - 2.0 hello\n2.0 - 3.5 you\n<|im_start|>user\n" in text
