"""A clip that can be measured but not decoded, from its file to the optimiser step: its row stays, empty, and teaches nothing."""

import dataclasses

import pytest
import torch

from olmo.data.failures import BadVideoError
from olmo.data.video_reader import VideoReader
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from olmo.train.config import TrainConfig
from olmo.train.data import build_loader
from tests.train.command import CONFIG, records, train
from tests.train.ranks import ALONE
from tests.train.test_step import gradients, make_step

ROWS = 3
ALONE_IN_A_ROW = ("data.packing={buffer_size: 3, max_frames: 5}", "data.sequence_length=300", "data.max_bad_fraction=0.5")


def config() -> TrainConfig:
    cfg = TrainConfig.load(CONFIG, ["data.dataset=moving_shapes", f"global_train_batch_size={ROWS}", *ALONE_IN_A_ROW])
    model = TemporalVideoOlmoConfig.from_molmo2(cfg.model)
    cfg.model = model.with_overrides(["vision_backbone.vit.sim_reg_loss_coefficient=0"])  # a mean over micro-batches, no concern here
    return cfg


@pytest.fixture
def undecodable(shapes, monkeypatch):
    """The first video of the stream breaks off where it is decoded."""
    (first,) = next(iter(build_loader(config(), ALONE))).metadata[0]["examples"]
    real = VideoReader.frames_of

    def frames_of(self, info, indices, transform=None):
        if info.path.endswith(f"{int(first['example_id'].rpartition('/')[2]):06d}.mp4"):
            raise BadVideoError(info.path, "corrupt", "for this test")
        return real(self, info, indices, transform)

    monkeypatch.setattr(VideoReader, "frames_of", frames_of)


@pytest.mark.parametrize("micro", [1, 2])
def test_a_row_without_examples_changes_no_gradient(undecodable, micro):
    """Oracle: the same batch without that row. Seen to fail when its only token has a loss weight."""
    batch = next(iter(build_loader(config(), ALONE)))
    keep = [i for i, row in enumerate(batch.layout) if row.segments]
    assert len(keep) == ROWS - 1 and sorted(row.num_tokens for row in batch.layout)[0] == 1
    others = dataclasses.replace(
        batch.map_tensors(lambda t: t[keep]), layout=tuple(batch.layout[i] for i in keep), metadata=[batch.metadata[i] for i in keep]
    )
    step, oracle = make_step(config().model, micro), make_step(config().model)
    found, expected = step(batch, 1), oracle(others, 1)
    assert found.metrics["train/CrossEntropyLoss"] == pytest.approx(expected.metrics["train/CrossEntropyLoss"], rel=1e-5)
    assert found.examples == expected.examples + 1 and found.loss_tokens == expected.loss_tokens
    for name, grad in gradients(oracle).items():
        torch.testing.assert_close(gradients(step)[name], grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_run_goes_on(undecodable, tmp_path):
    """Through the command, one row at a time, over more than one epoch; and the clip is in the log."""
    assert train(tmp_path, *(f"--{o}" for o in ALONE_IN_A_ROW), "--device_batch_size=1") == 0
    last = records(tmp_path)[-1]
    assert last["data/bad_corrupt"] >= 1 and last["data/empty_rows"] == last["data/bad_corrupt"]
