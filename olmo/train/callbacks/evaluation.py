"""Evaluation while training: the same tasks, records and metrics as of the evaluation command, on the model as it stands."""

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from olmo.data.catalogue import get_dataset
from olmo.distributed import on_main
from olmo.eval.live import ask_live
from olmo.eval.questions import Question, list_questions
from olmo.eval.results import ResultFolder
from olmo.eval.runner import scored
from olmo.eval.statistics import Score, format_score
from olmo.eval.task import Task
from olmo.inference.api import ExampleReader
from olmo.provenance import versions
from olmo.train.callbacks.base import Callback
from olmo.train.config import TrainConfig
from olmo.train.saving.checkpoint import cannot_write, random_state, set_random_state

log = logging.getLogger(__name__)

FOLDER = "inloop-predictions"
"""Below the save folder; holds `step<N>-<task>-<split>` folders with `predictions.jsonl` and `metrics.json`."""


class Evaluator(Callback):
    """Asks a few questions every `interval` steps. The training goes on as if nothing had been asked.

    Stands before the callbacks that report: its scores go into the record of the step, as `eval/<task>/<score>`.
    """

    patience = 24.0

    def __init__(self, cfg: TrainConfig) -> None:
        self.cfg, self.block = cfg, cfg.evaluation
        self.tasks = cfg.evaluation.resolved()
        self.questions: list[list[Question]] = []
        self.reader: ExampleReader | None = None

    def on_start(self, trainer) -> None:
        """Open the data now: what is missing should not show after the first thousand steps."""
        made = self.cfg.data.moving_shapes
        datasets = [get_dataset(task.source, task.split, moving_shapes=made) for task in self.tasks]
        self.questions = [list_questions(dataset, self.block.max_examples) for dataset in datasets]
        self.reader = ExampleReader(self.cfg.model)
        if trainer.world.is_main:
            numbers = ", ".join(f"{t.label} ({len(q)} questions)" for t, q in zip(self.tasks, self.questions, strict=True))
            log.info("evaluation every %d steps: %s", self.block.interval, numbers)

    def on_step(self, trainer, result, metrics) -> None:
        if trainer.state.step % self.block.interval:
            return
        start, before = time.monotonic(), random_state()
        try:
            for task, questions in zip(self.tasks, self.questions, strict=True):
                metrics |= self._evaluate(trainer, task, questions)
        finally:
            set_random_state(before)
        metrics["eval/seconds"] = time.monotonic() - start

    def _evaluate(self, trainer, task: Task, questions: Sequence[Question]) -> dict[str, float]:
        records = ask_live(
            trainer.model,
            self.reader,
            questions,
            trainer.world,
            batch_size=self.block.device_batch_size,
            max_new_tokens=self.block.max_new_tokens or task.max_new_tokens,
            autocast=torch.bfloat16 if self.cfg.uses_bf16(trainer.world.device) else None,
        )
        content = on_main(partial(self._finish, trainer, task, records), cannot_write(self.cfg.save_folder))
        return {f"eval/{self._name(task)}/{score}": value for score, value in content["metrics"].items()}

    def _finish(self, trainer, task: Task, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Rank 0: score the records and write both."""
        step = trainer.state.step
        content = scored(task, records) | {"step": step, "versions": versions()}
        folder = ResultFolder(
            Path(self.cfg.save_folder) / FOLDER / f"step{step}-{task.name}-{task.split}", {"task": task.label, "step": step}
        )
        folder.prepare(overwrite=True)  # of a start that was resumed from before this step
        folder.append(records)
        folder.close()
        folder.write_metrics(content)
        shown = format_score(Score.from_dict(content["scores"][content["headline"]])) if content["scores"] else content["status"]
        log.info("step %d: %s %s %s", step, task.title, content["headline"] or "", shown)
        if failed := content["failed"]["questions"]:
            log.warning("%d of %d questions of %s could not be asked, first: %s", failed, len(records), task.label, _first_failure(content))
        return content

    def _name(self, task: Task) -> str:
        """How the log calls it: by its split too where the same task is asked on two of them."""
        return task.name if [t.name for t in self.tasks].count(task.name) == 1 else task.label


def _first_failure(content: dict[str, Any]) -> str:
    return content["failed"]["files"][0]["message"]
