"""Finding, checking and reading checkpoints: whole ones, damaged ones, those of other models, and published files."""

import pickle
import shutil

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo

from olmo.checkpoints import (
    initialise,
    load_config,
    load_model,
    match_weights,
    model_tensors,
    open_weights,
    read_metadata,
    read_pretrained_file,
    read_weights,
    select_checkpoint,
    step_of,
)
from olmo.exceptions import OLMoCheckpointError
from olmo.train.config import TrainConfig
from olmo.train.saving.folder import save_checkpoint, save_unsharded
from tests.train.ranks import ALONE
from tests.train.tiny_run import make_batch, model_config


def fresh(config, seed=0):
    torch.manual_seed(seed)
    model = config.build_model("cpu")
    model.reset_parameters()
    return model


def write(folder, config, model, steps=(3,), unsharded=False):
    cfg = TrainConfig(save_folder=str(folder), model=config)
    for step in steps:
        if unsharded:
            save_unsharded(cfg, step, model, ALONE)
        else:
            save_checkpoint(cfg, step, model, None, {"step": step}, ALONE)


@pytest.fixture(scope="module")
def stts(tmp_path_factory):
    """(folder, config, model) of a saved STTS run with steps 3 and 12."""
    folder, config = tmp_path_factory.mktemp("stts"), model_config()
    model = fresh(config)
    write(folder, config, model, steps=(3, 12))
    return folder, config, model


@pytest.fixture
def copied(stts, tmp_path):
    """The same, in a folder that the test may damage."""
    shutil.copytree(stts[0], tmp_path / "run")
    return tmp_path / "run"


def assert_same_weights(a, b):
    a, b = model_tensors(a), model_tensors(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize(
    ("name", "step"),
    [("step12", 12), ("step12-unsharded", 12), ("step12-tmp", None), ("steps", None), ("mystep3", None), ("step3.bak", None)],
)
def test_step_of(name, step):
    assert step_of(name) == step


def test_newest_step_is_chosen(stts):
    assert select_checkpoint(stts[0]).name == "step12"
    assert select_checkpoint(stts[0] / "step3").name == "step3"


def test_round_trip(stts):
    folder, config, model = stts
    loaded = load_model(folder / "step12")
    assert not loaded.training
    assert_same_weights(model, loaded)
    batch = make_batch(config, [4, 0])
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch, logits="all").logits, model(batch, logits="all").logits, rtol=0, atol=0)
    assert load_config(folder / "step12") == config


def test_overrides_and_dtype(stts):
    assert load_config(stts[0] / "step12", ["vision_backbone.vit.topk=0.25"]).vision_backbone.vit.topk == 0.25
    assert all(p.dtype == torch.bfloat16 for p in load_model(stts[0] / "step12", dtype=torch.bfloat16).parameters())


def test_layout_and_keys_are_the_published_ones(stts):
    folder = stts[0] / "step12"
    assert sorted(p.name for p in folder.iterdir()) == ["complete.json", "config.yaml", "model_and_optim", "train"]
    assert (folder / "train/rank0.pt").is_file()
    assert {"__0_0.distcp", ".metadata"} <= {p.name for p in (folder / "model_and_optim").iterdir()}
    assert set(read_metadata(folder).state_dict_metadata) == {f"model.{n}" for n in model_tensors(stts[2])}


def test_unsharded(stts, tmp_path):
    _, config, model = stts
    write(tmp_path, config, model, unsharded=True)
    folder = tmp_path / "step3-unsharded"
    assert sorted(p.name for p in folder.iterdir()) == ["complete.json", "config.yaml", "model.pt"]
    assert_same_weights(model, load_model(folder))


def test_sharded_wins_a_tie_unless_asked(stts, copied):
    write(copied, stts[1], stts[2], steps=(12,), unsharded=True)
    assert select_checkpoint(copied).name == "step12"
    assert select_checkpoint(copied, prefer_unsharded=True).name == "step12-unsharded"


@pytest.mark.parametrize("unsharded", [False, True])
def test_plain_molmo2_initialises_only_the_scorer(tmp_path, unsharded):
    plain_config = model_config("video_olmo")
    plain = fresh(plain_config)
    write(tmp_path, plain_config, plain, unsharded=unsharded)
    folder = select_checkpoint(tmp_path)
    model = model_config().build_model("meta")
    fit = match_weights(folder, model)
    assert fit.initialised and all("temporal_token_scorer" in n for n in fit.initialised)
    assert len(fit.describe()) == 1 and "has no temporal_token_scorer" in fit.describe()[0]
    model.to_empty(device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    initialise(model, fit.initialised)
    read_weights(fit, model)
    for name, p in model_tensors(model).items():
        assert p.isfinite().all(), name
        if name not in fit.initialised:
            assert torch.equal(p, model_tensors(plain)[name])


def test_scorer_is_left_out_for_a_model_without(stts):
    model = model_config("video_olmo").build_model("meta")
    fit = match_weights(stts[0] / "step12", model)
    assert not fit.initialised and len(fit.ignored) == len([n for n in model_tensors(stts[2]) if "temporal_token_scorer" in n])
    assert "does not use" in fit.describe()[0]


def test_other_model_is_refused_with_the_differences(stts):
    with pytest.raises(OLMoCheckpointError, match=r"is of another model; .* missing .*blocks\.2"):
        match_weights(stts[0] / "step12", model_config("temporal_video_olmo", "llm.n_layers=3").build_model("meta"))
    with pytest.raises(OLMoCheckpointError, match=r"unknown .*blocks\.1"):
        match_weights(stts[0] / "step12", model_config("temporal_video_olmo", "llm.n_layers=1").build_model("meta"))
    with pytest.raises(OLMoCheckpointError, match=r"of another shape .* is \(1024, 32\), not \(1024, 48\)"):
        match_weights(stts[0] / "step12", model_config("temporal_video_olmo", "llm.d_model=48").build_model("meta"))


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        (lambda f: (f / "config.yaml").unlink(), "config.yaml"),
        (lambda f: (f / "model_and_optim/.metadata").unlink(), r"model_and_optim/\.metadata"),
        (lambda f: (f / "model_and_optim/__0_0.distcp").unlink(), r"model_and_optim/__0_0\.distcp"),
        (lambda f: cut(f / "model_and_optim/__0_0.distcp"), r"the last \d+ bytes of model_and_optim/__0_0\.distcp"),
    ],
)
def test_partial_checkpoint_is_refused(copied, damage, missing):
    """Asked for by name it is an error; among others the newest whole one is taken."""
    damage(copied / "step12")
    with pytest.raises(OLMoCheckpointError, match=f"is not whole: {missing} is missing"):
        select_checkpoint(copied / "step12")
    assert select_checkpoint(copied).name == "step3"
    shutil.rmtree(copied / "step3")
    with pytest.raises(OLMoCheckpointError, match=f"no checkpoint in .* is whole: step12 lacks {missing}"):
        select_checkpoint(copied)


