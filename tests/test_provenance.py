"""What a result was made with is known where it can be, and never the reason of a failure."""

import os
import subprocess

import pytest

from olmo import __version__
from olmo.provenance import checkout, package_versions, processor_name, versions


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A checkout with one committed file."""
    monkeypatch.delenv("SOURCE_COMMIT", raising=False)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "file").write_text("1")
    for words in (("init", "-q"), ("add", "file"), (*who, "commit", "-q", "-m", "one")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    return tmp_path


def test_commit_and_changes(repository):
    """A file that git does not know is no change: runs and data lie beside the code."""
    head = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    (repository / "other").write_text("2")
    commit, changed = checkout(repository)
    assert len(commit) == 12 and head.startswith(commit) and changed is False
    (repository / "file").write_text("3")
    assert checkout(repository) == (commit, True)


def test_no_checkout_no_git_and_a_copy(repository, monkeypatch):
    """An installed copy has no commit, also inside of somebody's repository, and git may be absent."""
    (repository / "installed").mkdir()
    assert checkout(repository / "installed") == (None, None)
    monkeypatch.setenv("PATH", str(repository))
    assert checkout(repository) == (None, None)
    monkeypatch.setenv("SOURCE_COMMIT", "abc")
    assert checkout(repository / "installed") == ("abc", None)


def test_a_broken_repository_is_not_known(repository):
    (repository / ".git" / "HEAD").unlink()
    assert checkout(repository) == (None, None)


def test_versions():
    found = versions()
    assert found["olmo"] == __version__ and {"python", "torch", "transformers"} <= found.keys()
    assert package_versions(("torch", "no-such-package")) == {"torch": found["torch"]}
    assert processor_name().strip()
