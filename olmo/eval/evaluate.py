"""One checkpoint after another through the tasks asked for."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from olmo.checkpoints import load_config, read_config, select_checkpoint, step_of
from olmo.data.catalogue import ROWS, GeneratedRow, get_dataset
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.distributed import World, broadcast_object, gather_objects, on_all_ranks, on_main
from olmo.eval.averages import Result, write_averages
from olmo.eval.listing import NO_READER, data_state
from olmo.eval.progress import ProgressLine
from olmo.eval.questions import Question, list_questions
from olmo.eval.ranks import patient_group
from olmo.eval.results import ResultFolder, result_folder, weights_fingerprint
from olmo.eval.runner import answer_questions, finish, format_scores, sum_parts, unanswered
from olmo.eval.task import Task
from olmo.exceptions import OLMoCliError, OLMoDataError, OLMoDataFileError, OLMoEnvironmentError, first_line
from olmo.inference.api import VideoQA, load_with_overrides, precision_of
from olmo.provenance import versions

log = logging.getLogger(__name__)


def run(args: Any, model_overrides: Sequence[str], data_overrides: Sequence[str], world: World, console: Any) -> dict[str, float]:
    """Evaluate every checkpoint. Returns task/metric -> value of the last one."""
    check_available(args.tasks)
    checkpoints = [select_checkpoint(c) for c in args.checkpoint]  # a typing error in the last one should not show after hours
    results: dict[str, float] = {}
    with patient_group(world) as group:
        for checkpoint in checkpoints:
            overrides = args.scaling.with_overrides(checkpoint, model_overrides)
            results = Evaluation(checkpoint, args, overrides, data_overrides, world, group, console).run()
            if torch.cuda.is_available():  # the model is gone only now; the next one needs its memory
                torch.cuda.empty_cache()
    return results


def check_available(tasks: Sequence[Task]) -> None:
    """Name every task whose data cannot be opened on a line of its own, then refuse. Data files are gone through line by line."""
    missing = []
    for task in tasks:
        try:
            if data_state(task) == NO_READER:
                raise OLMoDataError(f"{task.name}: no reader yet")
            if not isinstance(ROWS.get(task.source), GeneratedRow):  # made in its turn, with the settings of its checkpoint
                get_dataset(task.source, task.split)
        except OLMoDataFileError:
            raise
        except OLMoDataError as err:
            log.error("missing: %s (%s)", task.title, err)
            missing.append(task.name)
    if missing:
        raise OLMoCliError(f"--tasks: {len(missing)} of {len(tasks)} tasks cannot be run: {', '.join(missing)}")


@dataclass
class Evaluation:
    """All tasks on one checkpoint; the ranks talk through `group`. The model is loaded only if something is left to ask."""

    checkpoint: Path
    args: Any
    model_overrides: Sequence[str]
    data_overrides: Sequence[str]
    world: World
    group: Any
    console: Any
    qa: VideoQA | None = None

    def run(self) -> dict[str, float]:
        """task/metric -> value."""
        self.config = load_config(self.checkpoint, self.model_overrides)
        self.data = moving_shapes_config(self.checkpoint, self.data_overrides)
        results: dict[str, float] = {}
        done: dict[str, Result] = {}
        for task in self.args.tasks:
            folder, settings = self.open_folder(task)
            content = self.finished(task, folder)
            if content is None:
                content = self.ask(task, folder, settings)
            if self.world.is_main:
                for line in format_scores(task, content):
                    log.info(line)
                log.info("  %s", folder.path)
                results |= {f"{task.name}/{name}": value for name, value in content["metrics"].items()}
                done[task.label] = Result(task, folder.path, None if self.args.max_examples is None else self.asked(task))
        for line in on_main(lambda: write_averages(done, self.args.compat), _failed_while_asking, self.group):
            if self.world.is_main:
                log.info(line)
        return results

    def questions(self, task: Task) -> list[Question]:
        return list_questions(get_dataset(task.source, task.split, moving_shapes=self.data), self.args.max_examples)

    def asked(self, task: Task) -> frozenset[str]:
        return frozenset(q.record["example_id"] for q in self.questions(task))

    def open_folder(self, task: Task) -> tuple[ResultFolder, dict[str, Any]]:
        precision = precision_of(self.world.device, self.args.precision)
        settings = task_settings(task, self.args, self.checkpoint, self.config, self.data, precision)
        path = result_folder(self.checkpoint, step_of(self.checkpoint), task, settings, self.args.eval_name, self.args.save_dir)
        return ResultFolder(path, settings, rank=self.world.rank, world_size=self.world.size), settings

    def finished(self, task: Task, folder: ResultFolder) -> dict[str, Any] | None:
        """What an earlier run found, if nothing has to be done again."""
        content = None
        if self.world.is_main and not self.args.overwrite:
            content = folder.finished_metrics(max_examples=self.args.max_examples, compat=self.args.compat)
            if content is not None and self.args.retry_failed and content["failed"]["questions"]:
                content = None
            if content is not None:
                log.info("%s is done already: %s", task.label, folder.path / "metrics.json")
        return broadcast_object(content, self.group)

    def ask(self, task: Task, folder: ResultFolder, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Answer what is not answered yet and score all of it; the content of `metrics.json` on rank 0."""
        args, world, group = self.args, self.world, self.group
        on_main(partial(folder.prepare, args.overwrite), partial(cannot_prepare, folder.path), group)
        questions = self.questions(task)
        # Rank 0 looks before any rank adds answers, so that all agree on whether the model is needed.
        left = on_main(lambda: len(unanswered(questions, folder, args.retry_failed)), partial(cannot_prepare, folder.path), group)
        batch_size = task.batch_size(args.device_batch_size)
        if left:
            self.qa = self.qa or load_with_overrides(self.checkpoint, self.model_overrides, device=world.device, precision=args.precision)
            facts = {"device": str(world.device), "ranks": world.size, "device_batch_size": batch_size, "versions": versions()}
            on_main(partial(folder.note_start, facts), partial(cannot_prepare, folder.path), group)
            answer = partial(self._answer, task, folder, questions, batch_size, settings["max_new_tokens"])
            seconds = sum_parts(gather_objects(on_all_ranks(answer, _failed_while_asking, group), group))
        else:
            seconds = (folder.finished_metrics() or {}).get("seconds", {})
        return on_main(
            partial(
                finish,
                folder,
                task,
                questions,
                seconds=seconds,
                max_examples=args.max_examples,
                compat=args.compat,
                max_bad_fraction=args.max_bad_fraction,
                eval_config=settings | {"device_batch_size": batch_size, "ranks": world.size},
                model_config=settings["model"],
            ),
            _failed_while_asking,
            group,
        )

    def _answer(
        self, task: Task, folder: ResultFolder, questions: Sequence[Question], batch_size: int, max_new_tokens: int
    ) -> dict[str, float]:
        with ProgressLine(self.console, task.title, enabled=self.world.is_main) as progress:
            return answer_questions(
                self.qa,
                questions,
                folder,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                num_workers=self.args.num_workers,
                retry_failed=self.args.retry_failed,
                max_bad_fraction=self.args.max_bad_fraction,
                progress=progress,
            )


