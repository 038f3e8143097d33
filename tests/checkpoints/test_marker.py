"""The completion marker: what it lists, what counts as whole, and flipped bytes."""

import json
import shutil

import pytest
import torch

from olmo.checkpoints import load_model, read_marker, select_checkpoint, verify_checkpoint, what_is_missing
from olmo.exceptions import OLMoCheckpointError
from olmo.train.config import TrainConfig
from olmo.train.saving.folder import save_checkpoint, save_unsharded
from tests.checkpoints.formats import fresh
from tests.train.ranks import ALONE
from tests.train.tiny_run import model_config


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("marked"), model_config()
    cfg, model = TrainConfig(save_folder=str(folder), model=config), fresh(config)
    for step in (3, 12):
        save_checkpoint(cfg, step, model, None, {"step": step}, ALONE)
    save_unsharded(cfg, 2, model, ALONE)
    return folder


@pytest.fixture
def run(written, tmp_path):
    """A copy that the test may damage."""
    return shutil.copytree(written, tmp_path / "run")


def flip(file, position=-40):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_it_lists_every_file(written):
    for name in ("step3", "step12", "step2-unsharded"):
        folder = written / name
        there = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "complete.json"}
        assert {n: e["bytes"] for n, e in read_marker(folder)["files"].items()} == there
        assert verify_checkpoint(folder) == sum(there.values())
        assert not list(folder.rglob("unfinished.json"))


@pytest.mark.parametrize("name", ["model_and_optim/__0_0.distcp", "model_and_optim/.metadata", "train/rank0.pt", "config.yaml"])
def test_a_flipped_byte_names_the_file(run, name):
    """Seen to fail when only lengths are compared. Of several processes one finds it."""
    flip(run / "step12" / name)
    with pytest.raises(OLMoCheckpointError, match=rf"step12/{name} is damaged: its bytes do not have the check sum"):
        verify_checkpoint(run / "step12")
    found = 0
    for part in range(3):
        try:
            verify_checkpoint(run / "step12", part, 3)
        except OLMoCheckpointError:
            found += 1
    assert found == 1
    assert verify_checkpoint(run / "step3") > 0


@pytest.mark.parametrize("name", ["train/rank0.pt", "model_and_optim/.metadata", "model_and_optim/__0_0.distcp"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_listed_file_that_is_not_there_in_full(run, name, cut):
    """`train/` is no part of the published rule. Seen to fail without the marker's list."""
    file = run / "step12" / name
    data = file.read_bytes()
    file.write_bytes(data[:-7]) if cut else file.unlink()
    if name.endswith(".metadata") and cut:
        with pytest.raises(OLMoCheckpointError, match=r"\.metadata cannot be read"):
            select_checkpoint(run / "step12")
        return
    missing = f"the last 7 bytes of {name}" if cut else name
    assert what_is_missing(run / "step12") == missing
    assert select_checkpoint(run).name == "step3"


def test_a_folder_that_says_it_is_unfinished(run):
    """All files but the marker are there: without the sign it is of the published layout, with it it is never read."""
    folder = run / "step12"
    (folder / "complete.json").unlink()
    assert what_is_missing(folder) is None and select_checkpoint(run) == folder
    assert verify_checkpoint(folder) == 0
    (folder / "unfinished.json").write_text("{}")
    assert what_is_missing(folder) == "complete.json" and select_checkpoint(run).name == "step3"
    with pytest.raises(OLMoCheckpointError, match=r"step12 is not whole: complete\.json is missing"):
        select_checkpoint(folder)


def test_a_config_may_be_edited(run):
    (run / "step12/config.yaml").write_text((run / "step12/config.yaml").read_text().replace("save_overwrite: false\n", ""))
    assert torch.isfinite(next(load_model(select_checkpoint(run)).parameters())).all()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1, "files": {"a": 3}}', '{"version": 7, "files": {}}'])
def test_a_marker_that_is_none(run, text):
    (run / "step12/complete.json").write_text(text)
    assert select_checkpoint(run).name == "step3"
    with pytest.raises(OLMoCheckpointError, match=r"step12/complete\.json is not a completion marker"):
        verify_checkpoint(run / "step12")


def test_a_marker_that_names_a_file_elsewhere(run):
    file = run / "step12/complete.json"
    record = json.loads(file.read_text())
    record["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": ""}
    file.write_text(json.dumps(record))
    with pytest.raises(OLMoCheckpointError, match="names a file outside its folder"):
        verify_checkpoint(run / "step12")
