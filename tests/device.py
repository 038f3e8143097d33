"""`TEST_DEVICE=cuda` puts the models of the tests that know it on a GPU (fp32; TF32 is off by default)."""

import os

import torch

DEVICE = torch.device(os.environ.get("TEST_DEVICE", "cpu"))
