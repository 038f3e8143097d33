"""Training adapters, and a running average, through the command: base untouched, resume exact, both taken out as plain checkpoints."""

import json
from pathlib import Path

import pytest
import torch

from olmo.checkpoints import load_model, match_weights, model_tensors, open_weights, read_config, read_weights, select_checkpoint
from olmo.convert.command import main as checkpoint_command
from olmo.launch import run_command
from olmo.nn.lora import is_adapter
from olmo.train import build
from olmo.train.config import TrainConfig
from olmo.train.saving.folder import save_checkpoint
from tests.train.command import records, train, without_times
from tests.train.ranks import ALONE
from tests.train.tiny_run import make_batch, model_config

pytestmark = pytest.mark.usefixtures("shapes")

WORDS = (
    "--lora={targets: [llm, 'resblocks.*w[qkv]$'], rank: 4, alpha: 8, dropout: 0.1, train_whole: [connector]}",
    "--ema={decay: 0.7, warmup: false}",
    "--global_train_batch_size=2",
    "--device_batch_size=1",
    "--max_duration=3",
    "--optimizer.llm_learning_rate=3e-2",
    "--data.moving_shapes.num_train=8",
)


@pytest.fixture(scope="module")
def run(shapes_folder, tmp_path_factory):
    """Three steps, each of them saved."""
    folder = tmp_path_factory.mktemp("adapted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLMO_DATA_DIR", str(shapes_folder))
        assert train(folder, *WORDS, "--save_interval=1") == 0
    return folder


def stored(folder: Path, averaged: bool = False) -> dict[str, torch.Tensor]:
    source = open_weights(select_checkpoint(folder), merge=False, averaged=averaged)
    tensors = {name: torch.empty(shape) for name, shape in source.shapes.items()}
    source.load(tensors)
    return tensors


@pytest.mark.slow
def test_resume_is_exact(run, tmp_path):
    """Losses, weights, adapters and averages."""
    assert train(tmp_path, *WORDS, "--stop_after=2") == 0
    assert train(tmp_path, *WORDS, "--allow_resume") == 0
    assert [without_times(r) for r in records(run)] == [without_times(r) for r in records(tmp_path)]
    for averaged in (False, True):
        a, b = stored(run, averaged), stored(tmp_path, averaged)
        assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_the_base_is_frozen_and_the_adapters_are_not(run):
    first, last = stored(run / "step1"), stored(run / "step3")
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    adapters = {n for n in first if is_adapter(n)}
    assert len(adapters) == 2 * (2 * 4 + 6 * 3)
    # what is behind a B that is still zero learns from the second step on, and in the last blocks of the ViT next to nothing
    assert {n for n in adapters if n.endswith(".b") or n.startswith("transformer.")} <= moved
    groups = {n.split(".")[1] for n in moved - adapters}
    assert groups == {"image_pooling_2d", "image_projector", "wte", "image_vit"}
    assert all("temporal_token_scorer" in n for n in moved - adapters if "image_vit" in n)


def adapted_model(folder: Path):
    """The model as it trains, with its adapters."""
    cfg = TrainConfig.from_dict(read_config(folder))
    model = build.meta_model(cfg).to_empty(device="cpu")
    read_weights(match_weights(folder, model), model)
    return model.eval()


def weights_of(config):
    model = config.build_model("cpu")
    model.reset_parameters()
    return model


def logits(model) -> torch.Tensor:
    batch = make_batch(model.config, [3, 0, 2])
    with torch.no_grad():
        return model(batch, logits="all").logits


def test_merged_checkpoints_do_the_same(run, tmp_path):
    """Merged while it is loaded, and as a checkpoint of its own."""
    folder = select_checkpoint(run)
    expected = logits(adapted_model(folder))
    torch.testing.assert_close(logits(load_model(folder)), expected, rtol=1e-5, atol=1e-5)
    assert run_command(checkpoint_command, ["merge_lora", str(folder), str(tmp_path / "merged")]) == 0
    assert not any(is_adapter(name) for name in open_weights(tmp_path / "merged", merge=False).shapes)
    assert "lora" not in read_config(tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), expected, rtol=1e-5, atol=1e-5)
    plain = stored(run)
    plain["transformer.blocks.0.att_proj.lora.b"].zero_()
    assert (expected - logits(load_model_with(plain, folder))).abs().max() > 1e-3, "the adapters do nothing"


def load_model_with(weights: dict[str, torch.Tensor], folder: Path):
    model = adapted_model(folder)
    with torch.no_grad():
        for name, p in model_tensors(model).items():
            p.copy_(weights[name])
    return model


def test_the_average_is_that_of_all_steps(run, tmp_path):
    """By hand from the weights of every step, from the first one on."""
    steps = [stored(run / f"step{n}") for n in (1, 2, 3)]
    name = "transformer.blocks.1.ff_proj.lora.a"
    average = stored(run / "step1", averaged=True)[name]
    for step in steps[1:]:
        average = 0.7 * average + 0.3 * step[name]
    torch.testing.assert_close(stored(run, averaged=True)[name], average)
    assert not torch.equal(average, steps[-1][name])
    assert run_command(checkpoint_command, ["ema", str(run), str(tmp_path / "ema")]) == 0
    found = open_weights(tmp_path / "ema", merge=False)
    weight = found.read("transformer.blocks.1.ff_proj.weight")
    last = stored(run, averaged=True)
    base, a, b = (last[f"transformer.blocks.1.ff_proj.{part}"] for part in ("weight", "lora.a", "lora.b"))
    torch.testing.assert_close(weight, base + 2.0 * b @ a)


def test_a_checkpoint_without_them_says_so(tmp_path, capsys):
    config = model_config()
    save_checkpoint(TrainConfig(model=config, save_folder=str(tmp_path / "plain")), 1, weights_of(config), None, {}, ALONE)
    for command, message in (("merge_lora", "holds no low-rank adapters"), ("ema", "holds no running average")):
        assert run_command(checkpoint_command, [command, str(tmp_path / "plain"), str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_adapters_on_a_plain_checkpoint(run, tmp_path, capsys):
    """Trained on a merged checkpoint, and refused with another rank on an adapted one."""
    start = f"--initial_model_checkpoint={run}"
    assert train(tmp_path / "again", *WORDS, start, "--max_duration=1") == 0
    assert "low-rank adapters" not in capsys.readouterr().out
    other = '--lora={"targets": ["llm"], "rank": 8}'
    assert train(tmp_path / "other", other, start, "--max_duration=1") == 1
    assert "lora.a is (4, 32), not (8, 32)" in capsys.readouterr().err
    assert json.loads((tmp_path / "again" / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
