"""Hugging Face folders of other families -> files that `init_path` loads: the same outputs, or one sentence why not.

Seen to fail with: up and gate exchanged, OLMo3's norms named as Qwen3's, patches left channel-first, the class token not
flattened, positions of another grid not interpolated, an rms epsilon not read from the config, yarn on every layer.
"""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo.checkpoints import load_model
from olmo.convert import hub, output, pretrained
from olmo.convert.pretrained import PretrainedWeights, prepare
from olmo.exceptions import OLMoCheckpointError, OLMoEnvironmentError
from olmo.launch import run_command
from olmo.nn.attention_mask import dense_mask, token_attributes
from olmo.nn.llm import Transformer
from scripts.prepare_pretrained_model import main
from tests.convert.hub_folders import LAYERS, PATCH, SIDE, VOCAB, language_model, save, tower_of, vision_model
from tests.oracles import HIDDEN, LOGITS, check_close
from tests.oracles.test_transformers_towers import to_patches
from tests.train.command import train

VISION = ["SiglipVisionModel", "SiglipModel", "Siglip2VisionModel", "CLIPVisionModel", "CLIPModel", "Dinov2Model"]


def converted(folder, tmp_path, name: str | None = None):
    """(file's tensors, config) of a folder."""
    made = prepare(str(folder), data_dir=tmp_path) if name is None else prepare(name, source=str(folder), data_dir=tmp_path)
    return torch.load(made.file, weights_only=True), made.config


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
@pytest.mark.parametrize("layout", ["one file", "parts", "pickled"])
def test_language_models(family, layout, tmp_path):
    """Logits of our decoder with the file and the config of the folder, against theirs; from every layout of files."""
    theirs = language_model(family)
    save(theirs, tmp_path / "hf", max_shard_size="20KB" if layout == "parts" else "5GB")
    if layout == "pickled":
        torch.save(load_file(tmp_path / "hf/model.safetensors"), tmp_path / "hf/pytorch_model.bin")
        (tmp_path / "hf/model.safetensors").unlink()
    state, config = converted(tmp_path / "hf", tmp_path)
    assert all(t.dtype == torch.float32 and n.startswith("transformer.") for n, t in state.items())
    ours = Transformer(config).eval()
    state = {n.removeprefix("transformer."): t for n, t in state.items()} | {"wte.new_embedding": ours.wte.new_embedding.detach()}
    ours.load_state_dict(state)
    ids = torch.randint(0, VOCAB, (2, 40))
    tokens = token_attributes(ids, None)
    with torch.no_grad():
        last = ours(ours.embed(ids), torch.arange(40).expand_as(ids), dense_mask(tokens, tokens, None))
        logits, expected = ours.logits(last.flatten(0, 1)), theirs(input_ids=ids).logits.flatten(0, 1)
    check_close(logits, expected, LOGITS, f"converted {family}")


