"""Files of `GOLDENS/model`: found by the kind in their metadata, one parameter per file and stored quantity."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.device import DEVICE
from tests.goldens import FOLDER, or_absent


@cache
def load(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Metadata and tensors of a file, on `DEVICE`."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["meta"]), {key: file.get_tensor(key).to(DEVICE) for key in file.keys()}


@cache
def header(path: Path) -> tuple[dict, tuple[str, ...]]:
    """Metadata and tensor names of a file, without its tensors."""
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("meta", "{}")), tuple(file.keys())


@cache
def all_files() -> tuple[Path, ...]:
    return tuple(sorted((FOLDER / "model").glob("*.safetensors")))


def files(kind: str) -> list:
    """One parameter per file of this kind."""
    found = [pytest.param(path, id=path.stem) for path in all_files() if header(path)[0].get("kind") == kind]
    return or_absent(found, f"model file of kind '{kind}'")


def quantities(kind: str, prefix: str, where: Callable[[dict, str], bool] = lambda meta, key: True) -> list:
    """One parameter (path, key) per stored tensor `prefix...` of the files of this kind for which `where(meta, key)` holds."""
    found = []
    for path in all_files():
        meta, keys = header(path)
        if meta.get("kind") == kind:
            found += [
                pytest.param(path, k, id=f"{path.stem}-{k.removeprefix('out.')}") for k in keys if k.startswith(prefix) and where(meta, k)
            ]
    return or_absent(found, f"'{prefix}' in a model file of kind '{kind}'")


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    return {key.removeprefix("param."): t for key, t in load(path)[1].items() if key.startswith("param.")}


def check_close(actual: torch.Tensor, path: Path, key: str, k: float) -> None:
    """max|error| <= k x max|reference|; the error is printed, so that `pytest -rP` lists them all."""
    expected = load(path)[1][key]
    assert actual.shape == expected.shape, f"{path.stem} {key}"
    check_error(path, key, (actual - expected).abs().max().item(), k * expected.abs().max().item())


def check_error(path: Path, key: str, error: float, limit: float) -> None:
    print(f"golden {path.stem} {key}: error {error:.2e}, limit {limit:.2e}, used {error / limit if limit else float(error > 0):.3f}")
    assert error <= limit, f"{path.stem} {key}: {error:.3g} > {limit:.3g}"
