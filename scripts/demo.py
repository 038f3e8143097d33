"""The demo: train the tiny model with and without pruning, evaluate both on held-out videos, write a report.

    python scripts/demo.py [--out=runs/demo] [--steps=N] [--num_train=N] [--num_test=N] [--seed=N] [--check] [--fast]

Generates the videos, trains one model without pruning and goes on from it twice, side by side: without and with pruning
(as the paper does: a model learns to drop tokens after it has learned to see). Everything goes through the ordinary
training and evaluation commands and ends with the path of `report.html`. What is finished is not done again (--overwrite).
"""

import argparse
import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_processes import TrainingRun, call, threads_for, train_together

from olmo.config_files import find_config
from olmo.exceptions import OLMoEnvironmentError
from olmo.launch import CommandParser, run_command, setup_logging
from olmo.processes import cores

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "launch_scripts" / "train_image_video_sft.py"
EVALUATE = ROOT / "launch_scripts" / "eval_molmo2.py"
EVAL_BATCH = 32
FAST = {"steps": 20, "num_train": 64, "num_test": 12}
"""Sizes of --fast: nothing is learned, everything runs."""


TYPE_ORDER = ("colour", "count", "direction", "stopped", "first", "middle", "last")
"""Question types as the report lists them."""


@dataclass(frozen=True)
class Model:
    """A model that is trained."""

    key: str
    """Its folder."""
    name: str
    """What the report calls it."""
    prune: bool


START = Model("start", "common start", False)
"""Trained first, from random weights; the two that are compared go on from it."""
MODELS = (Model("unpruned", "unpruned", False), Model("stts", "STTS 50 %", True))


def build_parser() -> CommandParser:
    parser = CommandParser("demo.py", __doc__.split("\n")[0])
    parser.add_argument("--out", default="runs/demo", help="folder for everything that is made (runs/demo)")
    parser.add_argument("--steps", type=_positive, help="steps of each of the three trainings (the config's)")
    parser.add_argument("--num_train", type=_positive, default=6000, help="training videos (6000)")
    parser.add_argument("--num_test", type=_positive, default=400, help="held-out videos (400)")
    parser.add_argument("--seed", type=int, default=0, help="of the videos and of the trainings (0)")
    parser.add_argument("--check", action="store_true", help="exit with an error unless the models have learned what they should")
    parser.add_argument("--fast", action="store_true", help="a minute of everything, in which nothing is learned")
    parser.add_argument("--overwrite", action="store_true", help="train and evaluate again what is finished")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(list(argv))
    if args.fast:
        args.steps, args.num_train, args.num_test = args.steps or FAST["steps"], FAST["num_train"], FAST["num_test"]
    console = setup_logging()
    demo = Demo(args, console)
    demo.run()
    return 1 if args.check and demo.problems else 0


