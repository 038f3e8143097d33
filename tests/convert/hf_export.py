"""What the export tests share: writing a model's folder, and asking it in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from olmo.convert.export import write_huggingface
from olmo.models.model import ModelBase
from olmo.weights import WeightSource
from tests.oracles.molmo2 import EXAMPLES


class ModelWeights(WeightSource):
    """The weights of a model in memory."""

    format = "memory"

    def __init__(self, model: ModelBase, dtype: torch.dtype | None = None):
        self.folder = Path("memory")
        self.tensors = {name: p.detach().to(dtype or p.dtype) for name, p in model.named_parameters()}
        self.shapes = {name: tuple(t.shape) for name, t in self.tensors.items()}
        self.dtypes = {name: t.dtype for name, t in self.tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        return self.tensors[name]


def export(model: ModelBase, out: Path, dtype: torch.dtype | None = None, **options) -> Path:
    write_huggingface(ModelWeights(model, dtype), {"model": yaml.safe_load(model.config.to_yaml())}, out, **options)
    return out


def request(example: dict) -> dict:
    """One of EXAMPLES as a chat message with its pictures."""
    content, pictures = [], {}
    if "image" in example:
        images = example["image"] if isinstance(example["image"], list) else [example["image"]]
        content, pictures = [{"type": "image"}] * len(images), {"images": images}
    if "video" in example:
        content, pictures = [{"type": "video"}], {"videos": [example["video"].frames]}
    return {"content": [*content, {"type": "text", "text": example["question"]}]} | pictures


def ask_in_fresh_process(folder: Path, names: tuple[str, ...], *options: str) -> dict:
    """What transformers alone makes of EXAMPLES."""
    requests, out = folder.parent / "requests.pt", folder.parent / "answers.pt"
    torch.save({name: request(EXAMPLES[name]) for name in names}, requests)
    program = [sys.executable, str(Path(__file__).with_name("exported.py")), str(folder), str(requests), str(out), *options]
    place = folder.parent
    environment = os.environ | {"HF_HOME": str(place / "hf_home"), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=False)
