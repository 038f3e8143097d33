import pytest

from tests.data.families.fixtures import Miniature


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    """`miniature(folder)`: the folder of a data set in an otherwise empty MOLMO_DATA_DIR."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    return lambda folder: Miniature(tmp_path / "video_datasets" / folder)
