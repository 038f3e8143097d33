"""The batch of a step whose loss or gradient was no finite number, kept in `<save_folder>/bad_batches`.

Every rank writes `step<N>-rank<R>.json`: what was not finite, and the ids of its examples. A rank whose own loss was not finite also
writes `step<N>-rank<R>.pt`: all that is needed to run that batch again. Where no rank's own loss says who did it (a gradient that
overflowed), every rank writes one.
"""

import dataclasses
import io
import json
import logging
import math
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from olmo.batch import Batch, ExampleLayout, MultimodalType, RowLayout, VisualSegment
from olmo.distributed import World, gather_objects
from olmo.exceptions import OLMoCheckpointError, first_line
from olmo.train.config import TrainConfig

log = logging.getLogger(__name__)

FOLDER = "bad_batches"
TERMS = ("ce", "z", "correct", "aux")
"""What a micro-batch's forward pass sums up."""
FORMAT = 1


@dataclass(frozen=True)
class BadStep:
    """Such a step, as one rank saw it."""

    step: int
    not_finite: tuple[str, ...]
    """Metrics that were not finite over all ranks, such as `train/CrossEntropyLoss` or `optim/vit_grad_norm`."""
    batch: Batch
    """This rank's rows, on the host."""
    random: dict[str, Any]
    """Random state of this rank before the step."""
    weight: float
    """Loss weight of the whole batch of all ranks."""
    terms: list[list[float]]
    """`TERMS` of every micro-batch of this rank."""

    @property
    def bad_parts(self) -> list[int]:
        """Micro-batches of this rank, from 0, whose own terms were not finite."""
        return [i for i, values in enumerate(self.terms) if not all(map(math.isfinite, values))]


def example_ids(metadata: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Ids of the examples packed into every row."""
    return [[str(e.get("example_id", "no id")) for e in row.get("examples", (row,))] for row in metadata]


def short_list(ids: Sequence[str], most: int = 8) -> str:
    """A list for a sentence."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def dump(bad: BadStep, cfg: TrainConfig, world: World) -> str:
    """Write what this rank knows; returns a sentence, equal on every rank, about who it was. All ranks must call it.

    What cannot be written is a warning: it must not stand in for the error that it is about.
    """
    ids = example_ids(bad.batch.metadata)
    size = cfg.device_train_microbatch_size
    suspects = [i for part in bad.bad_parts for row in ids[part * size : (part + 1) * size] for i in row]
    ranks = gather_objects(suspects)
    guilty = [rank for rank, found in enumerate(ranks) if found]
    stem = Path(cfg.save_folder) / FOLDER / f"step{bad.step}-rank{world.rank}"
    _write(stem.with_suffix(".json"), lambda: json.dumps(_summary(bad, world, ids, size), indent=1).encode())
    if world.rank in guilty or not guilty:
        _write(stem.with_suffix(".pt"), lambda: _packed(bad, cfg, world, ids))
    where = f"in {stem.parent}, for scripts/replay_batch.py"
    if not guilty:
        return f"the loss of every rank is finite, so each rank's batch is {where}"
    who = "; ".join(f"rank {rank}, examples {short_list(ranks[rank])}" for rank in guilty[:4])
    return f"it came from {who}; the batch is {where}"


def _write(path: Path, content: Any) -> None:
    """Put `content()` there, whole or not at all."""
    beside = path.with_name(f"{path.name}-tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content())
        os.replace(beside, path)
    except Exception as err:  # whatever it is, the step's own trouble is the news
        log.warning("%s cannot be written: %s: %s", path, type(err).__name__, first_line(err))
        try:
            beside.unlink(missing_ok=True)
        except OSError:
            log.warning("%s is left", beside)


def _summary(bad: BadStep, world: World, ids: list[list[str]], size: int) -> dict[str, Any]:
    """What a human wants to know; JSON has no infinite numbers, so these are words."""
    parts = []
    for number, values in enumerate(bad.terms):
        terms = {name: v if math.isfinite(v) else str(v) for name, v in zip(TERMS, values, strict=True)}
        parts.append({"finite": number not in bad.bad_parts, **terms, "rows": ids[number * size : (number + 1) * size]})
    return {
        "step": bad.step,
        "rank": world.rank,
        "world_size": world.size,
        "not_finite": list(bad.not_finite),
        "loss_weight": bad.weight if math.isfinite(bad.weight) else str(bad.weight),
        "micro_batches": parts,
    }


def _packed(bad: BadStep, cfg: TrainConfig, world: World, ids: list[list[str]]) -> bytes:
    content = {
        "format": FORMAT,
        "step": bad.step,
        "rank": world.rank,
        "world_size": world.size,
        "not_finite": list(bad.not_finite),
        "weight": bad.weight,
        "terms": bad.terms,
        "random": bad.random,
        "ids": ids,
        "layout": [_plain(row) for row in bad.batch.layout],
        # views (of a larger batch, say) would be saved with all that they are views of
        "tensors": {n: t.clone() for n in Batch.TENSORS if (t := getattr(bad.batch, n)) is not None},
        "config": cfg.to_yaml(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _plain(row: RowLayout) -> dict[str, Any]:
    """A row's layout in types that load without unpickling code."""
    plain = dataclasses.asdict(row)
    for segment in plain["segments"]:
        segment["kind"] = int(segment["kind"])
    return plain


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class DumpedBatch:
    """A `.pt` file, read back."""

    step: int
    rank: int
    world_size: int
    not_finite: list[str]
    weight: float
    terms: list[list[float]]
    random: dict[str, Any]
    ids: list[list[str]]
    batch: Batch
    config: dict[str, Any]
    """The run's config, as its YAML file says it."""


def read_dump(path: str | Path) -> DumpedBatch:
    """Read `step<N>-rank<R>.pt`."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OLMoCheckpointError(f"there is no dumped batch {path}; they lie in {FOLDER}/ of a run's save_folder") from None
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as err:
        raise OLMoCheckpointError(f"{path} cannot be read as a dumped batch: {first_line(err)[:120]}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise OLMoCheckpointError(f"{path} is no batch that a training run dumped (these are called step<N>-rank<R>.pt)")
    metadata = [{"examples": [{"example_id": i} for i in row]} for row in found["ids"]]
    batch = Batch(**found["tensors"], layout=tuple(map(_layout, found["layout"])), metadata=metadata)
    same = ("step", "rank", "world_size", "not_finite", "weight", "terms", "random", "ids")
    return DumpedBatch(**{key: found[key] for key in same}, batch=batch, config=yaml.safe_load(found["config"]))


def _layout(row: dict[str, Any]) -> RowLayout:
    segments = tuple(VisualSegment(**{**s, "kind": MultimodalType(s["kind"]), "fast": tuple(s["fast"])}) for s in row["segments"])
    return RowLayout(**{**row, "segments": segments, "examples": tuple(ExampleLayout(**e) for e in row["examples"])})
