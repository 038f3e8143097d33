"""`scripts/checkpoint.py`: every format into every other and back, what is said about them, averages, and failures that leave nothing.

Seen to fail with: the check sums of safetensors left at zero, tensors of `model.pt` not aligned, the divisor of the average left
out, NaN counted as a difference, the temporary folder left behind, the optimiser counted as weights.
"""

import errno
import os
import resource
import weakref
import zipfile
from contextlib import contextmanager

import pytest
import torch
import yaml

from olmo.checkpoints import load_config, load_model, open_weights
from olmo.convert import output, writers
from olmo.convert.command import COMMANDS, main
from olmo.launch import run_command
from tests.checkpoints.formats import fresh, weights_of, write_native
from tests.train.tiny_run import model_config

NATIVE = ("sharded", "unsharded", "safetensors")


def command(*words) -> int:
    return run_command(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def config():
    return model_config()


@pytest.fixture
def published(config, tmp_path):
    """(folder, weights) as the published code writes it: tensors cut by two ranks, an optimiser beside them."""
    weights = weights_of(fresh(config))
    return write_native("published", tmp_path / "run/step7", config, weights), weights


def assert_weights(folder, weights, dtype=torch.float32):
    source = open_weights(folder)
    assert source.shapes.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(source.read(name), value.to(dtype)), name


@pytest.mark.parametrize("kind", NATIVE)
def test_there_and_back(kind, published, config, tmp_path, capsys):
    """Published -> this format -> sharded: the same weights bit for bit, and a config that loads."""
    folder, weights = published
    assert command("convert", folder, tmp_path / "a", "--to", kind) == 0
    assert f"a: {kind}, {len(weights)} tensors" in capsys.readouterr().out
    assert command("convert", tmp_path / "a", tmp_path / "b", "--to", "sharded") == 0
    for other in ("a", "b"):
        assert_weights(tmp_path / other, weights)
        assert load_config(tmp_path / other) == config
    loaded = dict(load_model(tmp_path / "b").named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert yaml.safe_load((tmp_path / "b/config.yaml").read_text())["run_name"] == "x"


@pytest.mark.parametrize("kind", NATIVE)
def test_hugging_face_and_back(kind, tmp_path, capsys):
    """A plain model: the same weights and settings, bit for bit."""
    config = model_config("video_olmo")
    weights = weights_of(fresh(config))
    folder = write_native("published", tmp_path / "step7", config, weights)
    assert command("convert", folder, tmp_path / "hf", "--to", "huggingface") == 0
    assert command("convert", tmp_path / "hf", tmp_path / "back", "--to", kind) == 0
    assert_weights(tmp_path / "back", weights)
    assert command("diff", folder, tmp_path / "back") == command("diff", folder, tmp_path / "hf") == 0


def test_what_is_written_is_read_by_others(published, tmp_path):
    """torch itself (mapped and not), safetensors itself and torch's converter of sharded folders; each without our readers."""
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder, weights = published
    for kind in NATIVE:
        assert command("convert", folder, tmp_path / kind, "--to", kind) == 0
    file = tmp_path / "unsharded/model.pt"
    found = [torch.load(file, weights_only=True, mmap=mapped) for mapped in (False, True)]
    assert all(t.data_ptr() % 64 == 0 for t in found[1].values())
    assert zipfile.ZipFile(file).testzip() is None
    found.append(load_file(tmp_path / "safetensors/model.safetensors"))
    dcp_to_torch_save(tmp_path / "sharded/model_and_optim", tmp_path / "all.pt")
    whole = torch.load(tmp_path / "all.pt", weights_only=True)
    found.append({name.removeprefix("model."): t for name, t in whole.items()})
    for state in found:
        assert state.keys() == weights.keys() and all(torch.equal(state[n], t) for n, t in weights.items())


@pytest.mark.parametrize(
    ("kind", "first"), [("safetensors", "model-00001-of-{:05d}.safetensors"), ("sharded", "model_and_optim/__0_0.distcp")]
)
def test_files_of_bounded_size(kind, first, published, tmp_path):
    """Several files, none far above the limit but for a tensor that is larger alone."""
    folder, weights = published
    assert command("convert", folder, tmp_path / "out", "--to", kind, "--max_file_gb", "0.00005") == 0
    files = [*(tmp_path / "out").rglob("*.safetensors"), *(tmp_path / "out").rglob("*.distcp")]
    assert len(files) > 3 and (tmp_path / "out" / first.format(len(files))).is_file()
    largest = max(t.nbytes for t in weights.values())
    assert all(file.stat().st_size < 50_000 + largest + 20_000 for file in files)
    assert_weights(tmp_path / "out", weights)


def test_a_flipped_bit_in_our_safetensors_is_found(published, tmp_path, capsys):
    """The format has no check sums of its own; ours are in its header."""
    assert command("convert", published[0], tmp_path / "out", "--to", "safetensors") == 0
    file = tmp_path / "out/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert command("convert", tmp_path / "out", tmp_path / "other", "--to", "unsharded") == 1
    err = capsys.readouterr().err
    assert "is damaged" in err and err.count("\n") == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", NATIVE)
def test_cast(kind, published, tmp_path):
    assert command("convert", published[0], tmp_path / "out", "--to", kind, "--dtype", "bfloat16") == 0
    assert_weights(tmp_path / "out", published[1], torch.bfloat16)


def test_unshard(published, capsys):
    """The newest step of a run, into the folder with the published name."""
    folder, weights = published
    assert command("unshard", folder.parent) == 0
    out = folder.with_name("step7-unsharded")
    assert sorted(p.name for p in out.iterdir()) == ["config.yaml", "model.pt"]
    assert_weights(out, weights)


# ---------------------------------------------------------------------------------------------- looking


@pytest.mark.parametrize("kind", ("published", "unsharded", "safetensors", "indexed"))
def test_inspect(kind, config, tmp_path, capsys, monkeypatch):
    """Sums by part agree with the model; nothing is read for them."""
    model = fresh(config)
    folder = write_native(kind, tmp_path / "step7", config, weights_of(model))
    monkeypatch.setattr(type(open_weights(folder)), "read", None)
    assert command("inspect", folder, "--tensors") == 0
    out = capsys.readouterr().out
    rows = {line[:18].strip(): line.split() for line in out.splitlines() if "float32" in line}
    scorer = [p.numel() for n, p in model.named_parameters() if "temporal_token_scorer" in n]
    assert rows["token scorer"][2:5] == [str(len(scorer)), f"{sum(scorer):,}", "float32"]
    total = sum(p.numel() for p in model.parameters())
    assert rows["all"][1:4] == [str(len(list(model.parameters()))), f"{total:,}", "float32"]
    assert rows.get("optimiser", ["", ""])[1] == (str(len(list(model.parameters()))) if kind == "published" else "")
    assert "transformer.wte.embedding" in out and "[1024, 32]" in out


def test_inspect_says_what_is_mixed(config, tmp_path, capsys):
    weights = weights_of(fresh(config))
    weights["transformer.ln_f.weight"] = weights["transformer.ln_f.weight"].bfloat16()
    assert command("inspect", write_native("unsharded", tmp_path / "step7", config, weights)) == 0
    assert "bfloat16 (1)" in capsys.readouterr().out


def test_diff_of_equal_ones(published, tmp_path, capsys):
    """Another format and another dtype of the file are no difference while the numbers are equal; NaN equals NaN."""
    folder, weights = published
    weights = {n: t.bfloat16().float() for n, t in weights.items()}
    weights["transformer.ln_f.weight"][0] = torch.nan
    config = load_config(folder)
    a = write_native("indexed", tmp_path / "a", config, weights)
    assert command("convert", a, tmp_path / "b", "--to", "unsharded", "--dtype", "bfloat16") == 0
    assert command("diff", a, tmp_path / "b") == 0
    out = capsys.readouterr().out
    assert f"{len(weights)} tensors are stored in another dtype" in out and f"{len(weights)} of {len(weights)} tensors are equal" in out


def test_diff(published, config, tmp_path, capsys):
    """The relatively largest first, then what is only in one of them, another shape, and other settings; exit status 1."""
    folder, weights = published
    other = {n: t.clone() for n, t in weights.items()}
    other["transformer.ln_f.weight"] += 0.5  # norms are ones: relatively 0.5
    other["transformer.wte.embedding"][3, 4] += 1e-3
    other["transformer.blocks.0.ff_norm.weight"][0] = torch.nan
    other["vision_backbone.image_vit.positional_embedding"] = torch.zeros(3, 32)
    other["vision_backbone.more"] = other.pop("transformer.wte.new_embedding")
    changed = model_config("temporal_video_olmo", "vision_backbone.vit.topk=0.25", "llm.init_path=elsewhere.pt")
    b = write_native("unsharded", tmp_path / "b", changed, other)
    assert command("diff", folder, b) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model.vision_backbone.vit.topk: 0.5 -> 0.25"
    assert lines[1:4] == [
        f"only in {folder}: transformer.wte.new_embedding",
        f"only in {b}: vision_backbone.more",
        "vision_backbone.image_vit.positional_embedding: shape [36, 32] -> [3, 32]",
    ]
    table = [line.split() for line in lines[5:8]]
    assert [row[0] for row in table] == ["transformer.blocks.0.ff_norm.weight", "transformer.ln_f.weight", "transformer.wte.embedding"]
    assert table[0][1] == "inf" and table[1][1:3] == ["0.5", "0.5"] and table[2][3:] == ["1", "of", "32,768"]
    assert lines[8] == f"{len(weights) - 5} of {len(weights) - 2} tensors are equal"
    assert command("diff", folder, b, "--rows", "1") == 1
    assert "... and 2 more" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- averages


def test_average(config, tmp_path, capsys):
    """Of the newest three of four steps, from different formats; bf16 is averaged in fp32."""
    weights = [weights_of(fresh(config, seed)) for seed in range(4)]
    for step, kind in enumerate(("unsharded", "unsharded", "published", "safetensors")):
        write_native(kind, tmp_path / f"run/step{step + 8}", config, weights[step])
    (tmp_path / "run/step12-tmp").mkdir()
    assert command("average", tmp_path / "run", "--last", 3, "--out", tmp_path / "mean") == 0
    source = open_weights(tmp_path / "mean")
    for name in weights[0]:
        expected = torch.stack([w[name].double() for w in weights[1:]]).mean(0)
        torch.testing.assert_close(source.read(name).double(), expected, atol=1e-7, rtol=1e-6)
    # In bf16 the ones would be lost beside 256.
    constant = [{n: torch.full_like(t, v).bfloat16() for n, t in weights[0].items()} for v in (256, 1, 1, 0, 64.5)]
    paths = [write_native("unsharded", tmp_path / str(i), config, w) for i, w in enumerate(constant[:4])]
    assert command("average", *paths, "--out", tmp_path / "small", "--to", "safetensors") == 0
    assert_weights(tmp_path / "small", constant[4], torch.bfloat16)


def test_averages_that_make_no_sense(config, tmp_path, capsys):
    plain = model_config("video_olmo")
    a = write_native("unsharded", tmp_path / "run/step1", config, weights_of(fresh(config)))
    b = write_native("unsharded", tmp_path / "b", plain, weights_of(fresh(plain)))
    for words, said in (
        ([a, b], "is of another model"),
        ([b, a], "is of another model"),
        ([a], "at least two checkpoints"),
        ([tmp_path / "run", "--last", "2"], "has 1 whole steps, fewer than the 2 asked for"),
        ([a, b, "--last", "2"], "name one folder"),
    ):
        assert command("average", *words, "--out", tmp_path / "out") == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------- failures


@contextmanager
def largest_file(room: int):
    """The operating system refuses to write beyond so many bytes of a file (Python ignores the signal that comes with it)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", NATIVE)
def test_no_room_on_the_way(kind, published, tmp_path, capsys):
    """A write that really fails in the middle: one sentence, nothing left."""
    with largest_file(20_000):
        assert command("convert", published[0], tmp_path / "out", "--to", kind) == 1
    err = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'out'}: {os.strerror(errno.EFBIG)}" in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("kind", NATIVE)
def test_a_disk_that_says_so_at_the_end(kind, published, tmp_path, monkeypatch, capsys):
    """Some file systems report a full disk only when a file is synchronised."""

    def no_room(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writers, "sync", no_room)
    assert command("convert", published[0], tmp_path / "out", "--to", kind) == 1
    err = capsys.readouterr().err
    assert "No space left on device; nothing is left of it" in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_too_little_room_is_seen_before_writing(published, tmp_path, monkeypatch, capsys):
    usage = output.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert command("unshard", published[0], tmp_path / "out") == 1
    assert "but its disk has only 1.0 kB left" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_interrupted(published, tmp_path, monkeypatch):
    """Ctrl-C in the middle of a tensor leaves nothing either."""
    source = type(open_weights(published[0]))
    calls = []

    def read(self, name):
        calls.append(name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, name)

    original = source.read
    monkeypatch.setattr(source, "read", read)
    assert command("unshard", published[0], tmp_path / "out") == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mend"], "unknown command 'mend'; known: inspect, unshard, convert, diff, merge_lora, ema, average"),
        (["inspect", "nowhere"], "there is no checkpoint folder nowhere"),
        (["convert", "a", "b"], "the following arguments are required: --to"),
        (["convert", "a", "b", "--to", "zip"], "invalid choice: 'zip'"),
    ],
)
def test_wrong_words(words, said, capsys):
    assert command(*words) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_what_exists_is_not_overwritten(published, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert command("unshard", published[0], tmp_path / "out") == 1
    assert "exists already" in capsys.readouterr().err


def test_help(capsys):
    assert command() == command("--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in COMMANDS)


def test_memory_of_one_tensor(published, tmp_path, monkeypatch):
    """No writer asks for a tensor while it still holds the memory of the one before."""
    source = type(open_weights(published[0]))
    original, before = source.read, []

    def read(self, name):
        assert all(memory() is None for memory in before), name
        array = original(self, name).numpy()
        before[:] = [weakref.ref(array)]
        return torch.from_numpy(array)

    monkeypatch.setattr(source, "read", read)
    for kind in NATIVE:
        assert command("convert", published[0], tmp_path / kind, "--to", kind) == 0
