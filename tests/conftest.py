"""Settings shared by all tests: one thread per worker, nothing from the network, results that do not depend on order."""

import os

# Before torch, transformers or wandb are imported anywhere; spawned ranks and commands inherit these.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import ipaddress  # noqa: E402
import random  # noqa: E402
import socket  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from olmo.hf_model.torchvision_ops import declare_missing_operators  # noqa: E402

torch.set_num_threads(1)
declare_missing_operators()  # a CPU torch beside the torchvision of PyPI, which transformers would fail to import
# Properties are checked on the same examples every time; no deadline, since two workers share two cores.
hypothesis.settings.register_profile("project", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("project")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, alone or among others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _here(address) -> bool:
    """Whether an address is on this machine: a path, `localhost` or a loopback address."""
    if not isinstance(address, tuple) or address[0] in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """A test that connects to another machine fails, whatever its code does about errors of the network.

    Covers the sockets of Python in the process of the tests; processes that a test starts are not covered, nor are
    sockets that libraries open by themselves.
    """

    def guarded(method):
        def connect(self, address):
            if not _here(address):
                pytest.fail(f"tests must not use the network: {address[0]}")
            return method(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield


def pytest_terminal_summary(terminalreporter):
    """Print what tests note with `record_property("note", text)`, also when they pass and also from parallel workers."""
    reports = [r for outcome in ("passed", "failed") for r in terminalreporter.stats.get(outcome, [])]
    for note in dict.fromkeys(text for r in reports for key, text in r.user_properties if key == "note"):
        terminalreporter.write_line(note)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return REPO
