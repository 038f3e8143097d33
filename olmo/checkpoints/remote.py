"""Checkpoints in an object store: which one is meant, and a copy of it on this machine's disk.

Everything that reads a checkpoint maps its files, so it is fetched as a whole. What the marker lists is checked on the way.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from olmo.checkpoints.finding import NATIVE_CONFIG, TORCH_FILE, step_of, what_is_missing
from olmo.checkpoints.marker import COMPLETE, UNFINISHED, damaged, missing_file, parse_marker
from olmo.checkpoints.sharded import METADATA, SHARDED
from olmo.checkpoints.stores import Store
from olmo.exceptions import OLMoCheckpointError, OLMoError, first_line

log = logging.getLogger(__name__)

CACHE_VARIABLE = "OLMO_CHECKPOINT_CACHE"
BLOCK = 8 << 20


def cache_folder() -> Path:
    """Where fetched checkpoints lie."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "olmo" / "checkpoints")


def missing_in_store(store: Store, name: str) -> str | None:
    """Why the folder `name` of a store is not a whole checkpoint, None when it is (as far as names and lengths tell)."""
    sizes = store.files(name)
    if COMPLETE in sizes:
        try:
            record = parse_marker(store.read(f"{name}/{COMPLETE}"), store.url(f"{name}/{COMPLETE}"))
        except OLMoCheckpointError:
            return f"a readable {COMPLETE}"
        return missing_file(record["files"], sizes)
    if UNFINISHED in sizes:
        return COMPLETE
    # The published layout has no marker; its config is written last.
    if NATIVE_CONFIG not in sizes:
        return NATIVE_CONFIG
    sharded = any(file.startswith(f"{SHARDED}/") for file in sizes)
    if sharded:
        return METADATA if METADATA not in sizes else None
    return None if TORCH_FILE in sizes or any(file.endswith(".safetensors") for file in sizes) else METADATA


def whole_steps(store: Store) -> Iterator[str]:
    """Names of the whole `step<N>` folders of a store, the newest first; says which are passed over."""
    names = [n for n in store.folders() if step_of(n) is not None]
    for name in sorted(names, key=lambda n: (step_of(n), not n.endswith("-unsharded")), reverse=True):
        missing = missing_in_store(store, name)
        if missing is None:
            yield name
        else:
            log.warning("skipping %s: it is not whole (%s is missing)", store.url(name), missing)


def select_in_store(url: str) -> str:
    """The URL of the checkpoint that `url` stands for: itself, or the newest whole `step<N>` folder inside it."""
    store = Store(url)
    try:
        found = store.files("")
        if NATIVE_CONFIG in found and (any(f.startswith(f"{SHARDED}/") for f in found) or TORCH_FILE in found or COMPLETE in found):
            missing = missing_in_store(Store(url.rstrip("/").rpartition("/")[0]), url.rstrip("/").rpartition("/")[2])
            if missing is not None:
                raise OLMoCheckpointError(f"the checkpoint {url} is not whole: {missing} is missing")
            return url.rstrip("/")
        newest = next(whole_steps(store), None)
    except OLMoError:
        raise
    except Exception as err:  # every store's library has errors of its own
        raise OLMoCheckpointError(f"{url} cannot be read: {type(err).__name__}: {first_line(err)}") from err
    if newest is None:
        raise OLMoCheckpointError(f"{url} holds no whole checkpoint")
    return store.url(newest)


def cached(url: str) -> Path:
    """Where the copy of a checkpoint is or will be; its last part is the name of the step."""
    parent, _, name = url.rstrip("/").rpartition("/")
    return cache_folder() / hashlib.sha256(parent.encode()).hexdigest()[:16] / name


def fetch(url: str) -> Path:
    """Copy the checkpoint at `url` here and return its folder; a copy of the same files is taken as it is."""
    parent, _, name = url.rstrip("/").rpartition("/")
    store, target = Store(parent), cached(url)
    try:
        marker = store.read(f"{name}/{COMPLETE}") if store.exists(f"{name}/{COMPLETE}") else None
        if marker is not None and (target / COMPLETE).is_file() and (target / COMPLETE).read_bytes() == marker:
            if what_is_missing(target) is None:
                return target
        entries = parse_marker(marker, store.url(f"{name}/{COMPLETE}"))["files"] if marker is not None else {}
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix="-tmp", dir=target.parent))
        try:
            _copy(store, name, draft, entries)
            missing = what_is_missing(draft)
            if missing is not None:
                raise OLMoCheckpointError(f"the checkpoint {url} is not whole: {missing} is missing")
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OLMoError:
        raise
    except Exception as err:
        raise OLMoCheckpointError(f"{url} cannot be fetched to {target.parent}: {type(err).__name__}: {first_line(err)}") from err
    return target


def _copy(store: Store, name: str, draft: Path, entries: Mapping[str, Any]) -> None:
    sizes = store.files(name)
    log.info("fetching %s (%d files, %.1f MB)", store.url(name), len(sizes), sum(sizes.values()) / 1e6)
    for file in sorted(sizes):
        path = draft / file
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with store.fs.open(store.path(f"{name}/{file}"), "rb") as stream, open(path, "wb") as copy:
            while block := stream.read(BLOCK):
                copy.write(block)
                digest.update(block)
        if file in entries and digest.hexdigest() != entries[file]["sha256"]:
            raise damaged(store.url(f"{name}/{file}"))