def cut(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def test_folder_in_flight_is_no_checkpoint(copied):
    (copied / "step12").rename(copied / "step12-tmp")
    assert select_checkpoint(copied).name == "step3"


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(OLMoCheckpointError, match="there is no checkpoint folder"):
        select_checkpoint(tmp_path / "nowhere")
    with pytest.raises(OLMoCheckpointError, match="holds no checkpoint"):
        select_checkpoint(tmp_path)


def test_damaged_files_are_named(copied, tmp_path):
    (copied / "step12/model_and_optim/.metadata").write_bytes(b"not a pickle")
    with pytest.raises(OLMoCheckpointError, match=r"\.metadata cannot be read as checkpoint metadata"):
        select_checkpoint(copied / "step12")
    (tmp_path / "model.pt").write_bytes(b"not a file of weights")
    with pytest.raises(OLMoCheckpointError, match=r"model\.pt cannot be read as a file of weights"):
        open_weights(tmp_path)
    (copied / "step3/config.yaml").write_text("run_name: x\n")
    with pytest.raises(OLMoCheckpointError, match="has no block 'model'"):
        load_config(copied / "step3")


class _PublishedStorageInfo:
    """Stand-in for the class that published `.metadata` files name; it has three fields only."""


_PublishedStorageInfo.__module__, _PublishedStorageInfo.__qualname__ = "olmo.train.remote_filesystem", "_StorageInfo"
_PublishedStorageInfo.__name__ = "_StorageInfo"


def test_published_metadata_is_read(stts, copied, monkeypatch):
    """The published code pickles its own storage class; it is mapped to torch's. Fails without the mapping."""
    import sys
    import types

    module = types.ModuleType("olmo.train.remote_filesystem")
    module._StorageInfo = _PublishedStorageInfo
    monkeypatch.setitem(sys.modules, module.__name__, module)
    metadata = read_metadata(copied / "step12")
    for index, info in list(metadata.storage_data.items()):
        other = _PublishedStorageInfo()
        other.__dict__.update(relative_path=info.relative_path, offset=info.offset, length=info.length)
        metadata.storage_data[index] = other
    data = pickle.dumps(metadata)
    assert b"olmo.train.remote_filesystem" in data
    (copied / "step12/model_and_optim/.metadata").write_bytes(data)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert all(isinstance(i, _StorageInfo) for i in read_metadata(copied / "step12").storage_data.values())
    assert_same_weights(stts[2], load_model(copied / "step12"))


def test_metadata_that_runs_code_is_refused(copied):
    class Evil:
        def __reduce__(self):
            return (print, ("this must never be printed",))

    (copied / "step12/model_and_optim/.metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(OLMoCheckpointError, match=r"refers to builtins\.print"):
        read_metadata(copied / "step12")


def test_pretrained_file_of_a_language_model(tmp_path):
    """Published spellings are understood, added embeddings may be missing, anything else is an error."""
    model = fresh(model_config())
    wanted = {n.removeprefix("transformer."): tuple(p.shape) for n, p in model_tensors(model).items() if n.startswith("transformer.")}
    state = {f"transformer.{n}": torch.randn(s) for n, s in wanted.items() if n != "wte.new_embedding"}
    state["transformer.wte.weight"] = state.pop("transformer.wte.embedding")
    torch.save(state, tmp_path / "llm.pt")
    values = read_pretrained_file(tmp_path / "llm.pt", wanted)
    assert values.keys() == wanted.keys() - {"wte.new_embedding"}
    assert torch.equal(values["wte.embedding"], state["transformer.wte.weight"])
    del state["transformer.ln_f.weight"]
    torch.save(state, tmp_path / "llm.pt")
    with pytest.raises(OLMoCheckpointError, match=r"1 missing \(ln_f\.weight\)"):
        read_pretrained_file(tmp_path / "llm.pt", wanted)
    with pytest.raises(OLMoCheckpointError, match="there is no file of pretrained weights"):
        read_pretrained_file(tmp_path / "none.pt", wanted)
