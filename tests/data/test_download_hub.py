"""Files of a hub on this machine: what huggingface_hub fetches from it, checked, noted and resumed."""

import hashlib

import pytest

from olmo.data.download.fetch import fetch
from olmo.data.download.http import Patience
from olmo.data.sources import Hub
from olmo.exceptions import OLMoDataError
from tests.data.test_download_archives import zipped
from tests.data.web_server import COMMIT, git_name

QUICK = Patience(attempts=3, pause=0.0, timeout=5.0)
REPO = "someone/some-set"


@pytest.fixture
def hub(web, monkeypatch, tmp_path):
    """A hub with one repository of three files; it is asked although tests are otherwise offline."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_ACCESS_TOKEN", "hf_opens")
    web.files = {"train.csv": b"a,b\n" * 100, "readme.md": b"# A set", "videos/1.zip": b""}
    archive = zipped(tmp_path / "1.zip", ("1.mp4", b"1" * 50_000), ("2.mp4", b"2"))
    web.files["videos/1.zip"] = archive.read_bytes()
    web.lfs = {"videos/1.zip": hashlib.sha256(archive.read_bytes()).hexdigest()}
    return web


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "set"


SOURCE = Hub(REPO, patterns=("*.csv", "videos/*.zip"), unpack=("videos/*.zip",))


def run(folder, source=SOURCE, **options):
    return fetch([source], folder, patience=QUICK, **options)


def files_in(folder):
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.relative_to(folder).parts[0].startswith(".")
    )


def gets(web):
    return [path.partition(COMMIT)[2] for method, path, _ in web.asked if method == "GET" and COMMIT in path]


def test_the_files_that_the_patterns_name(hub, folder):
    told = []

    class Show:
        def __enter__(self):
            return lambda done, total: told.append((done, total))

        def __exit__(self, *exc):
            pass

    result = run(folder, show=lambda title: Show())
    assert result.failures == [] and result.unpacked == 2
    assert files_in(folder) == ["train.csv", "videos/1.mp4", "videos/1.zip", "videos/2.mp4"]
    assert {token for _, token in hub.tokens} == {"Bearer hf_opens"}
    size = 400 + len(hub.files["videos/1.zip"])
    assert told[0] == (0, size) and told[-1] == (size, size)
    hub.asked.clear()
    assert run(folder).unpacked == 0 and gets(hub) == []  # nothing is fetched or unpacked twice


def test_a_removed_archive_is_not_fetched_again(hub, folder):
    run(folder, remove_archives=True)
    assert files_in(folder) == ["train.csv", "videos/1.mp4", "videos/2.mp4"]
    hub.asked.clear()
    run(folder)
    assert gets(hub) == []


def test_a_missing_file_is_fetched_again(hub, folder):
    run(folder)
    (folder / "train.csv").unlink()
    hub.asked.clear()
    run(folder)
    assert gets(hub) == ["/train.csv"] and (folder / "train.csv").is_file()


def test_dropped_connections(hub, folder):
    hub.drops = [7, 20, 3]
    assert run(folder).failures == []
    assert (folder / "videos/1.mp4").read_bytes() == b"1" * 50_000 and (folder / "train.csv").read_bytes() == b"a,b\n" * 100


def test_the_next_call_goes_on_within_a_file(hub, folder):
    """Seen to fail with the library's own download, which keeps nothing of what an interrupted call has fetched."""
    hub.drops = [40] + [0] * 20
    assert run(folder, Hub(REPO, patterns=("*.csv",))).failures
    hub.drops.clear()
    hub.asked.clear()
    assert run(folder, Hub(REPO, patterns=("*.csv",))).failures == []
    assert [asked for _, path, asked in hub.asked if path.endswith("train.csv")] == ["bytes=40-"]


@pytest.mark.parametrize(("name", "kind"), [("videos/1.zip", "sha256"), ("train.csv", "git")])
def test_a_wrong_checksum(hub, folder, name, kind):
    """What arrives is not what the hub lists; the other file arrives all the same."""
    if kind == "sha256":
        hub.lfs[name] = expected = "0" * 64
        found = hashlib.sha256(hub.files[name]).hexdigest()
    else:
        hub.served[name] = b"A" + hub.files[name][1:]
        expected, found = git_name(hub.files[name]), git_name(hub.served[name])
    (failure,) = run(folder).failures
    base = name.rpartition("/")[2]
    assert f"the checksum of {base} is wrong: expected {kind} {expected}, found {found}" in failure
    assert files_in(folder) == ["train.csv" if kind == "sha256" else "videos/1.zip"]


def test_a_new_commit(hub, folder):
    """Files that changed are fetched again, and no others."""
    run(folder)
    hub.files["train.csv"] = b"new"
    hub.commit = COMMIT[::-1]
    hub.asked.clear()
    assert run(folder).failures == []
    assert (folder / "train.csv").read_bytes() == b"new"
    assert [path.rpartition("/")[2] for method, path, _ in hub.asked if "resolve" in path] == ["train.csv"]


def test_files_that_the_hub_gives_only_to_its_library(hub, folder, monkeypatch):
    monkeypatch.setattr("olmo.data.download.hub.LARGEST_BY_HTTP", 100)
    assert run(folder).failures == [] and (folder / "videos/1.mp4").exists()
    (folder / "train.csv").unlink()
    hub.lfs["train.csv"] = "0" * 64
    (failure,) = run(folder).failures
    assert "the checksum of train.csv is wrong" in failure and "train.csv" not in files_in(folder)


@pytest.mark.parametrize(
    ("statuses", "code", "sentence"),
    [
        ([418], "", "some-set: the hub says 418"),
        ([403], "GatedRepo", "some-set is gated: accept its conditions there, make a token, and set HF_TOKEN to it"),
        ([401], "RepoNotFound", "some-set is not there, or only with a token in HF_TOKEN that may read it .the hub says 401."),
        ([503, 503, 503], "", "huggingface.co/datasets/someone/some-set: .*503.*, 3 times in a row"),
    ],
)
def test_a_hub_that_refuses(hub, folder, statuses, code, sentence):
    hub.statuses, hub.error_code = statuses, code
    (failure,) = run(folder).failures
    with pytest.raises(OLMoDataError, match=sentence):
        raise OLMoDataError(failure)


def test_a_gated_set_lists_its_files(hub, folder):
    """The listing is open, the files are not."""
    hub.statuses, hub.error_code = [200] + [403] * 9, "GatedRepo"
    (failure,) = run(folder).failures
    assert failure.startswith(
        "huggingface.co/datasets/someone/some-set is gated: accept its conditions there, make a token, and set HF_TOKEN"
    )
    assert failure.endswith("; and 1 more files")


def test_a_pattern_without_a_file(hub, folder):
    (failure,) = run(folder, Hub(REPO, patterns=("*.csv", "*.parquet"))).failures
    assert "there is no file '*.parquet'" in failure and files_in(folder) == []


def test_a_name_that_leads_out(hub, folder):
    hub.files["../outside.csv"] = b"bad"
    (failure,) = run(folder).failures
    assert "'../outside.csv' would lie outside the folder" in failure
    assert not (folder.parent / "outside.csv").exists()


def test_offline(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (failure,) = run(folder).failures
    assert "HF_HUB_OFFLINE forbids to ask the hub; unset it" in failure
