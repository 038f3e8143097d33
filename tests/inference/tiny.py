"""A checkpoint of the tiny model with random weights, and a few generated videos."""

from pathlib import Path

import torch

from olmo.config import read_yaml
from olmo.config_files import find_config
from olmo.models.model import build_model_config


def write_checkpoint(folder: Path, overrides: tuple[str, ...] = (), step: int = 3, data: dict | None = None) -> Path:
    """`folder/step<N>` with `config.yaml` and `model.pt`."""
    import yaml

    config = build_model_config(read_yaml(find_config("tiny"))["model"], overrides)
    torch.manual_seed(0)
    model = config.build_model(device="cpu")
    model.reset_parameters()
    target = folder / f"step{step}"
    target.mkdir(parents=True)
    torch.save({name: p.detach() for name, p in model.named_parameters()}, target / "model.pt")
    raw = {"model": yaml.safe_load(config.to_yaml())} | ({} if data is None else {"data": data})
    (target / "config.yaml").write_text(yaml.safe_dump(raw))
    return target


def videos(root: Path, number: int):
    """The test split of `moving_shapes` with `number` videos below `root`."""
    from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig

    return MovingShapes(MovingShapesConfig(root=str(root), num_train=1, num_test=number, processes=1), "test")
