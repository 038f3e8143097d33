"""`--dry_run`: what a run would be, without memory for weights: parameters, tokens before and after pruning, FLOPs."""

import logging
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from olmo.batch import Batch
from olmo.checkpoints import match_weights
from olmo.checkpoints.stores import is_url
from olmo.data.catalogue import writes_videos
from olmo.data.moving_shapes import is_generated
from olmo.distributed import World
from olmo.exceptions import OLMoDataError, OLMoDataFileError, OLMoMissingDataError
from olmo.models.model import ModelBase
from olmo.models.molmo2.preprocessor import build_llm_tokenizer
from olmo.nn.flops import FlopCount, flops_for_batch, format_flops
from olmo.nn.flops_training import step_flops
from olmo.preprocessing.example import dropped_cells
from olmo.train.build import meta_model
from olmo.train.config import TrainConfig
from olmo.train.data import build_loader, synthetic_batch
from olmo.train.rank_plan import plan_ranks, plan_table
from olmo.train.start import check_start, find_start

log = logging.getLogger(__name__)


def dry_run(cfg: TrainConfig, world: World, console: Console, fake_world: int | None = None) -> None:
    """Check the config, build the model on the meta device, take one batch and describe all three.

    `fake_world`: as if for so many ranks, whose plan is described too.
    """
    if fake_world is not None:
        world = replace(world, size=fake_world)
        console.print(plan_table(plan_ranks(cfg, fake_world)))
    else:
        cfg.validate(world.size)
    model = meta_model(cfg)
    compare_start(cfg, model)
    batch = take_batch(cfg, world)
    if world.is_main:
        console.print(parameter_table(model))
        console.print(token_table(cfg, batch))
        console.print(flop_table(cfg, batch))
        console.print("dry run: nothing was trained", markup=False)


def compare_start(cfg: TrainConfig, model: ModelBase) -> None:
    """Whether a run could start from the checkpoint that is named, where that lies here."""
    named = cfg.load_path or cfg.initial_model_checkpoint
    if named is None:
        return
    if is_url(named) or not Path(named).exists():
        log.info("the checkpoint %s is not here: whether it fits the model is not checked", named)
        return
    start = find_start(cfg)
    check_start(start)
    for line in match_weights(start.folder, model).describe():
        log.info(line)


def take_batch(cfg: TrainConfig, world: World) -> Batch:
    """One device batch of the real data where they lie here already, else a synthetic one of the configured shapes."""
    rows = min(cfg.device_train_microbatch_size, cfg.rows_per_rank(world.size))
    tokenizer = build_llm_tokenizer(cfg.model.llm, fallback_tiny=True)
    if tokenizer.fallback_for is not None:
        log.info("the tokenizer %s is not here: the tiny one is used, padded to the same size", tokenizer.fallback_for)
    missing = not_generated(cfg)
    if missing is None:
        try:
            here = cfg.with_overrides(["data.num_workers=0", "data.prefetch_factor=null"])
            return next(iter(build_loader(here, world, tokenizer=tokenizer, rows=rows)))
        except OLMoDataError as err:
            if isinstance(err, OLMoDataFileError) and not isinstance(err, OLMoMissingDataError):
                raise
            missing = str(err).splitlines()[0].partition(";")[0].removesuffix(":")
    log.info("a synthetic batch of the configured shapes stands in for the data: %s", missing)
    return synthetic_batch(cfg, tokenizer, rows)


def not_generated(cfg: TrainConfig) -> str | None:
    """A dry run generates nothing: which generated data set is not there yet, or None."""
    wanted = any(writes_videos(d.dataset_name) for group in cfg.data.groups() for d in group.datasets)
    there = not wanted or is_generated(cfg.data.moving_shapes, cfg.data.split)
    return None if there else "moving_shapes has not been generated yet"


def parameter_table(model: ModelBase) -> Table:
    table = Table("part", "parameters", "trained", "tensors", title=f"parameters of {model.config.model_name}")
    for column in table.columns[1:]:
        column.justify = "right"
    total = trained = tensors = 0
    for group, members in model.parameter_groups().items():
        if not members:
            continue
        count = sum(p.numel() for _, p in members)
        part = sum(p.numel() for _, p in members if p.requires_grad)
        table.add_row(group, f"{count:,}", f"{part:,}", str(len(members)))
        total, trained, tensors = total + count, trained + part, tensors + len(members)
    table.add_section()
    table.add_row("all", f"{total:,}", f"{trained:,}", str(tensors))
    return table


def token_table(cfg: TrainConfig, batch: Batch) -> Table:
    """Per row: frames, cells and tokens, before and after pruning (time stamps of frames left out are not counted before)."""
    topk, prune_from_frame = pruning(cfg)
    table = Table("row", "frames", "cells", "cells kept", "tokens", "tokens after", "with loss", title="one device batch")
    for column in table.columns:
        column.justify = "right"
    for i, row in enumerate(batch.layout):
        dropped = dropped_cells(row.segments, topk, prune_from_frame)
        counts = [n for total in (row.num_pooled, row.num_tokens) for n in (total + row.num_spared, total - dropped)]
        table.add_row(str(i), str(row.num_frames), *(f"{n:,}" for n in counts), str(row.num_loss_tokens))
    return table


def flop_table(cfg: TrainConfig, batch: Batch) -> Table:
    """Forward FLOPs of that batch as configured and without pruning, and what training makes of them."""
    pruned, plain = flops_for_batch(cfg.model, batch), flops_for_batch(cfg.model, batch, topk=0.0)
    table = Table("part", "as configured", "without pruning", title="FLOPs of one forward pass over that batch")
    for column in table.columns[1:]:
        column.justify = "right"
    for part in fields(FlopCount):
        a, b = getattr(pruned, part.name), getattr(plain, part.name)
        if a or b:
            table.add_row(part.name.replace("_", " "), format_flops(a), format_flops(b))
    table.add_section()
    table.add_row("all", format_flops(pruned.total), format_flops(plain.total))
    steps = [step_flops(count, cfg.model, cfg.trained, cfg.recompute) for count in (pruned, plain)]
    table.add_row("training step", *(format_flops(s.model) for s in steps))
    table.add_row("with recomputation", *(format_flops(s.hardware) for s in steps))
    table.caption = f"ideal speed-up {plain.total / pruned.total:.2f}x" if pruned.total < plain.total else None
    return table


def pruning(cfg: TrainConfig) -> tuple[float, int]:
    """Fraction of cells that the model removes, and frames left out of its budget."""
    vision = cfg.model.vision_backbone
    return (0.0, 0) if vision is None else cfg.model.mm_preprocessor.pruning(vision.vit)
