"""The evaluation command: its words, and one checkpoint after another through the tasks asked for."""

import argparse
import difflib
import hashlib
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from olmo.eval.progress import ProgressLine
from olmo.eval.tasks import BATCH_PRESETS, GROUPS, TASKS, Task, parse_batch_size, resolve_tasks
from olmo.exceptions import OLMoCliError, OLMoDataError, OLMoEnvironmentError, first_line
from olmo.launch import CommandParser

log = logging.getLogger(__name__)

OVERRIDES = ("model.", "data.moving_shapes.")
"""What overrides may begin with."""

EPILOG = """\
Every other word sets a key of the checkpoint's model (--model.vision_backbone.vit.topk=0.3) or of the data
(--data.moving_shapes.num_test=100). Results of a `step<N>` folder lie beside it, those of any other checkpoint inside it.
"""


def build_parser(prog: str | None = None) -> CommandParser:
    parser = CommandParser(prog, "Evaluate checkpoints on video tasks. Run it with torchrun, or with python for one process.", EPILOG)
    parser.add_argument("checkpoint", nargs="*", help="checkpoint folders, evaluated one after another")
    parser.add_argument("--tasks", "--mode", default="video", help="comma list of groups, task[:split] and .jsonl files (video)")
    parser.add_argument("--device_batch_size", default=BATCH_PRESETS[0], help=f"questions at a time, or {' or '.join(BATCH_PRESETS)}")
    parser.add_argument("--max_examples", type=int, default=-1, help="questions of each task; -1 = all")
    parser.add_argument("--max_new_tokens", type=int, help="longest answer (default: the task's)")
    parser.add_argument("--precision", choices=("fp32", "amp_bf16", "bf16"), help="arithmetic (default: amp_bf16 on GPUs, else fp32)")
    parser.add_argument("--num_workers", type=int, default=4, help="data processes per rank; 0 = none (4)")
    parser.add_argument("--eval_name", help="suffix of the result folders")
    parser.add_argument("--save_dir", help="folder for the results instead of the checkpoint's")
    parser.add_argument("--overwrite", action="store_true", help="answer again what has been answered")
    parser.add_argument("--list_tasks", action="store_true", help="print groups and tasks and stop")
    parser.add_argument("--print_config", action="store_true", help="print the resolved settings and stop")
    parser.add_argument("--dry_run", action="store_true", help="build on the meta device, describe what would be asked and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str], prog: str | None = None) -> tuple[argparse.Namespace, list[str], list[str]]:
    """(flags, overrides of the model, overrides of the data); task names and sizes are checked here."""
    args, overrides = build_parser(prog).parse_with_overrides(argv)
    if args.list_tasks:
        return args, [], []
    if unknown := [o.partition("=")[0] for o in overrides if not o.startswith(OVERRIDES)]:
        near = difflib.get_close_matches(unknown[0], [a.dest for a in build_parser()._actions], n=1)
        hint = f"did you mean '--{near[0]}'?" if near else f"overrides start with {' or '.join(f'--{p}' for p in OVERRIDES)}"
        raise OLMoCliError(f"unknown option '--{unknown[0]}'; {hint}")
    if not args.checkpoint:
        raise OLMoCliError("name at least one checkpoint folder")
    if args.max_examples == 0 or args.max_examples < -1:
        raise OLMoCliError(f"--max_examples={args.max_examples}: must be a positive number, or -1 for all")
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise OLMoCliError(f"--max_new_tokens={args.max_new_tokens}: must be at least 1")
    if args.num_workers < 0:
        raise OLMoCliError(f"--num_workers={args.num_workers}: must be 0 or more")
    args.tasks = resolve_tasks(args.tasks)
    args.device_batch_size = parse_batch_size(args.device_batch_size)
    args.max_examples = None if args.max_examples == -1 else args.max_examples
    model, data = ([o.removeprefix(p) for o in overrides if o.startswith(p)] for p in OVERRIDES)
    return args, model, data


def describe_tasks() -> str:
    """Groups and tasks, one line each."""
    lines = ["groups:", *(f"  {name}: {', '.join(tasks)}" for name, tasks in GROUPS.items()), "tasks:"]
    for task in TASKS.values():
        note = "" if task.metric else "  (its data cannot be read by this version yet)"
        lines.append(f"  {task.label:<40} {task.title}, up to {task.max_new_tokens} new tokens{note}")
    return "\n".join(lines)


def check_available(tasks: Sequence[Task]) -> None:
    """Name every task that cannot be run on a line of its own, then refuse."""
    missing = [t for t in tasks if t.metric is None]
    for task in missing:
        log.error("missing: %s (%s)", task.title, why_missing(task))
    if missing:
        raise OLMoCliError(f"--tasks: {len(missing)} of {len(tasks)} tasks cannot be run: {', '.join(t.name for t in missing)}")
    check_data_files(tasks)


def check_data_files(tasks: Sequence[Task]) -> None:
    """Go through every line of the data files among the tasks, before anything large is loaded."""
    from olmo.data.catalogue import get_dataset

    for task in tasks:
        if task.dataset is not None:
            get_dataset(task.dataset)


def why_missing(task: Task) -> str:
    """What to download, as far as the catalogue knows."""
    from olmo.data.catalogue import get_dataset

    try:
        get_dataset(task.name, task.split)
    except OLMoDataError as err:
        return str(err)
    return f"{task.name}: this version has no metric for it yet"


def run(args: argparse.Namespace, model_overrides: Sequence[str], data_overrides: Sequence[str], world, console) -> dict[str, float]:
    """Evaluate every checkpoint; `world` has rank, size and device. Returns task/metric -> value of the last checkpoint."""
    import torch

    from olmo.checkpoints import select_checkpoint
    from olmo.eval.ranks import patient_group

    check_available(args.tasks)
    checkpoints = [select_checkpoint(c) for c in args.checkpoint]  # a typing error in the last one should not show after hours
    results: dict[str, float] = {}
    with patient_group(world) as group:
        for checkpoint in checkpoints:
            results = evaluate_checkpoint(checkpoint, args, model_overrides, data_overrides, world, group, console)
            if torch.cuda.is_available():  # the model is gone only now; the next one needs its memory
                torch.cuda.empty_cache()
    return results


def evaluate_checkpoint(
    checkpoint: Path, args, model_overrides: Sequence[str], data_overrides: Sequence[str], world, group, console
) -> dict[str, float]:
    """All tasks on one checkpoint; the ranks talk through `group`. The model is loaded only if something is left to ask."""
    from olmo.checkpoints import load_config
    from olmo.data.catalogue import get_dataset
    from olmo.distributed import broadcast_object, gather_objects, on_main
    from olmo.eval.questions import list_questions
    from olmo.eval.runner import answer_questions, finish, format_scores
    from olmo.inference.api import load_with_overrides, precision_of

    main = world.rank == 0
    config = load_config(checkpoint, model_overrides)
    data = moving_shapes_config(checkpoint, data_overrides)
    qa = None
    results: dict[str, float] = {}
    for task in args.tasks:
        settings = task_settings(task, args, checkpoint, config, data, precision_of(world.device, args.precision))
        folder = open_folder(task, args, checkpoint, settings, world)
        content = None if args.overwrite else folder.finished_metrics(args.max_examples)
        content = broadcast_object(content, group)
        if content is not None and main:
            log.info("%s is done already: %s", task.label, folder.path / "metrics.json")
        if content is None:
            on_main(partial(folder.prepare, args.overwrite), partial(cannot_prepare, folder.path), group)
            qa = qa or load_with_overrides(checkpoint, model_overrides, device=world.device, precision=args.precision)
            dataset = get_dataset(task.source, task.split, moving_shapes=data)
            questions = list_questions(dataset, args.max_examples)
            with ProgressLine(console, task.title, enabled=main) as progress:
                answered = answer_questions(
                    qa,
                    questions,
                    folder,
                    batch_size=task.batch_size(args.device_batch_size),
                    max_new_tokens=settings["max_new_tokens"],
                    num_workers=args.num_workers,
                    progress=progress,
                )
            everyone = gather_objects(answered, group)
            if main:
                extra = {"eval_config": settings | {"device_batch_size": task.batch_size(args.device_batch_size), "ranks": world.size}}
                extra |= {"model_config": settings["model"], "max_examples": args.max_examples}
                content = finish(folder, task, questions, everyone, **extra)
        if main:
            for line in format_scores(task, content):
                log.info(line)
            log.info("  %s", folder.path)
            results |= {f"{task.name}/{name}": value for name, value in content["metrics"].items()}
    return results


def cannot_prepare(folder: Path, err: BaseException) -> OLMoEnvironmentError:
    """For what goes wrong in a result folder and is not worded for the user, such as a file of settings that is no JSON."""
    return OLMoEnvironmentError(f"cannot prepare the result folder {folder}: {type(err).__name__}: {first_line(err)}")


def task_settings(task: Task, args, checkpoint: Path, config, data, precision: str) -> dict[str, Any]:
    """Everything that the answers depend on; a change of any of it makes them other answers."""
    from olmo.eval.results import weights_fingerprint

    return {
        "checkpoint": checkpoint.name,
        "weights": weights_fingerprint(checkpoint),
        "task": task.label,
        "max_new_tokens": args.max_new_tokens or task.max_new_tokens,
        "precision": precision,
        "data": data_settings(task, data),
        "model": _plain(config),
    }


def data_settings(task: Task, moving_shapes) -> dict[str, Any] | None:
    """What the questions of a task depend on besides its name: how they are generated, or what the data file holds."""
    if task.dataset is not None:
        return {"file": str(Path(task.dataset).absolute()), "sha256": hashlib.sha256(Path(task.dataset).read_bytes()).hexdigest()}
    return _plain(moving_shapes, without=("root", "processes", "num_train")) if task.name == "moving_shapes" else None


def _plain(config, without: Sequence[str] = ()) -> dict[str, Any]:
    """A config block as JSON would give it back."""
    return json.loads(json.dumps({k: v for k, v in config.asdict().items() if k not in without}, default=str))


def open_folder(task: Task, args, checkpoint: Path, settings: dict[str, Any], world):
    from olmo.checkpoints import step_of
    from olmo.eval.results import ResultFolder, result_folder

    path = result_folder(checkpoint, step_of(checkpoint), task, args.eval_name, args.save_dir)
    return ResultFolder(path, settings, rank=world.rank, world_size=world.size)


def moving_shapes_config(checkpoint: Path, overrides: Sequence[str]):
    """Which generated videos: those the checkpoint was trained with, unless the command line says otherwise."""
    from olmo.checkpoints import read_config
    from olmo.data.moving_shapes import MovingShapesConfig

    trained_with = read_config(checkpoint).get("data", {}).get("moving_shapes") or {}
    return MovingShapesConfig.from_dict(trained_with).with_overrides(overrides)


def dry_run(args, model_overrides: Sequence[str], data_overrides: Sequence[str], console) -> None:
    """Build every model on the meta device and say what would be asked of it."""
    from olmo.checkpoints import load_config, select_checkpoint

    check_data_files(args.tasks)
    for name in args.checkpoint:
        checkpoint = select_checkpoint(name)
        config = load_config(checkpoint, model_overrides)
        model = config.build_model(device="meta")
        total = sum(p.numel() for p in model.parameters())
        moving_shapes_config(checkpoint, data_overrides)
        console.print(f"{checkpoint}: {config.model_name}, {total:,} parameters; {kept_tokens(config)}")
        for task in args.tasks:
            state = "its data cannot be read by this version yet" if task.metric is None else "ready"
            console.print(
                f"  {task.label}: {state}; {task.batch_size(args.device_batch_size)} at a time, "
                f"up to {args.max_new_tokens or task.max_new_tokens} new tokens"
            )


def kept_tokens(config) -> str:
    """Visual tokens of a video of the most frames, before and after pruning."""
    from olmo.models.molmo2.preprocessor import longest_video
    from olmo.preprocessing.example import dropped_cells

    if config.vision_backbone is None:
        return "it takes no videos"
    preprocessor, video = config.mm_preprocessor, longest_video(config)
    after = video.num_cells - dropped_cells([video], *preprocessor.pruning(config.vision_backbone.vit))
    total = video.num_cells + video.spared
    return f"a video of {preprocessor.video.max_frames} frames has {total} visual tokens, {after} after pruning"


def printed_config(args, model_overrides: Sequence[str], data_overrides: Sequence[str]) -> str:
    """The resolved settings of every checkpoint as YAML."""
    import yaml

    from olmo.checkpoints import load_config, select_checkpoint

    documents = []
    for name in args.checkpoint:
        checkpoint = select_checkpoint(name)
        documents.append(
            {
                "checkpoint": str(checkpoint),
                "tasks": [t.label for t in args.tasks],
                "device_batch_size": args.device_batch_size,
                "max_examples": args.max_examples,
                "max_new_tokens": args.max_new_tokens,
                "num_workers": args.num_workers,
                "data": {"moving_shapes": _plain(moving_shapes_config(checkpoint, data_overrides))},
                "model": _plain(load_config(checkpoint, model_overrides)),
            }
        )
    return yaml.safe_dump_all(documents, sort_keys=False)
