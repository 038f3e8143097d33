"""`TEST_DEVICE=cuda` puts the towers and decoders of these tests, theirs and ours, on a GPU."""

import pytest
import torch

from tests.device import DEVICE


@pytest.fixture(autouse=True)
def _device():
    before = torch.get_default_device()
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device(before)