class Demo:
    """The stages, each timed; `summary.json` is rewritten after every one."""

    def __init__(self, args: argparse.Namespace, console) -> None:
        import yaml

        self.args, self.console = args, console
        self.out = Path(args.out)
        self.config_text = find_config("tiny").read_text()
        self.config = yaml.safe_load(self.config_text)
        self.steps = args.steps or int(self.config["max_duration"])
        self.seconds: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.problems: list[str] = []

    def run(self) -> None:
        start = time.perf_counter()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OLMoEnvironmentError(f"cannot write to {self.out}: {err.strerror or err}") from None
        self.say(f"demo in {self.out}: videos, three trainings of {self.steps} steps (two of them at once), evaluation, report")
        for number, stage in enumerate((self.make_videos, self.train, self.evaluate, self.report), start=1):
            name = stage.__name__.replace("_", " ")
            self.say(f"[{number}/4] {name}")
            began = time.perf_counter()
            stage()
            self.seconds[name] = round(time.perf_counter() - began, 1)
            self.write_summary(total=time.perf_counter() - start)
        for line in self.closing_lines():
            self.say(line)

    def say(self, text: str) -> None:
        self.console.print(text)

    # ------------------------------------------------------------------ stages

    def make_videos(self) -> None:
        from olmo.data.moving_shapes import SPLITS, MovingShapes

        config = self.videos()
        for split in SPLITS:
            data = MovingShapes(config, split)
            self.say(f"  {split}: {len(data.videos)} videos, {len(data.items)} questions in {data.folder}")

    def train(self) -> None:
        start = self.training(START, None)
        runs = [self.training(m, start) for m in MODELS]
        if self.args.overwrite:
            for run in (start, *runs):
                shutil.rmtree(run.folder, ignore_errors=True)
        for together in ([start], runs):
            todo = [r for r in together if not r.finished()]
            for run in together:
                if run not in todo:
                    self.say(f"  {run.name}: trained already ({run.seconds():.0f} s); --overwrite trains it again")
            train_together(todo, self.console, threads=threads_for(len(todo)))
        self.summary["train_seconds"] = {m.key: r.seconds() for m, r in zip((START, *MODELS), (start, *runs), strict=True)}

    def evaluate(self) -> None:
        for model in MODELS:
            call(
                self.eval_command(model),
                self.folder(model) / "eval.log",
                threads=threads_for(1),
                console=self.console,
                title=model.name,
            )
        results = {m.key: self.results(m) for m in MODELS}
        self.summary["scores"] = {key: r["scores"] for key, r in results.items()}
        self.summary["tokens"] = {key: {k: r[k] for k in ("tokens_before", "tokens_after")} for key, r in results.items()}
        self.summary["eval_seconds"] = {key: r["seconds"] for key, r in results.items()}
        unpruned, stts = (r["scores"] for r in results.values())
        self.problems = acceptance_problems(unpruned, stts)

    def report(self) -> None:
        from olmo.eval.report import ReportRun, build_report
        from olmo.json_lines import read_records

        runs = []
        for model in MODELS:
            results = self.results(model)
            records = read_records(self.result_folder(model) / "predictions.jsonl")
            facts = {
                "pruning": "none" if not model.prune else self.vit("prune_method"),
                "share of cells removed": "0" if not model.prune else f"{self.vit('topk')}",
                "scored after block": "–" if not model.prune else f"{self.vit('prune_at')} (counted from 0)",
                "steps": f"{self.steps:,} + {self.steps:,}",
            }
            runs.append(
                ReportRun(
                    name=model.name,
                    records=records,
                    metric="short_answer",
                    curve=self.curve(model),
                    train_seconds=self.summary["train_seconds"][model.key],
                    timing=results["seconds"],
                    costs={"one question: computed FLOPs": self.flops(model, records)},
                    facts=facts,
                )
            )
        samples = self.samples(runs)  # they may find one more problem
        path = build_report(
            self.report_path,
            title="Spatio-temporal token scoring, tried on a tiny model",
            runs=runs,
            samples=samples,
            verdict=self.verdict(),
            settings=self.settings(),
            type_order=TYPE_ORDER,
            commands=[self.shown(c) for c in self.commands()],
        )
        self.summary |= {"report": str(path), "accepted": not self.problems, "problems": self.problems}

    # ------------------------------------------------------------------ what the stages need

    @property
    def report_path(self) -> Path:
        return self.out / "report.html"

    def folder(self, model: Model) -> Path:
        return self.out / model.key

    def result_folder(self, model: Model) -> Path:
        from olmo.eval.results import newest_results

        name = f"predictions-ck{self.steps}-moving_shapes-test-*-{self.eval_name}"
        found = newest_results(self.folder(model), name)
        if found is None:
            raise OLMoEnvironmentError(f"the evaluation left no results called {name} in {self.folder(model)}")
        return found

    @property
    def eval_name(self) -> str:
        """Tells results on other videos apart."""
        return f"n{self.args.num_test}-s{self.args.seed}"

    def results(self, model: Model) -> dict[str, Any]:
        return json.loads((self.result_folder(model) / "metrics.json").read_text(encoding="utf-8"))

    def vit(self, key: str) -> Any:
        return self.config["model"]["vision_backbone"]["vit"][key]

    def videos(self):
        from olmo.data.moving_shapes import MovingShapesConfig

        return MovingShapesConfig(num_train=self.args.num_train, num_test=self.args.num_test, seed=self.args.seed)

    def training(self, model: Model, after: TrainingRun | None) -> TrainingRun:
        return TrainingRun(self.folder(model), self.train_command(model), model.name, self.steps, self.config_text, after)

    def commands(self) -> list[list[str]]:
        return [self.train_command(START), *(c(m) for m in MODELS for c in (self.train_command, self.eval_command))]

    def curve(self, model: Model) -> list[tuple[int, float]]:
        """Loss by step; the common start is drawn once, as the beginning of the unpruned model."""
        from olmo.eval.report import read_curve

        start = [] if model.prune else read_curve(self.folder(START) / "metrics.jsonl")
        return start + [(self.steps + step, loss) for step, loss in read_curve(self.folder(model) / "metrics.jsonl")]

    def train_command(self, model: Model) -> list[str]:
        """The training command of the README, with the sizes of this demo."""
        words = [sys.executable, str(TRAIN), "tiny", "moving_shapes", f"--save_folder={self.folder(model)}", f"--max_duration={self.steps}"]
        words += [f"--data.moving_shapes.{k}={v}" for k, v in self.video_settings().items()]
        first = model is START
        words += [f"--seed={6198 + self.args.seed}", f"--data.seed={50189 + 2 * self.args.seed + (not first)}", "--wandb=null"]
        words += [] if first else [f"--initial_model_checkpoint={self.folder(START)}"]
        return words if model.prune else [*words, "--model.vision_backbone.vit.prune=False"]

    def eval_command(self, model: Model) -> list[str]:
        words = [sys.executable, str(EVALUATE), str(self.folder(model)), "--mode=moving_shapes"]
        words += [f"--device_batch_size={EVAL_BATCH}", "--num_workers=0", f"--eval_name={self.eval_name}"]
        return [*words, "--overwrite"] if self.args.overwrite else words

    def video_settings(self) -> dict[str, int]:
        return {"num_train": self.args.num_train, "num_test": self.args.num_test, "seed": self.args.seed}

    @staticmethod
    def shown(command: Sequence[str]) -> str:
        """A command as one would type it."""
        words = ["python", *(w.replace(f"{ROOT}/", "") for w in command[1:])]
        return shlex.join(words)

    def settings(self) -> dict[str, dict[str, str]]:
        from olmo.provenance import versions

        llm, vit = self.config["model"]["llm"], self.config["model"]["vision_backbone"]["vit"]
        video = self.config["model"]["mm_preprocessor"]["video"]
        side = vit["image_default_input_size"][0]
        window = f"{video['pooling_h']} x {video['pooling_w']} patches"
        optimizer = self.config["optimizer"]
        made = self.videos()
        return {
            "Model": {
                "vision transformer": f"{vit['image_num_layers']} blocks, width {vit['image_emb_dim']}",
                "language model": f"{llm['n_layers']} blocks, width {llm['d_model']}",
                "a video": f"{video['max_frames']} frames of {side} x {side} px, {window} per cell",
            },
            "Training": {
                "from": f"random weights; {self.steps:,} steps without pruning, from where both models go on",
                "videos per step": f"{self.config['global_train_batch_size']}, all questions of a video at once",
                "learning rate": f"{optimizer['llm_learning_rate']}, scorer {optimizer['temporal_token_scorer_learning_rate']}",
                "seed": str(self.args.seed),
            },
            "Data": {
                "videos": f"{made.num_train:,} for training, {made.num_test:,} held out",
                "a video": f"{made.seconds:g} s at {made.fps} frames per second, H.264",
                "questions per video": f"at most {made.questions_per_video}",
            },
            "Software": {**versions(), "machine": f"{platform.machine()}, {cores()} cores"},
        }

    def flops(self, model: Model, records: Sequence[dict[str, Any]]) -> str:
        """Analytic cost of reading a question of mean length with its video."""
        from olmo.checkpoints import load_config
        from olmo.nn.flops import flops_for_video, format_flops

        frames = self.config["model"]["mm_preprocessor"]["video"]["max_frames"]
        text = sum(r["tokens_before"] - r["visual_before"] for r in records) / len(records) - 2 * frames
        return format_flops(flops_for_video(load_config(self.folder(model)), frames, round(text), loss_tokens=1).total)

    def samples(self, runs) -> list:
        """Some held-out videos: what the pruned model kept of them, and what both answered."""
        import numpy as np

        from olmo.eval.report import SampleVideo
        from olmo.inference import load

        by_video: dict[str, list[dict[str, Any]]] = {}
        for record in runs[0].records:
            by_video.setdefault(record["video"], []).append(record)
        predictions = {run.name: {r["example_id"]: r["prediction"] for r in run.records} for run in runs}
        qa = load(self.folder(next(m for m in MODELS if m.prune)))
        samples = []
        for video in choose_videos(by_video):
            answer = qa.ask(video, by_video[video][0]["question"], max_new_tokens=1)
            questions = [
                {"question": r["question"], "answer": r["answer"], "predictions": {n: p[r["example_id"]] for n, p in predictions.items()}}
                for r in by_video[video]
            ]
            title = f"Held-out video {Path(video).stem.lstrip('0') or '0'}"
            if np.ptp(answer.scores[1:]) == 0 and not any("scorer" in p for p in self.problems):
                self.problems.append(f"the scorer gives every cell of a video the same score ({answer.scores[1, 0]:.3g})")
            samples.append(SampleVideo(title, answer.frames, answer.timestamps, answer.keep_cells, answer.scores, answer.grid, questions))
        return samples

    def write_summary(self, total: float) -> None:
        content = {
            "seconds": self.seconds | {"total": round(total, 1)},
            "steps": self.steps,
            "videos": self.video_settings(),
            **self.summary,
        }
        (self.out / "summary.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def closing_lines(self) -> list[str]:
        scores = self.summary["scores"]
        lines = [
            f"{m.name}: {100 * scores[m.key]['average']['value']:.1f} % right on average "
            f"[{100 * scores[m.key]['average']['low']:.1f}, {100 * scores[m.key]['average']['high']:.1f}], "
            f"{self.summary['tokens'][m.key]['tokens_after']:.0f} tokens per question"
            for m in MODELS
        ]
        stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return [*lines, *self.verdict(), stages, f"report: {self.report_path.resolve()}"]

    def verdict(self) -> list[str]:
        """Whether the result is what the demo is meant to show, and why not."""
        if self.args.fast and not self.args.check:
            return ["no verdict: with --fast nothing is learned"]
        if self.problems:
            return [*(f"not accepted: {problem}" for problem in self.problems), "not accepted"]
        return ["accepted: both models learned every question type, and pruning costs little"]


# ---------------------------------------------------------------------------------------------- pure parts


def acceptance_problems(unpruned: dict[str, dict], stts: dict[str, dict]) -> list[str]:
    """What keeps the demo from being accepted.

    Both models must reach twice the chance level in every question type with the lower end of the 95 % interval, and the
    average of the pruned one must be no more than 5 points below that of the unpruned one.
    """
    problems = []
    for name, scores in (("unpruned", unpruned), ("STTS", stts)):
        for kind, score in scores.items():
            if kind not in ("all", "average") and score["low"] < 2 * score["chance"]:
                problems.append(f"{name}, {kind}: lower end {score['low']:.3f} is below twice chance {2 * score['chance']:.3f}")
    gap = unpruned["average"]["value"] - stts["average"]["value"]
    if gap > 0.05:
        problems.append(f"pruning costs {100 * gap:.1f} points on average, more than 5")
    return problems


def choose_videos(by_video: dict[str, list[dict[str, Any]]], count: int = 6) -> list[str]:
    """The videos with most questions (several shapes) and the one with fewest, in their own order; earlier ones first."""
    fewest = min(by_video, key=lambda v: len(by_video[v]))
    most = sorted((v for v in by_video if v != fewest), key=lambda v: -len(by_video[v]))
    chosen = {*most[: count - 1], fewest}
    return [v for v in by_video if v in chosen]


if __name__ == "__main__":
    sys.exit(run_command(main))
