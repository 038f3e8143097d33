"""How long a training takes from the start of its process to the end of its first step, after a restart.

    python scripts/measure_restart.py [--parameters=1e8] [--starts=3] [--folder=/tmp]

A run on generated videos is trained for two steps and saved; the same command then continues it several times, each time in a
new process. The stages of a start, in seconds (medians):

    imports     Python, torch and this package
    verify      finding the newest checkpoint, and the check sums of all its files
    data        opening the data set
    load        building the model, reading weights and optimiser state, the place in the data
    batch       the first batch, which was not prepared beforehand
    step        the first step

Everything after the imports stands in the order of `olmo.train.run`. The second line is the time that the process itself had a
processor: about what a start takes on a machine that does nothing else, without waiting for disks and for data processes. The
checkpoint was written a moment ago, so the operating system still has it in memory; from a disk or a network its bytes have to
come first.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from olmo.exceptions import OLMoEnvironmentError
from olmo.launch import CommandParser, run_command

STAGES = ("imports", "verify", "data", "load", "batch", "step")
BEGAN = "MEASURE_RESTART_BEGAN"
"""Variable with the time at which the process was started."""
SMALL_DATA = (
    *("--data.moving_shapes.num_train=40", "--data.moving_shapes.num_test=2", "--data.num_workers=1", "--data.prefetch_factor=2"),
    *("--data.packing.buffer_size=4", "--packing", "--wandb=null", "--save_final_optim"),
)


def build_parser() -> CommandParser:
    parser = CommandParser("measure_restart.py", __doc__)
    parser.add_argument("--parameters", type=float, default=1e8, help="about this many (1e8); 0 = the tiny model")
    parser.add_argument("--starts", type=int, default=3, help="how often the run is continued (3)")
    parser.add_argument("--folder", help="where to write the checkpoint (a temporary folder)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="measure_restart_") as folder:
        root = Path(folder)
        words = training_words(int(args.parameters), root)
        begin(words, root, "--max_duration=2")
        size = sum(f.stat().st_size for f in (root / "run" / "step2").rglob("*") if f.is_file())
        print(f"checkpoint of {size / 1e6:,.1f} MB")
        starts = []
        for _ in range(args.starts):
            # It must not save: every start is to continue from step 2.
            begin(words, root, "--max_duration=3", "--save_num_checkpoints_to_keep=0")
            starts.append(json.loads((root / "stages.json").read_text()))
    print(summary("by the clock", [start["clock"] for start in starts]))
    print(summary("on a processor", [start["processor"] for start in starts]))
    return 0


def summary(what: str, starts: Sequence[dict[str, float]]) -> str:
    seconds = {stage: statistics.median(start[stage] for start in starts) for stage in STAGES}
    return f"{what:<14} {sum(seconds.values()):6.1f} s: " + ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())


def training_words(parameters: int, root: Path) -> list[str]:
    """The training command without its length; for a model of a wanted size its config is written to `root`."""
    words = ["moving_shapes", f"--save_folder={root / 'run'}", "--allow_resume", *SMALL_DATA]
    if not parameters:
        return ["tiny", *words, "--global_batch_size=2", "--device_batch_size=2"]
    from olmo.benchmark.sized import sized_config
    from olmo.train.config import TrainConfig

    config = sized_config(parameters)
    config.llm.tokenizer.identifier = "tiny"  # the large ones are not in this package
    TrainConfig(model=config, save_folder=str(root / "run")).save(root / "sized.yaml")
    few = ("--model.mm_preprocessor.video.max_frames=4", "--data.packing.max_frames=4", "--seq_len=1024")
    return [str(root / "sized.yaml"), *words, *few, "--global_batch_size=1", "--device_batch_size=1"]


def begin(words: Sequence[str], root: Path, *more: str) -> None:
    """Run the training command in a process of its own, which leaves `stages.json`."""
    env = {**os.environ, "MOLMO_DATA_DIR": str(root / "data"), BEGAN: str(time.time())}
    command = [sys.executable, __file__, "--as-training", str(root / "stages.json"), *words, *more]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise OLMoEnvironmentError(f"the training that was to be measured failed: {(done.stdout + done.stderr)[-2000:]}")


def train_with_a_clock(argv: Sequence[str]) -> int:
    """`STAGES_FILE WORDS...`: the training command, in which the end of every stage up to the first step is noted."""
    from olmo.train import run
    from olmo.train.sft import main as train
    from olmo.train.step import TrainStep

    file, *words = argv
    ends: dict[str, tuple[float, float]] = {}
    step = TrainStep.__call__

    def end(stage: str) -> None:
        ends.setdefault(stage, (time.time(), time.process_time()))

    def ending(stage: str, function: Callable) -> Callable:
        def noted(*args, **kwargs):
            result = function(*args, **kwargs)
            end(stage)
            return result

        return noted

    def first_step(self, *args, **kwargs):
        end("batch")
        result = step(self, *args, **kwargs)
        end("step")
        return result

    end("imports")
    run.fetch_start = ending("verify", run.fetch_start)
    run.build_loader = ending("data", run.build_loader)
    run.build_trainer = ending("load", run.build_trainer)
    TrainStep.__call__ = first_step
    status = train(words, "train_image_video_sft.py")
    stages = {}
    for i, clock in enumerate(("clock", "processor")):
        times = [(float(os.environ[BEGAN]), 0.0)[i], *(ends[stage][i] for stage in STAGES)]
        stages[clock] = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}
    Path(file).write_text(json.dumps(stages))
    return status


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-training"]:
        sys.exit(run_command(train_with_a_clock, sys.argv[2:]))
    sys.exit(run_command(main))
