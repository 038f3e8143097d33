"""Which folder is meant, which format it has, and whether all of it is there.

Nothing of the weights is read for that: `.metadata`, an index or the header of a file say how long the files must be.
"""

import logging
import re
from pathlib import Path

from olmo.checkpoints.marker import COMPLETE, UNFINISHED, missing_file, read_marker, sizes_on_disk
from olmo.checkpoints.sharded import METADATA, SHARDED, stored_ends
from olmo.checkpoints.stores import is_url
from olmo.exceptions import OLMoCheckpointError
from olmo.safetensors_files import INDEX, has_safetensors, missing_part

log = logging.getLogger(__name__)

TORCH_FILE = "model.pt"
NATIVE_CONFIG, HF_CONFIG = "config.yaml", "config.json"
_STEP = re.compile(r"step(\d+)(-unsharded)?")


def step_of(folder: str | Path) -> int | None:
    """The N of a folder called `step<N>` or `step<N>-unsharded`, else None (`step<N>-tmp` is no checkpoint)."""
    match = _STEP.fullmatch(Path(folder).name)
    return int(match.group(1)) if match else None


def format_of(folder: Path) -> str | None:
    """`unsharded`, `sharded`, `safetensors` or `huggingface`; None if the folder itself holds no weights."""
    if (folder / TORCH_FILE).is_file():
        return "unsharded"
    if (folder / SHARDED).is_dir():
        return "sharded"
    if has_safetensors(folder) or next(folder.glob("model-*-of-*.safetensors"), None):
        native = (folder / NATIVE_CONFIG).is_file() or not (folder / HF_CONFIG).is_file()
        return "safetensors" if native else "huggingface"
    return None


def holds_only_weights(folder: Path) -> bool:
    """Only sharded checkpoints have an optimiser and a trainer's state beside the weights."""
    return format_of(folder) != "sharded"


def what_is_missing(folder: Path) -> str | None:
    """Why this folder is not a whole checkpoint, or None when it is.

    With a marker all its files must be there; without one the folder is of the published layout, unless it says that it was
    being written.
    """
    if (folder / UNFINISHED).is_file() and not (folder / COMPLETE).is_file():
        return COMPLETE
    return _missing_of_layout(folder) or _missing_of_marker(folder)


def _missing_of_layout(folder: Path) -> str | None:
    kind = format_of(folder)
    if kind != "huggingface" and not (folder / NATIVE_CONFIG).is_file():
        return NATIVE_CONFIG if kind != "safetensors" else f"{NATIVE_CONFIG} (or {HF_CONFIG} of a Hugging Face folder)"
    if kind == "sharded":
        return _missing_shard(folder)
    if kind in ("safetensors", "huggingface"):
        return missing_part(folder) if has_safetensors(folder) else INDEX
    return None


def _missing_of_marker(folder: Path) -> str | None:
    try:
        record = read_marker(folder)
    except OLMoCheckpointError:
        return f"a readable {COMPLETE}"
    return missing_file(record["files"], sizes_on_disk(folder, record["files"])) if record is not None else None


def _missing_shard(folder: Path) -> str | None:
    if not (folder / METADATA).is_file():
        return METADATA
    for name, end in sorted(stored_ends(folder).items()):
        file = folder / SHARDED / name
        if not file.is_file():
            return f"{SHARDED}/{name}"
        if file.stat().st_size < end:
            return f"the last {end - file.stat().st_size} bytes of {SHARDED}/{name}"
    return None


def select_checkpoint(path: str | Path, *, prefer_unsharded: bool = False) -> Path:
    """The checkpoint that `path` stands for: itself, or the newest whole `step<N>` folder inside it.

    Commands call this once, for what the user named, and pass on what it returns. The checkpoint of a URL (`s3://...`) is fetched.
    """
    if is_url(path):
        from olmo.checkpoints.remote import fetch, select_in_store

        return fetch(select_in_store(str(path)))
    path = Path(path)
    if not path.is_dir():
        raise OLMoCheckpointError(f"there is no checkpoint folder {path}")
    if format_of(path) is not None:
        if path.name.endswith("-tmp"):
            raise OLMoCheckpointError(f"the checkpoint {path} was still being written: it has not been given its final name")
        missing = what_is_missing(path)
        if missing is not None:
            raise OLMoCheckpointError(f"the checkpoint {path} is not whole: {missing} is missing")
        return path
    steps = [p for p in path.iterdir() if p.is_dir() and step_of(p) is not None]
    steps.sort(key=lambda p: (step_of(p), (format_of(p) != "sharded") == prefer_unsharded), reverse=True)
    broken = []
    for folder in steps:
        missing = what_is_missing(folder)
        if missing is None:
            for other, reason in broken:
                log.warning("skipping %s: it is not whole (%s is missing)", other, reason)
            return folder
        broken.append((folder, missing))
    if broken:
        raise OLMoCheckpointError(f"no checkpoint in {path} is whole: {broken[0][0].name} lacks {broken[0][1]}")
    raise no_checkpoint(path)


def no_checkpoint(folder: Path) -> OLMoCheckpointError:
    """The error for a folder in which nothing looks like weights."""
    return OLMoCheckpointError(
        f"{folder} holds no checkpoint: neither {SHARDED}/, nor {TORCH_FILE}, nor model.safetensors, nor step<N> folders"
    )
