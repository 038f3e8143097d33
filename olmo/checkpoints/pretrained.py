"""Files of pretrained parts (`init_path`): a language model or a ViT without the rest."""

from pathlib import Path

from torch import Tensor

from olmo.checkpoints.files import read_torch_file
from olmo.checkpoints.fit import compare_shapes
from olmo.exceptions import OLMoCheckpointError
from olmo.weights import is_scorer


def read_pretrained_file(path: str | Path, wanted: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights of a pretrained language model or ViT, under the names that `wanted` gives with their shapes.

    Files may spell the language model with a leading `transformer.` and its embedding `wte.weight`. Embeddings of added
    tokens and the token scorer are nobody's pretrained weights and may be missing. A ViT's file may have more blocks than
    the model, which has none after the last one whose output is used.
    """
    if not Path(path).is_file():
        raise OLMoCheckpointError(f"there is no file of pretrained weights {path} (init_path); give a checkpoint to start from instead")
    state = read_torch_file(Path(path))
    if all(n.startswith("transformer.") for n in state) and not any(n.startswith("transformer.") for n in wanted):
        state = {n.removeprefix("transformer."): t for n, t in state.items()}
    if "wte.weight" in state and "wte.embedding" in wanted:
        state["wte.embedding"] = state.pop("wte.weight")
    if built := {_block(n) for n in wanted} - {None}:
        state = {n: t for n, t in state.items() if _block(n) is None or _block(n) in built}
    may_lack = {n for n in wanted if n.endswith("wte.new_embedding") or is_scorer(n)}
    compare_shapes(f"the file {path}", {n: tuple(t.shape) for n, t in state.items()}, wanted, may_lack)
    return {n: state[n] for n in wanted if n in state}


def _block(name: str) -> str | None:
    """The number of the ViT block that a weight belongs to."""
    return name.split(".")[2] if name.startswith("transformer.resblocks.") else None
