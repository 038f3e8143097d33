"""Checkpoints on a local S3-compatible server: round trip, partial uploads, damage, what is deleted."""

import errno
import os
from contextlib import contextmanager

import pytest
import torch

from olmo.checkpoints import load_model, model_tensors, select_checkpoint
from olmo.checkpoints.remote import select_in_store
from olmo.checkpoints.stores import Store
from olmo.exceptions import OLMoCheckpointError, OLMoEnvironmentError
from olmo.train.config import TrainConfig
from olmo.train.saving.snapshot import Snapshots
from olmo.train.saving.writing import clear_leftovers, delete, write_checkpoint
from tests.checkpoints.formats import fresh, weights_of, write_native
from tests.checkpoints.s3_server import s3_server
from tests.train.ranks import ALONE
from tests.train.tiny_run import model_config

FILES = ("unfinished.json", "train/rank0.pt", "model_and_optim/__0_0.distcp", "model_and_optim/.metadata", "config.yaml", "complete.json")

SNAPSHOTS = Snapshots()
"""Its config is rendered once, which is most of the time of a tiny save."""


@pytest.fixture(scope="module")
def client():
    with s3_server() as (_, client):
        yield client


@pytest.fixture(scope="module")
def model():
    return fresh(model_config())


@pytest.fixture
def store(client, request, tmp_path, monkeypatch):
    monkeypatch.setenv("OLMO_CHECKPOINT_CACHE", str(tmp_path / "cache"))
    return Store(f"s3://runs/{request.node.name.replace('[', '-').replace(']', '').replace('/', '-')}")


def save(store, model, step):
    cfg = TrainConfig(model=model_config(), checkpoint_folder=store.location)
    return write_checkpoint(store, SNAPSHOTS.take(cfg, step, model, None, {"step": step}, copy=False), ALONE)


def keys(client, store):
    prefix = store.location.removeprefix("s3://runs/") + "/"
    found = client.list_objects_v2(Bucket="runs", Prefix=prefix).get("Contents", [])
    return sorted(o["Key"].removeprefix(prefix) for o in found)


def test_round_trip(store, client, model):
    """A URL is as good as a folder for everything that reads checkpoints."""
    for step in (3, 12):
        assert save(store, model, step) == f"{store}/step{step}"
    assert keys(client, store) == sorted(f"step{s}/{f}" for s in (3, 12) for f in FILES[1:])
    folder = select_checkpoint(store.location)
    assert folder.name == "step12" and select_checkpoint(f"{store}/step3").name == "step3"
    loaded = model_tensors(load_model(folder))
    assert all(torch.equal(p, loaded[n]) for n, p in model_tensors(model).items())
    before = (folder / "complete.json").stat().st_mtime_ns
    assert select_checkpoint(store.location) == folder and (folder / "complete.json").stat().st_mtime_ns == before, "fetched once"


@pytest.mark.parametrize("count", [pytest.param(n, marks=pytest.mark.slow if n in (1, 2, 4) else ()) for n in range(1, len(FILES) + 1)])
def test_fault_partial_upload_is_never_taken(store, client, model, count):
    """As a kill leaves it after each file, and with the file before last torn."""
    save(store, model, 1)
    order = []
    writing = Store.writing

    class Killed(BaseException):
        pass

    @contextmanager
    def dies(self, name):
        if len(order) == count:
            raise Killed
        order.append(name)
        with writing(self, name) as stream:
            yield stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "writing", dies)
        if count < len(FILES):
            with pytest.raises(Killed):
                save(store, model, 2)
        else:
            save(store, model, 2)
    newest = "step2" if count == len(FILES) else "step1"
    assert select_in_store(store.location) == f"{store}/{newest}"
    if newest == "step1":
        assert any(k.startswith("step2/") for k in keys(client, store))
        clear_leftovers(store)
        assert not any(k.startswith("step2/") for k in keys(client, store))
    else:
        assert order[0].endswith("unfinished.json") and order[-1].endswith("complete.json")
    assert select_checkpoint(store.location).name == newest


def test_fault_of_the_server(store, model, monkeypatch):
    """One sentence, and the checkpoint before stays."""
    save(store, model, 1)
    write = Store.write

    def broken(self, name, data):
        if name.endswith("config.yaml"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(self, name, data)

    monkeypatch.setattr(Store, "write", broken)
    with pytest.raises(OLMoEnvironmentError, match=f"cannot write to {store}: Input/output error"):
        save(store, model, 2)
    assert store.folders() == ["step1"]
    with pytest.raises(OLMoEnvironmentError, match="cannot write to s3://no-such-bucket/run"):
        save(Store("s3://no-such-bucket/run"), model, 2)


@pytest.mark.parametrize("file", ["model_and_optim/__0_0.distcp", "train/rank0.pt"])
def test_damage_is_found_while_fetching(store, client, model, file, tmp_path):
    """A flipped byte, and an object that was cut."""
    save(store, model, 1)
    save(store, model, 2)
    key = f"{store.location.removeprefix('s3://runs/')}/step2/{file}"
    data = bytearray(client.get_object(Bucket="runs", Key=key)["Body"].read())
    data[len(data) // 2] ^= 8
    client.put_object(Bucket="runs", Key=key, Body=bytes(data))
    with pytest.raises(OLMoCheckpointError, match=f"{store}/step2/{file} is damaged"):
        select_checkpoint(store.location)
    assert not list((tmp_path / "cache").glob("*/step2*"))
    client.put_object(Bucket="runs", Key=key, Body=bytes(data[:-5]))
    assert select_checkpoint(store.location).name == "step1"


@pytest.mark.slow
def test_deleting_stops_it_being_one_first(store, client, model, monkeypatch):
    """Killed after any number of deletions, what is left is no checkpoint."""
    save(store, model, 1)
    for left in range(4):
        save(store, model, 2)
        delete_file, calls = Store.delete_file, []

        def dies(self, name, calls=calls, delete_file=delete_file, left=left):
            if len(calls) > left:
                raise KeyboardInterrupt
            calls.append(name)
            delete_file(self, name)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Store, "delete_file", dies)
            delete(store, "step2")
        assert select_in_store(store.location) == f"{store}/step1"
        clear_leftovers(store)
        assert store.folders() == ["step1"]


def test_published_layout_without_marker(store, tmp_path):
    """Written by other code: whole when all its parts are there."""
    weights = weights_of(fresh(model_config(), seed=3))
    folder = write_native("published", tmp_path / "step7", model_config(), weights)
    store.fs.put(str(folder), store.path("step7"), recursive=True)
    loaded = model_tensors(load_model(select_checkpoint(store.location)))
    assert all(torch.equal(loaded[n], t) for n, t in weights.items())
    store.fs.rm_file(store.path("step7/config.yaml"))
    with pytest.raises(OLMoCheckpointError, match="holds no whole checkpoint"):
        select_checkpoint(store.location)
