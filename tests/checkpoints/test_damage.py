"""Files that are cut off, changed, of another model, or not what they say: one sentence each, and nothing runs."""

import json
import pickle
import re

import pytest
import torch

from olmo.checkpoints import load_model, match_weights, select_checkpoint
from olmo.checkpoints.fit import fold
from olmo.checkpoints.torch_archive import MappedFiles
from olmo.exceptions import OLMoCheckpointError, OLMoError
from olmo.launch import run_command
from tests.checkpoints.formats import NATIVE, fresh, weights_of, write_config, write_native, write_safetensors
from tests.train.tiny_run import model_config

CONFIG = model_config()
BIG = "transformer.wte.embedding"


@pytest.fixture(scope="module")
def weights():
    return weights_of(fresh(CONFIG))


class Payload:
    """Unpickled without care, it creates a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


def refused(action) -> str:
    """The message of the error that `action` must end with, as a command would print it."""
    with pytest.raises(OLMoCheckpointError) as caught:
        action()
    return " ".join(str(caught.value).split())


# ---------------------------------------------------------------------------------------------- pickles


def test_the_payload_does_run_where_nothing_stops_it(tmp_path):
    """Otherwise the tests below would show nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran"))).close()
    assert (tmp_path / "ran").exists()


def test_model_pt_that_would_run_code(tmp_path, weights):
    folder = write_native("unsharded", tmp_path / "c", CONFIG, weights)
    torch.save(weights | {"x": Payload(tmp_path / "ran")}, folder / "model.pt")
    message = refused(lambda: load_model(select_checkpoint(folder)))
    assert "model.pt cannot be read as a file of weights: it holds more than tensors, and reading that could run code" in message
    assert "weights_only" not in message and not (tmp_path / "ran").exists()


def test_metadata_that_would_run_code(tmp_path, weights):
    folder = write_native("published", tmp_path / "c", CONFIG, weights)
    (folder / "model_and_optim/.metadata").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    assert re.search(
        r"\.metadata cannot be read as checkpoint metadata: it refers to \w+\.open", refused(lambda: select_checkpoint(folder))
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["load", "jit.load", "hub.load", "serialization.load"])
def test_metadata_may_not_reach_for_torch_functions(tmp_path, weights, name):
    """A class path of torch is no licence: only the listed names are."""
    folder = write_native("published", tmp_path / "c", CONFIG, weights)
    module, _, attribute = f"torch.{name}".rpartition(".")
    (folder / "model_and_optim/.metadata").write_bytes(f"c{module}\n{attribute}\n.".encode())
    assert "has no place there" in refused(lambda: select_checkpoint(folder))


def test_a_shard_that_would_run_code(tmp_path, weights):
    """The archives inside a shard are pickles too. Found in the middle of a file, so its length stays the same."""
    folder = write_native("published", tmp_path / "c", CONFIG, weights)
    file = folder / "model_and_optim/__0_0.distcp"
    data = file.read_bytes()
    evil = b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    start = data.index(b"ctorch._utils\n_rebuild_tensor_v2")
    file.write_bytes(data[:start] + evil + data[start + len(evil) :])
    refused(lambda: load_model(select_checkpoint(folder)))
    assert not (tmp_path / "ran").exists()


def test_metadata_that_names_a_file_elsewhere(tmp_path, weights):
    folder = write_native("published", tmp_path / "c", CONFIG, weights)
    file = folder / "model_and_optim/.metadata"
    file.write_bytes(file.read_bytes().replace(b"__0_0.distcp", b"../../passwd"))
    assert "names a file outside its folder: ../../passwd" in refused(lambda: select_checkpoint(folder))


# ---------------------------------------------------------------------------------------------- bytes


def test_truncated_safetensors(tmp_path, weights):
    folder = write_native("safetensors", tmp_path, CONFIG, weights)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    for cut, said in ((len(data) - 10, "the last 10 bytes of model.safetensors is missing"), (100, "is missing"), (4, "is missing")):
        file.write_bytes(data[:cut])
        assert said in refused(lambda: load_model(select_checkpoint(folder))), cut


