"""Every command of docs/checkpoints.md, executed in its order in a folder that has what they name, and their table."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from olmo.checkpoints import load_model, select_checkpoint
from olmo.config_files import find_config
from olmo.convert import pretrained
from olmo.convert.command import FORMATS
from olmo.convert.command import main as checkpoint
from olmo.convert.pretrained import SOURCES, PretrainedWeights
from olmo.launch import run_command
from olmo.train.config import TrainConfig
from scripts.measure_saving import main as measure_saving
from scripts.prepare_pretrained_model import main as prepare
from tests.checkpoints.formats import fresh, weights_of, write_native
from tests.convert.hub_folders import language_model, save, vision_model
from tests.data.clips import write_clip
from tests.test_docs import REPO, commands, program_words

DOCUMENT = REPO / "docs/checkpoints.md"
PROGRAMS = {
    "scripts/checkpoint.py": checkpoint,
    "scripts/prepare_pretrained_model.py": prepare,
    "scripts/measure_saving.py": measure_saving,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two runs of the demo's model, a run of three steps, folders of Qwen3, and a hub with a SigLIP2."""
    for name, steps, seed in (("demo/stts", 1, 0), ("demo/unpruned", 1, 1), ("mine", 3, 2)):
        config = TrainConfig.load(find_config("tiny"), [f"model.vision_backbone.vit.prune={name != 'demo/unpruned'}"]).model
        for step in range(steps):
            write_native("published", tmp_path / f"runs/{name}/step{100 + step}", config, weights_of(fresh(config, seed + step)))
    save(language_model("qwen3"), tmp_path / "my-qwen3")
    save(vision_model("SiglipModel"), tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    named = {"siglip2": "hub", "qwen3_4b_instruct": "my-qwen3"}
    configs = {}
    for name, folder in named.items():
        configs[name] = PretrainedWeights(Path(folder)).config
        configs[name].init_path = str(pretrained.named_config(name).init_path)
    monkeypatch.setattr(pretrained, "named_config", configs.__getitem__)
    monkeypatch.setitem(SOURCES, "siglip2", "hub")
    return tmp_path


@pytest.mark.slow
def test_commands(place, capsys):
    """All succeed, but for the comparison of two different runs; what they write loads. Saving is measured on the tiny model."""
    for command in commands(DOCUMENT):
        program, words = program_words(command.replace("/path/to/Qwen3-4B-Instruct-2507", "my-qwen3").replace("=1e8", "=0"))
        status = run_command(PROGRAMS[program], words)
        out = capsys.readouterr()
        assert status == ("diff runs/demo/unpruned runs/demo/stts" in command), f"{command}\n{out.out}\n{out.err}"
        if words[:1] == ["diff"]:
            assert re.search(r"^\d+ of \d+ tensors are equal$", out.out, re.M)
    for folder in ("stts-unsharded", "stts-safetensors", "unpruned-hf", "unpruned-again", "mine-average"):
        load_model(select_checkpoint(place / folder))
    for file in ("data/pretrained_image_encoders/siglip2-so400m-14-384.pt", "data/pretrained_llms/qwen3-4b-instruct.pt", "my-qwen3.pt"):
        assert len(torch.load(place / file, weights_only=True)) > 10


@pytest.mark.slow
def test_the_python_of_the_document(tmp_path):
    """As it stands, in a process of its own; only the decoder of videos is another one of transformers'."""
    config = TrainConfig.load(find_config("tiny")).model
    model = write_native("published", tmp_path / "stts/step1", config, weights_of(fresh(config)))
    assert run_command(checkpoint, ["convert", str(model), str(tmp_path / "stts-hf"), "--to", "huggingface"]) == 0
    write_clip(tmp_path / "clip.mp4", frames=40)
    (program,) = commands(DOCUMENT, "python")
    setting = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport exported\nexported.allow_torchvision()\n"
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf_home"), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    asked = [sys.executable, "-c", setting + "exported.decode_with_pyav()\n" + program + "\nassert 'olmo' not in sys.modules"]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_table_names_every_format():
    """A row for all that `convert` writes, each with its command."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    assert all(sum(f"convert --to {kind}`" in row for row in rows) == 1 for kind in FORMATS)
