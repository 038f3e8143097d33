"""A judge of our own for the tests of this folder."""

import pytest

from tests.eval.judges.judge_server import serving


@pytest.fixture
def server():
    with serving() as state:
        yield state


@pytest.fixture(autouse=True)
def _no_judge_of_the_user(monkeypatch):
    for name in ("OLMO_JUDGE_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