@pytest.mark.parametrize("family", VISION)
def test_vision_towers(family, tmp_path):
    """Every block of our tower with the file and the config of the folder, against theirs."""
    theirs = vision_model(family)
    state, config = converted(save(theirs, tmp_path / "hf"), tmp_path)
    ours = config.build().eval()
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    patches, inputs = to_patches(pixels, PATCH), {"pixel_values": pixels}
    if family == "Siglip2VisionModel":
        grids = torch.tensor([[SIDE // PATCH] * 2] * 2)
        inputs = dict(pixel_values=patches, pixel_attention_mask=torch.ones(patches.shape[:2]).long(), spatial_shapes=grids)
    with torch.no_grad():
        expected = tower_of(theirs)(**inputs, output_hidden_states=True).hidden_states[1:]
        hidden = ours(patches)
    for i, reference in enumerate(expected):
        check_close(hidden[i], reference, HIDDEN, f"converted {family} block {i}")


def test_older_names_of_a_tower(tmp_path):
    """Folders of the hub have `vision_model.` in front and ids of positions beside the weights."""
    save(vision_model("CLIPVisionModel"), tmp_path / "hf")
    expected, _ = converted(tmp_path / "hf", tmp_path / "new")
    file = tmp_path / "hf/model.safetensors"
    state = {f"vision_model.{n}": t for n, t in load_file(file).items()}
    save_file(state | {"vision_model.embeddings.position_ids": torch.arange(37)[None]}, file, metadata={"format": "pt"})
    found, _ = converted(tmp_path / "hf", tmp_path / "old")
    assert found.keys() == expected.keys() and all(torch.equal(found[n], t) for n, t in expected.items())


@pytest.fixture
def names(monkeypatch, tmp_path):
    """Named parts of the size of the tiny folders, in the place of the large ones."""
    llm = PretrainedWeights(Path(save(language_model("qwen3"), tmp_path / "qwen3"))).config
    clip = PretrainedWeights(Path(save(vision_model("CLIPVisionModel"), tmp_path / "clip"))).config
    dino = PretrainedWeights(Path(save(vision_model("Dinov2Model"), tmp_path / "dino"))).config
    llm.init_path, clip.init_path, dino.init_path = "data/pretrained_llms/a.pt", "data/pretrained_image_encoders/b.pt", "x/y/c.pt"
    named = {"qwen3_4b": llm, "openai": clip, "dinov2_large_336": dino}
    monkeypatch.setattr(pretrained, "named_config", named.__getitem__)
    return named


def test_a_named_model_goes_where_its_config_looks(names, tmp_path):
    """`--data_dir` and the last two parts of `init_path`."""
    prepare("qwen3_4b", source=str(tmp_path / "qwen3"), data_dir=tmp_path / "data")
    assert (tmp_path / "data/pretrained_llms/a.pt").is_file()


def test_the_last_block_of_a_published_clip_is_left_out(names, tmp_path):
    """The config says 23 where the folder has 24; two too many are an error."""
    names["openai"].image_num_layers = LAYERS - 1
    state, _ = converted(tmp_path / "clip", tmp_path, "openai")
    assert f"transformer.resblocks.{LAYERS - 2}.attention.wq.weight" in state
    assert not any(f"resblocks.{LAYERS - 1}." in n for n in state)
    names["openai"].image_num_layers = LAYERS - 2
    with pytest.raises(OLMoCheckpointError, match=f"is not the model openai: it has image_num_layers {LAYERS}, not {LAYERS - 2}"):
        converted(tmp_path / "clip", tmp_path / "again", "openai")


def cubic(place: float) -> float:
    """The numbers 0 .. 5 between their places, by the usual cubic kernel (a = -0.75)."""
    result = 0.0
    for i in range(math.floor(place) - 1, math.floor(place) + 3):
        d = abs(place - i)
        weight = 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
        result += weight * min(max(i, 0), 5)
    return result


def test_positions_of_another_grid_are_interpolated(names, tmp_path):
    """DINOv2 was trained with larger pictures: 6 x 6 positions become 4 x 4, the class token's stays. A smooth table stays itself."""
    named = names["dinov2_large_336"]
    named.image_default_input_size, named.image_num_pos = [4 * PATCH] * 2, 17
    file = tmp_path / "dino/model.safetensors"
    state = load_file(file)
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    table = torch.stack([rows, columns, rows + columns, torch.ones(6, 6)], -1).flatten(0, 1).repeat(1, 8)
    state["embeddings.position_embeddings"] = torch.cat([torch.full((1, 32), 7.0), table])[None]
    save_file(state, file, metadata={"format": "pt"})
    found = converted(tmp_path / "dino", tmp_path, "dinov2_large_336")[0]["positional_embedding"]
    assert found.shape == (17, 32) and (found[0] == 7).all()
    inner = found[1:].reshape(4, 4, 32)[1:3, 1:3]
    # A tenth of a cell is added to the size, as DINOv2 does.
    expected = torch.tensor([cubic((i + 0.5) * 6 / 4.1 - 0.5) for i in (1, 2)])
    torch.testing.assert_close(inner[:, 0, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(inner[0, :, 1], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(inner[..., 2], inner[..., 0] + inner[..., 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(inner[..., 3], torch.ones(2, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(embedding_size=1000), "the vocabulary of .* has 1024 entries, but the embedding of qwen3_4b has 1000 rows"),
        (dict(rope_theta=5e6), r"other rotary frequencies in 2 blocks \(base 10000, not 5e\+06\)"),
        (dict(layer_norm_eps=1e-5), "norm_eps 1e-06, not 1e-05"),
        (dict(n_layers=3, weight_tying=False), "n_layers 2, not 3; weight_tying True, not False"),
    ],
)
def test_another_model_than_named_is_refused(change, said, names, tmp_path):
    """Shapes would fit in the second and third case."""
    for key, value in change.items():
        setattr(names["qwen3_4b"], key, value)
    with pytest.raises(OLMoCheckpointError, match=said):
        converted(tmp_path / "qwen3", tmp_path, "qwen3_4b")


def edit_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def put(folder, name, *shape):
    edit_weights(folder, lambda state: state.update({name: torch.zeros(*shape)}))


def truncate(folder):
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)


DAMAGES = [
    ("no config.json", lambda f: (f / "config.json").unlink()),
    ("cannot be read as the config of a known model", lambda f: edit_config(f, model_type="unheard_of")),
    ("holds a model of type 'gpt2'; types that can be converted: qwen3", lambda f: edit_config(f, model_type="gpt2")),
    ("has hidden_act = gelu in its config.json; only silu", lambda f: edit_config(f, hidden_act="gelu")),
    ("its vocabulary has 1024 rows, but its config says 1000", lambda f: edit_config(f, vocab_size=1000)),
    (r"1 missing \(model.norm.weight\)", lambda f: edit_weights(f, lambda s: s.pop("model.norm.weight"))),
    (r"1 without a place in our model \(more\)", lambda f: put(f, "more", 1)),
    (
        r"of another shape \(transformer.ln_f.weight is \(31,\), not \(32,\)\)",
        lambda f: put(f, "model.norm.weight", 31),
    ),
    ("its two tables differ", lambda f: put(f, "lm_head.weight", VOCAB, 32)),
    ("is damaged, or no safetensors file", truncate),
    ("holds no weights", lambda f: (f / "model.safetensors").unlink()),
]


@pytest.mark.parametrize(("said", "damage"), DAMAGES, ids=[said[:30] for said, _ in DAMAGES])
def test_a_folder_that_cannot_be_converted(said, damage, tmp_path):
    """One sentence, and no file."""
    folder = tmp_path / "hf"
    save(language_model("qwen3"), folder)
    damage(folder)
    with pytest.raises(OLMoCheckpointError, match=said):
        prepare(str(folder), data_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_embedding(tmp_path, repo):
    save(language_model("qwen3", vocab_size=500), tmp_path / "hf")
    shutil.copy(repo / "configs/tiny_tokenizer/tokenizer.json", tmp_path / "hf")
    with pytest.raises(OLMoCheckpointError, match=r"the tokenizer of .* has 1000 entries, more than the 500 rows"):
        prepare(str(tmp_path / "hf"), data_dir=tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    """A harmless payload: it would leave a file behind."""

    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "was-here"),))

    save(language_model("qwen3"), tmp_path / "hf")
    (tmp_path / "hf/model.safetensors").unlink()
    torch.save({"model.norm.weight": Payload()}, tmp_path / "hf/pytorch_model.bin")
    with pytest.raises(OLMoCheckpointError, match=r"pytorch_model\.bin cannot be read as a file of weights"):
        prepare(str(tmp_path / "hf"), data_dir=tmp_path)
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3_4b", "'Qwen/Qwen3-4B' is neither a folder nor whole in the Hugging Face cache of this machine, and HF_HUB_OFFLINE forbids"),
        ("owner/model", "'owner/model' is neither a folder nor whole in the Hugging Face cache"),
        ("./nowhere", "there is no folder ./nowhere"),
        ("qwen4", "there is no folder qwen4, and a name on the Hugging Face hub has the form owner/model"),
    ],
)
def test_offline(name, said, tmp_path, monkeypatch, capsys):
    """One clear sentence through the command, and no attempt to reach anything."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run_command(main, [name, f"--data_dir={tmp_path}", f"--cache_dir={tmp_path}"]) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_online(tmp_path, monkeypatch):
    """A hub id is asked for in the cache, then downloaded; pickled weights only where there are no safetensors."""
    import huggingface_hub

    save(vision_model("CLIPVisionModel"), tmp_path / "hf")
    torch.save(load_file(tmp_path / "hf/model.safetensors"), tmp_path / "pytorch_model.bin")
    calls, snapshot = [], tmp_path / "snapshot"

    def download(name, *, allow_patterns, local_files_only, cache_dir):
        calls.append(("cache" if local_files_only else "download", allow_patterns[-1]))
        if local_files_only:
            raise FileNotFoundError("nothing here")
        snapshot.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "hf/config.json", snapshot)
        if "pytorch_model*.bin" in allow_patterns:
            shutil.copy(tmp_path / "pytorch_model.bin", snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "_require_hub", lambda source: None)
    made = prepare("openai/clip", data_dir=tmp_path)
    assert made.file == tmp_path / "pretrained_image_encoders/clip.pt"
    assert calls == [("cache", "*.safetensors"), ("download", "*.safetensors"), ("download", "pytorch_model*.bin")]


def test_full_disk(tmp_path, monkeypatch):
    """Refused before it begins where the room is known to be too small; removed again where it runs out on the way."""
    folder = save(language_model("qwen3"), tmp_path / "hf")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(output.shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(OLMoEnvironmentError, match=r"needs .* kB, but its disk has only 1.0 kB left"):
            prepare(folder, data_dir=tmp_path)

    def no_room(path):
        assert path.stat().st_size > 10_000
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, "sync", no_room)
    with pytest.raises(OLMoEnvironmentError, match=r"cannot write .*hf\.pt: No space left on device; nothing is left of it"):
        prepare(folder, data_dir=tmp_path)
    assert list((tmp_path / "pretrained_llms").iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    folder = save(language_model("qwen3"), tmp_path / "hf")
    prepare(folder, data_dir=tmp_path)
    with pytest.raises(OLMoEnvironmentError, match="exists already"):
        prepare(folder, data_dir=tmp_path)


@pytest.mark.usefixtures("shapes")
def test_a_run_starts_from_prepared_parts(tmp_path, capsys):
    """The commands a user types: prepare both parts, train a step that changes nothing, and find them in the checkpoint.

    The ViT's file has a block more than is built, because no layer after `vit_layers` is.
    """
    files = {}
    for kind, model in (("llm", language_model("qwen3")), ("vit", vision_model("SiglipModel", num_hidden_layers=LAYERS + 1))):
        save(model, tmp_path / kind)
        files[kind] = tmp_path / f"{kind}.pt"
        assert run_command(main, [str(tmp_path / kind), f"--out={files[kind]}"]) == 0
    told = capsys.readouterr().out
    assert "--model.llm.init_path=" in told and "image_model_type: siglip" in told
    rates = [f"--optimizer.{part}_learning_rate=0.0" for part in ("llm", "vit", "connector", "temporal_token_scorer")]
    paths = [f"--model.llm.init_path={files['llm']}", f"--model.vision_backbone.vit.init_path={files['vit']}"]
    deeper = [f"--model.vision_backbone.vit.image_num_layers={LAYERS + 1}", "--model.vision_backbone.vit_layers=[-2,-3]"]
    assert train(tmp_path / "run", *paths, *rates, *deeper, "--max_duration=1") == 0
    weights = dict(load_model(tmp_path / "run/step1").named_parameters())
    for kind, prefix in (("llm", ""), ("vit", "vision_backbone.image_vit.")):
        state = torch.load(files[kind], weights_only=True)
        assert all(torch.equal(weights[prefix + n], t) for n, t in state.items() if f"resblocks.{LAYERS}." not in n)
    wrong = f"--model.llm.init_path={files['vit']}"
    assert train(tmp_path / "other", wrong, "--max_duration=1") == 1
    assert "is of another model" in capsys.readouterr().err
