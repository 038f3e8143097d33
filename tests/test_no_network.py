"""The guard of `conftest.py` against tests that use the network."""

import socket
import urllib.error
import urllib.request

import pytest

ELSEWHERE = ("192.0.2.1", 80)
"""An address for documentation, where nobody is."""


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_other_machines_are_refused(kind):
    """Seen to fail without the guard: the connection fails by itself after a while (or, with datagrams, not at all)."""
    with socket.socket(socket.AF_INET, kind) as sock, pytest.raises(pytest.fail.Exception, match=r"network: 192\.0\.2\.1"):
        sock.settimeout(0.2)
        sock.connect(ELSEWHERE)
    with socket.socket(socket.AF_INET, kind) as sock, pytest.raises(pytest.fail.Exception, match="network"):
        sock.settimeout(0.2)
        sock.connect_ex(ELSEWHERE)
    with socket.socket(socket.AF_INET6, kind) as sock, pytest.raises(pytest.fail.Exception, match="network: 2001:db8::1"):
        sock.connect(("2001:db8::1", 80))


def test_the_refusal_is_not_taken_for_a_network_that_is_down():
    """Code that catches errors of the network must not hide it. Seen to fail with an `OSError` in its place."""
    with pytest.raises(pytest.fail.Exception, match="network"):
        try:
            urllib.request.urlopen("http://192.0.2.1/", timeout=0.2)
        except (OSError, urllib.error.URLError):
            pytest.fail("swallowed")


def test_this_machine_is_allowed(tmp_path):
    """Loopback by number and by name, and sockets in the file system. Seen to fail with everything refused."""
    for host in ("127.0.0.1", "localhost"):
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection((host, server.getsockname()[1]), timeout=5):
            pass
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