@pytest.mark.slow
def test_flipped_bits_in_the_header_of_safetensors(tmp_path, weights):
    """Every byte of the length, and a few of names, shapes and offsets: an error, or a spelling that means the same."""
    folder = write_native("safetensors", tmp_path, CONFIG, weights)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    errors = 0
    for position in [*range(9), *range(9, header, 733)]:
        for bit in (0, 5):
            data[position] ^= 1 << bit
            file.write_bytes(data)
            errors += is_refused_or_right(folder, weights)
            data[position] ^= 1 << bit
    assert errors > 25


def is_refused_or_right(folder, weights) -> bool:
    """Whether loading ended with one sentence; if it went through, the weights must be the right ones."""
    try:
        loaded = dict(load_model(select_checkpoint(folder)).named_parameters())
    except OLMoError as err:
        assert len(str(err).splitlines()) == 1
        return True
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    return False


def test_flipped_bits_among_the_numbers_of_our_safetensors(tmp_path, weights):
    """Our files carry check sums. Seen to fail: without them in the metadata the flipped file loads."""
    write_config(tmp_path, CONFIG)
    write_safetensors(tmp_path, weights, checksums=True)
    load_model(tmp_path)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1001] ^= 16
    file.write_bytes(data)
    assert re.search(r" of .* is damaged: its bytes do not have the check sum", refused(lambda: load_model(tmp_path)))


@pytest.mark.parametrize("index", [b"{", b"[]", b"{}", b'{"weight_map": {"a": "../b"}}', b"\xff\xfe"])
def test_an_index_that_is_none(tmp_path, weights, index):
    folder = write_native("indexed", tmp_path, CONFIG, weights)
    (folder / "model.safetensors.index.json").write_bytes(index)
    assert "model.safetensors.index.json" in refused(lambda: load_model(select_checkpoint(folder)))


def test_an_index_of_other_files(tmp_path, weights):
    folder = write_native("indexed", tmp_path, CONFIG, weights)
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["transformer.nowhere"] = "model-00001-of-00003.safetensors"
    file.write_text(json.dumps(index))
    assert "lists 1 tensors that its files do not hold (transformer.nowhere)" in refused(lambda: load_model(select_checkpoint(folder)))


def test_truncated_model_pt(tmp_path, weights):
    folder = write_native("unsharded", tmp_path, CONFIG, weights)
    data = (folder / "model.pt").read_bytes()
    for size in (0, 1000, len(data) // 2, len(data) - 1):
        (folder / "model.pt").write_bytes(data[:size])
        assert "model.pt cannot be read as a file of weights" in refused(lambda: load_model(select_checkpoint(folder)))


def test_a_damaged_shard(tmp_path, weights):
    folder = write_native("published", tmp_path, CONFIG, weights)
    file = folder / "model_and_optim/__1_0.distcp"
    file.write_bytes(b"\0" * file.stat().st_size)
    assert "cannot be read" in refused(lambda: load_model(select_checkpoint(folder)))


@pytest.mark.slow
def test_flipped_bits_in_metadata_never_escape_as_another_error(tmp_path, weights):
    folder = write_native("published", tmp_path, CONFIG, weights)
    file = folder / "model_and_optim/.metadata"
    data = bytearray(file.read_bytes())
    errors = 0
    for position in range(0, len(data), 991):
        data[position] ^= 4
        file.write_bytes(data)
        errors += is_refused_or_right(folder, weights)
        data[position] ^= 4
    assert errors > 10


# ---------------------------------------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("kind", "gone", "said"),
    [
        ("published", "model_and_optim/.metadata", r"model_and_optim/\.metadata"),
        ("published", "model_and_optim/__1_0.distcp", r"model_and_optim/__1_0\.distcp"),
        ("published", "config.yaml", r"config\.yaml"),
        ("unsharded", "config.yaml", r"config\.yaml"),
        ("safetensors", "config.yaml", r"config\.yaml \(or config\.json of a Hugging Face folder\)"),
        ("indexed", "model.safetensors.index.json", r"model\.safetensors\.index\.json"),
        ("indexed", "model-00002-of-00003.safetensors", r"model-00002-of-00003\.safetensors"),
    ],
)
def test_a_checkpoint_that_is_not_whole(tmp_path, weights, kind, gone, said):
    """Named, it is an error; in a run's folder the newest whole one is taken."""
    write_native("unsharded", tmp_path / "step3", CONFIG, weights)
    folder = write_native(kind, tmp_path / "step12", CONFIG, weights)
    assert select_checkpoint(tmp_path) == folder
    (folder / gone).unlink()
    assert re.search(f"is not whole: {said} is missing", refused(lambda: select_checkpoint(folder)))
    assert select_checkpoint(tmp_path) == tmp_path / "step3"


