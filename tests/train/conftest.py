"""What tests of the training command share: eight small videos, and log settings that do not leak."""

import logging

import pytest

from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    """A data folder with the videos of `six_blocks.yaml`."""
    folder = tmp_path_factory.mktemp("data")
    config = MovingShapesConfig(root=str(folder / "moving_shapes"), num_train=8, num_test=2, seconds=2.0, size=96)
    MovingShapes(config, "train")
    return folder


@pytest.fixture
def shapes(shapes_folder, monkeypatch):
    """The same, as the data folder of this test."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(shapes_folder))
    return shapes_folder


@pytest.fixture(autouse=True)
def _log_settings():
    """Commands set up logging for their process; a test gives the process back as it was."""
    loggers = [logging.getLogger(n) for n in (None, "olmo", "py.warnings")]
    saved = [(log.level, list(log.handlers)) for log in loggers]
    yield
    for log, (level, handlers) in zip(loggers, saved, strict=True):
        log.setLevel(level)
        log.handlers[:] = handlers
    logging.captureWarnings(False)
