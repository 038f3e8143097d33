"""Writing a checkpoint so that it is whole or not there, on a disk or in an object store.

On a disk it is written beside its place (`step<N>-tmp`) and renamed. In an object store it is written in its place, and its
marker, written last, makes it one. All ranks call these functions; what one of them cannot write is an error of all.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import FileSystemBase

from olmo.checkpoints.marker import COMPLETE, UNFINISHED, marker_text
from olmo.checkpoints.remote import missing_in_store
from olmo.checkpoints.sharded import SHARDED
from olmo.checkpoints.stores import HashingStream, Store
from olmo.distributed import World, gather_objects, initialized, on_all_ranks, on_main
from olmo.exceptions import OLMoError
from olmo.train.saving.checkpoint import cannot_write
from olmo.train.saving.snapshot import Snapshot

TMP, OLD = "-tmp", "-old-tmp"


class _Files(FileSystemBase):
    """The file system of torch's writer: a store, with a record of every file for the marker."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entries: dict[str, dict[str, Any]] = {}

    @contextmanager
    def create_stream(self, path: str, mode: str) -> Iterator[HashingStream]:
        with self.store.writing(str(path)) as stream:
            yield stream
        self.entries[str(path)] = stream.entry()

    def concat_path(self, path: str, suffix: str) -> str:
        return f"{path}/{suffix}"

    def init_path(self, path: str) -> str:
        return str(path)

    def rename(self, path: str, new_path: str) -> None:
        self.store.rename(str(path), str(new_path))
        self.entries[str(new_path)] = self.entries.pop(str(path))

    def mkdir(self, path: str) -> None:
        self.store.make_folder(str(path))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def exists(self, path: str) -> bool:
        return self.store.exists(str(path))

    def rm_file(self, path: str) -> None:
        self.store.delete_file(str(path))


class _Writer(dcp.FileSystemWriter):
    """torch's writer on a store (which syncs the files itself)."""

    def __init__(self, store: Store, folder: str) -> None:
        super().__init__(folder, sync_files=False, per_thread_copy_ahead=0)
        self.fs = _Files(store)
        self.path = folder


@contextmanager
def draft(store: Store, name: str, world: World, group: dist.ProcessGroup | None = None) -> Iterator[str]:
    """The folder to write `name` into. What is left of it after an error is deleted by rank 0, as far as that can be done."""
    folder = f"{name}{TMP}" if store.renames else name

    def prepare() -> None:
        delete(store, folder)
        store.make_folder(folder)
        store.write(f"{folder}/{UNFINISHED}", b"{}\n")

    try:
        on_main(prepare, cannot_write(store), group)
        yield folder
    except OLMoError:
        if world.is_main:
            with suppress(Exception):  # a full or vanished disk; the next start clears it
                delete(store, folder)
        raise


def commit(store: Store, name: str, folder: str, entries: Mapping[str, Mapping[str, Any]], *, ephemeral: bool = False) -> None:
    """Make the written folder a checkpoint: its marker, then its name (rank 0 only). `entries`: all files below `folder`."""
    store.write(f"{folder}/{COMPLETE}", marker_text(entries, ephemeral=ephemeral))
    if not store.renames:
        with suppress(Exception):  # it is complete already; the marker outweighs what is left
            store.delete_file(f"{folder}/{UNFINISHED}")
        return
    store.delete_file(f"{folder}/{UNFINISHED}")
    for inside in sorted({"", *(n.rpartition("/")[0] for n in entries)}):
        store.sync_folder(f"{folder}/{inside}")
    if name in store.folders():
        store.delete(f"{name}{OLD}")
        store.rename(name, f"{name}{OLD}")
    store.rename(folder, name)
    store.sync_folder("")
    with suppress(OSError):
        store.delete(f"{name}{OLD}")


def write_checkpoint(store: Store, snap: Snapshot, world: World, group: dist.ProcessGroup | None = None, *, ephemeral: bool = False) -> str:
    """Write `step<N>` and return its location. `group`: for the ranks' agreement, when this is not the training thread."""
    name, translate = f"step{snap.step}", cannot_write(store)
    with draft(store, name, world, group) as folder:
        entries: dict[str, dict[str, Any]] = {}

        def write_state() -> None:
            store.make_folder(f"{folder}/train")
            entries[f"train/rank{world.rank}.pt"] = store.write(f"{folder}/train/rank{world.rank}.pt", snap.state)

        def write_tensors() -> None:
            writer = _Writer(store, f"{folder}/{SHARDED}")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*assuming the intent is to save in a single process.*")
                dcp.save(snap.tensors, storage_writer=writer, process_group=group, no_dist=not initialized())
            entries.update({path.removeprefix(f"{folder}/"): entry for path, entry in writer.fs.entries.items()})

        # One after the other: a rank that fails in the first must not leave the others waiting in the second.
        on_all_ranks(write_state, translate, group)
        on_all_ranks(write_tensors, translate, group)
        everything = {file: entry for part in gather_objects(entries, group) for file, entry in part.items()}

        def publish() -> None:
            everything["config.yaml"] = store.write(f"{folder}/config.yaml", snap.config)
            commit(store, name, folder, everything, ephemeral=ephemeral)

        on_main(publish, translate, group)
    return store.url(name)


# ---------------------------------------------------------------------------------------------- deleting


def delete(store: Store, name: str) -> None:
    """Delete a checkpoint; it stops being one before its first file goes (rank 0 only)."""
    if store.renames:
        doomed = name if name.endswith(TMP) else f"{name}{TMP}"
        if doomed != name:
            if name not in store.folders():
                return
            store.delete(doomed)
            store.rename(name, doomed)
        store.delete(doomed)
        return
    if store.files(name):
        store.write(f"{name}/{UNFINISHED}", b"{}\n")
        store.delete_file(f"{name}/{COMPLETE}")
        for file in store.files(name):
            if file != UNFINISHED:
                store.delete_file(f"{name}/{file}")
        store.delete_file(f"{name}/{UNFINISHED}")


def clear_leftovers(store: Store) -> None:
    """Delete what interrupted saves and deletions left, and put back what an interrupted exchange moved away (rank 0 only)."""
    names = store.folders()
    for name in names:
        if not name.startswith("step"):
            continue
        if name.endswith(OLD) and name.removesuffix(OLD) not in names:
            store.rename(name, name.removesuffix(OLD))
        elif store.renames and name.endswith(TMP):
            store.delete(name)
        elif not store.renames and store.exists(f"{name}/{UNFINISHED}"):
            if missing_in_store(store, name) is None:
                store.delete_file(f"{name}/{UNFINISHED}")
            else:
                delete(store, name)
