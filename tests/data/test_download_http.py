"""Files from a web server that drops connections, forgets ranges, changes files and lies about checksums."""

import hashlib

import pytest

from olmo.data.download.http import Checksum, Patience, download, name_of
from olmo.exceptions import OLMoDataError, OLMoEnvironmentError
from tests.data.web_server import git_name

CONTENT = bytes(range(256)) * 4000
QUICK = Patience(attempts=3, pause=0.0, timeout=5.0)
SHA256 = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def target(web, tmp_path):
    web.files["/set/a.bin"] = CONTENT
    return tmp_path / "folder" / "a.bin"


def fetch(web, target, checksum=None, **options):
    download(f"{web.url}/set/a.bin", target, checksum, patience=QUICK, **options)


def leftovers(target):
    return sorted(p.name for p in target.parent.iterdir() if p != target)


def test_a_file(web, target):
    told = []
    fetch(web, target, SHA256, tell=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT and leftovers(target) == []
    assert told[0] == (0, len(CONTENT)) and told[-1] == (len(CONTENT), len(CONTENT))
    fetch(web, target, SHA256)
    assert len(web.asked) == 1  # what is there is not asked for again


def test_dropped_connections_are_resumed(web, target):
    """Seen to fail without the comparison of lengths (the file is short) and without Range (all attempts begin at 0)."""
    web.drops = [1000, 300_000, 10]
    fetch(web, target)
    assert target.read_bytes() == CONTENT and leftovers(target) == []
    assert web.ranges_of("/set/a.bin") == [None, "bytes=1000-", "bytes=301000-", "bytes=301010-"]


def test_the_next_call_goes_on(web, target):
    web.drops = [5000, 0, 0, 0]
    with pytest.raises(OLMoDataError, match=r"a\.bin: the connection ended after 5000 of 1024000 bytes, 3 times in a row; 5000 bytes are"):
        fetch(web, target)
    assert not target.exists() and leftovers(target) == ["a.bin.part", "a.bin.part.json"]
    web.drops, web.asked = [], []
    fetch(web, target)
    assert target.read_bytes() == CONTENT and web.ranges_of("/set/a.bin") == ["bytes=5000-"]


def test_a_server_without_ranges(web, target):
    web.drops, web.ranges = [5000], False
    fetch(web, target, SHA256)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"two"', None])
def test_two_versions_are_never_joined(web, target, etag):
    """Seen to fail without If-Range: the end of the new file behind the beginning of the old one. Without an ETag the sizes tell."""
    web.drops, web.etag = [5000, 0, 0, 0], etag and '"one"'
    with pytest.raises(OLMoDataError):
        fetch(web, target)
    web.drops, web.etag, web.files["/set/a.bin"] = [], etag, CONTENT[:4000][::-1]
    fetch(web, target)
    assert target.read_bytes() == CONTENT[:4000][::-1]


def test_bytes_of_another_address_are_given_up(web, target):
    target.parent.mkdir()
    (target.parent / "a.bin.part").write_bytes(b"something else")
    (target.parent / "a.bin.part.json").write_text('{"url": "http://elsewhere/a.bin", "version": "x"}')
    fetch(web, target)
    assert target.read_bytes() == CONTENT


def test_killed_before_the_rename(web, target):
    """All bytes are there already: the server has nothing more to send."""
    target.parent.mkdir()
    (target.parent / "a.bin.part").write_bytes(CONTENT)
    (target.parent / "a.bin.part.json").write_text(f'{{"url": "{web.url}/set/a.bin", "version": "\\"one\\""}}')
    fetch(web, target, SHA256)
    assert target.read_bytes() == CONTENT and web.ranges_of("/set/a.bin") == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("right", [SHA256, Checksum("git", git_name(CONTENT))], ids=lambda c: c.kind)
def test_a_wrong_checksum(web, target, right):
    """Named with both sums, and nothing is left that could be taken for the file. Seen to fail with the rename before the check."""
    wrong = Checksum(right.kind, "0" * len(right.value))
    sums = f"expected {right.kind} {wrong.value}, found {right.value}"
    with pytest.raises(OLMoDataError, match=rf"a\.bin: the checksum of a\.bin is wrong: {sums}; what was fetched is deleted"):
        fetch(web, target, wrong)
    assert not target.exists() and leftovers(target) == []
    fetch(web, target, right)
    assert target.read_bytes() == CONTENT


def test_a_token_is_not_shown_to_where_the_server_points(web, target):
    """Seen to fail with an ordinary header, which urllib sends on. What is resumed is asked for there, too."""
    web.redirects["/set/a.bin"] = "/elsewhere/a.bin"
    web.files["/elsewhere/a.bin"], web.drops = web.files.pop("/set/a.bin"), [1000]
    fetch(web, target, token="secret")
    assert target.read_bytes() == CONTENT
    assert web.tokens == [("/set/a.bin", "Bearer secret"), ("/elsewhere/a.bin", None)] * 2
    assert web.ranges_of("/elsewhere/a.bin") == [None, "bytes=1000-"]


def test_a_file_in_place_with_a_wrong_checksum_is_fetched_again(web, target):
    target.parent.mkdir()
    target.write_bytes(b"cut")
    fetch(web, target, SHA256)
    assert target.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(web, target):
    web.statuses = [503, 429, 200]
    fetch(web, target)
    assert target.read_bytes() == CONTENT and len(web.asked) == 3


def test_what_is_not_there_is_not_asked_for_again(web, target):
    with pytest.raises(OLMoDataError, match=r"b\.bin: the server says 404"):
        download(f"{web.url}/b.bin", target, patience=QUICK)
    assert len(web.asked) == 1 and leftovers(target) == []


def test_no_server(target):
    with pytest.raises(OLMoDataError, match=r"http://127\.0\.0\.1:9/a: no connection \(.*refused.*\), 3 times in a row$"):
        download("http://127.0.0.1:9/a", target, patience=QUICK)


def test_a_page_instead_of_a_file(web, target):
    web.content_type = "text/html; charset=utf-8"
    with pytest.raises(OLMoDataError, match=r"sends a web page instead of a\.bin; open it in a browser, and put the file into .*folder"):
        fetch(web, target)
    assert not target.exists()


def test_a_folder_that_cannot_be_written(web, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OLMoEnvironmentError, match=r"file/a\.bin cannot be written: .*GB are free"):
        fetch(web, tmp_path / "file" / "a.bin")


def test_pauses_double_and_end(monkeypatch):
    slept = []
    monkeypatch.setattr("olmo.data.download.http.time.sleep", slept.append)
    for failures in range(1, 9):
        Patience(pause=1.0).wait(failures)
    Patience(pause=1.0).wait(1, asked=7.0)
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60, 7]


def test_names_of_addresses():
    assert name_of("https://a.org/x/My%20file.zip?token=1#top") == "My file.zip"
    assert name_of("https://a.org/x/..%2F..%2Fetc") == "etc"
    for bad in ("https://a.org/", "https://a.org/x/%2e%2e"):
        with pytest.raises(OLMoDataError, match="does not end with the name of a file"):
            name_of(bad)
