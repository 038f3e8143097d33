import pytest

from tests.data.web_server import serving


@pytest.fixture
def web():
    """A web server on this machine."""
    with serving() as server:
        yield server
