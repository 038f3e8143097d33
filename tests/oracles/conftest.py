"""`TEST_DEVICE=cuda` puts the towers and decoders of these tests, theirs and ours, on a GPU."""

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def _device():
    before = torch.get_default_device()
    torch.set_default_device(os.environ.get("TEST_DEVICE", "cpu"))
    yield
    torch.set_default_device(before)