@pytest.mark.parametrize("kind", NATIVE)
def test_a_folder_that_was_being_written(tmp_path, weights, kind):
    folder = write_native(kind, tmp_path / "step12-tmp", CONFIG, weights)
    assert "was still being written" in refused(lambda: select_checkpoint(folder))
    assert "holds no checkpoint" in refused(lambda: select_checkpoint(tmp_path))


# ---------------------------------------------------------------------------------------------- another model


@pytest.mark.parametrize("kind", NATIVE)
def test_missing_extra_and_misshapen_keys_are_listed_together(tmp_path, weights, kind):
    changed = dict(weights)
    del changed["transformer.ln_f.weight"], changed["transformer.blocks.1.q_norm.weight"]
    changed["transformer.rotary.inv_freq"] = torch.zeros(3)
    changed[BIG] = torch.zeros(7, weights[BIG].shape[1])
    folder = write_native(kind, tmp_path, CONFIG, changed)
    message = refused(lambda: match_weights(folder, CONFIG.build_model("meta")))
    assert "2 missing (transformer.blocks.1.q_norm.weight, transformer.ln_f.weight)" in message
    assert "1 unknown (transformer.rotary.inv_freq)" in message
    assert f"1 of another shape ({BIG} is (7, {weights[BIG].shape[1]}), not {tuple(weights[BIG].shape)})" in message
    assert f"its vocabulary has 7 entries and the model's {len(weights[BIG])}: the two are for different tokenizers" in message


def test_all_names_are_listed_in_few_words():
    names = [f"transformer.blocks.{i}.{k}.weight" for i in (0, 1, 2, 5) for k in ("q_norm", "k_norm")] + ["transformer.ln_f.weight"]
    assert fold(names) == "transformer.blocks.{0-2,5}.q_norm.weight, transformer.blocks.{0-2,5}.k_norm.weight, transformer.ln_f.weight"
    assert fold(["a.7.b"]) == "a.7.b" and fold(["a.7"]) == "a.7"


def test_quantised_weights_are_refused(tmp_path, weights):
    folder = write_native("safetensors", tmp_path, CONFIG, weights | {BIG: weights[BIG].to(torch.int8)})
    assert f"holds quantised weights, which cannot be read: {BIG} (torch.int8)" in refused(lambda: load_model(folder))


def test_another_family(tmp_path, weights):
    folder = write_native("unsharded", tmp_path, CONFIG, weights, model_name="molmo")
    with pytest.raises(OLMoError, match="model_name 'molmo' is unknown; known models"):
        load_model(folder)


def test_a_command_says_it_in_one_line(tmp_path, weights, capsys):
    folder = write_native("safetensors", tmp_path, CONFIG, {n: t for n, t in weights.items() if "ln_f" not in n})
    assert run_command(lambda argv: load_model(folder) and None, []) == 1
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------------------------------------- mapping


def test_archives_inside_files_are_mapped(tmp_path):
    """Every dtype, any stride, at any byte; other layouts are left to torch."""
    values = [torch.randn(5, 7), torch.randn(3).bfloat16(), torch.tensor(2.0), torch.zeros(0, 4), torch.arange(6).reshape(2, 3).t()]
    places = []
    with open(tmp_path / "f", "wb") as file:
        file.write(b"odd")
        for value in values:
            start = file.tell()
            torch.save(value, file)
            places.append((start, file.tell() - start))
        start = file.tell()
        torch.save({"a": torch.zeros(2)}, file)
        places.append((start, file.tell() - start))
    files = MappedFiles(tmp_path)
    for value, place in zip(values, places, strict=False):
        found = files.tensor("f", *place)
        assert found.dtype == value.dtype and torch.equal(found, value)
    assert files.tensor("f", *places[-1]) is None and files.tensor("f", 0, 3) is None


def test_shards_are_mapped_instead_of_read(tmp_path, weights, monkeypatch):
    """Seen to fail with torch's own reader, which reads every whole tensor into memory with `torch.load` first."""
    folder = write_native("published", tmp_path, CONFIG, weights)

    def load(*args, **kwargs):
        raise AssertionError("a shard was read, not mapped")

    monkeypatch.setattr(torch, "load", load)
    loaded = dict(load_model(folder).named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