def cannot_prepare(folder: Path, err: BaseException) -> OLMoEnvironmentError:
    """For what goes wrong in a result folder and is not worded for the user, such as a file of settings that is no JSON."""
    return OLMoEnvironmentError(f"cannot prepare the result folder {folder}: {type(err).__name__}: {first_line(err)}")


def _failed_while_asking(err: BaseException) -> OLMoEnvironmentError:
    return OLMoEnvironmentError(f"the evaluation failed: {type(err).__name__}: {first_line(err)} (--debug shows where)")


def task_settings(task: Task, args: Any, checkpoint: Path, config: Any, data: MovingShapesConfig, precision: str) -> dict[str, Any]:
    """Everything that the answers depend on; a change of any of it makes them other answers."""
    frames, topk = frames_and_topk(config)
    return {
        "checkpoint": checkpoint.name,
        "weights": weights_fingerprint(checkpoint),
        "task": task.label,
        "frames": frames,
        "topk": topk,
        "max_new_tokens": args.max_new_tokens or task.max_new_tokens,
        "precision": precision,
        "data": data_settings(task, data),
        "model": plain(config),
    }


def frames_and_topk(config: Any) -> tuple[int, float]:
    """(most frames of a video, share of its cells that is removed) of a model config; (0, 0) without vision."""
    if config.vision_backbone is None:
        return 0, 0.0
    vit, preprocessor = config.vision_backbone.vit, config.mm_preprocessor
    removes = preprocessor.pruning(vit)[0] > 0 or preprocessor.fewer_frames(vit) is not None
    return preprocessor.video.max_frames, float(vit.topk) if removes else 0.0


def data_settings(task: Task, moving_shapes: MovingShapesConfig) -> dict[str, Any] | None:
    """What the questions of a task depend on besides its name: how they are generated, or what the data file holds."""
    if task.dataset is not None:
        return {"file": str(Path(task.dataset).absolute()), "sha256": hashlib.sha256(Path(task.dataset).read_bytes()).hexdigest()}
    return plain(moving_shapes, without=("root", "processes", "num_train")) if task.name == "moving_shapes" else None


def plain(config: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """A config block as JSON would give it back."""
    return json.loads(json.dumps({k: v for k, v in config.asdict().items() if k not in without}, default=str))


def moving_shapes_config(checkpoint: Path, overrides: Sequence[str]) -> MovingShapesConfig:
    """Which generated videos: those the checkpoint was trained with, unless the command line says otherwise."""
    trained_with = read_config(checkpoint).get("data", {}).get("moving_shapes") or {}
    return MovingShapesConfig.from_dict(trained_with).with_overrides(overrides)
