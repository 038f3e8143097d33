"""Everything in this repository that needs a GPU, in parts that end within nine minutes each.

    python scripts/gpu_check.py --list
    python scripts/gpu_check.py                       all parts, those with a result skipped
    python scripts/gpu_check.py attention sync        some of them

Needs torch (2.10 or newer) with CUDA, numpy, transformers with Molmo2, and pure-Python packages: omegaconf, rich, pytest, hypothesis,
and pytest-timeout. Downloads nothing. The result of every part goes to benchmarks/results/gpu_check_<device>.json, the rows of the
benchmark to the file beside it, so that a part that was cut off goes on where it ended.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from olmo.benchmark.cases import ONE_LAYER, Case
from olmo.benchmark.results import device_name, environment
from olmo.exceptions import OLMoEnvironmentError
from olmo.launch import CommandParser, run_command

REPO = Path(__file__).resolve().parents[1]
LIMIT = 540
"""Seconds of a part."""


@dataclass(frozen=True)
class Part:
    """A command, or a function of this file that is run in a process of its own."""

    what: str
    command: tuple[str, ...] = ()
    function: Callable[[], dict] | None = None


def tests(*names: str, slow: bool = False) -> tuple[str, ...]:
    return ("-m", "pytest", "-rP", "-q", "-p", "no:cacheprovider", *names, *(("-m", "slow or not slow") if slow else ()))


def benchmark(part: str, *more: str) -> tuple[str, ...]:
    return ("scripts/benchmark.py", part, "--profile=gpu", "--minutes=7", *more)


def pruned_step(device: torch.device) -> Callable[[], None]:
    """Forward and backward pass of a small pruned model over packed videos, in bf16."""
    from tests.models.builders import Example, batch, model

    m = model(compact_positions=True).to(device).train()
    b = batch([Example(4, (4, 3), 1), Example(2, (5,), 2)], [Example(3, (4,), 3)])
    b = b.pin_memory() if device.type == "cuda" else b

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            out = m(b.to(device), compute_loss=True)
        (out.loss.ce + out.aux_loss).backward()

    return step


def sync() -> dict:
    """A step asks the device for nothing."""
    step = pruned_step(torch.device("cuda"))
    step()  # kernels are chosen, and compiled, the first time
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"synchronisations": 0}


def memory() -> dict:
    """Activations of ViT and connector in the shape of stts_50: with few frames the weights' copies in bf16 count too much."""
    kept = saved_bytes(Case("published_case", "scorer", 0.5, 64, "training", llm=ONE_LAYER), torch.device("cuda"))
    ratio = kept[1] / kept[0]
    assert ratio <= 0.65, f"pruned training keeps {kept[1]} of {kept[0]} bytes of activations, {ratio:.3f}"
    return {"unpruned_bytes": kept[0], "pruned_bytes": kept[1], "ratio": ratio}


def saved_bytes(case: Case, device: torch.device) -> list[int]:
    """What a forward pass of the vision part keeps for its backward pass, unpruned and pruned, under bf16 autocast."""
    from olmo.benchmark.models import arms
    from olmo.benchmark.parts import vision_features
    from olmo.train.memory.activation_memory import ActivationMemory

    kept = []
    for arm in arms(case, device):
        arm.model.train()
        with ActivationMemory(arm.model) as used, torch.autocast(device.type, dtype=torch.bfloat16):
            features = vision_features(arm)
        kept.append(used.saved_bytes)
        del features
    return kept


def training() -> dict:
    """Steps of the 4B shape: the loss on one batch falls, and all is finite."""
    case = Case("step", "scorer", 0.5, 16, "training", text=200, compiled=True, recompute=True)
    numbers = train(case, torch.device("cuda"), steps=15)
    assert numbers["losses"][-1] < numbers["losses"][0], numbers["losses"]
    return numbers | {"peak_bytes": torch.cuda.max_memory_allocated()}


def train(case: Case, device: torch.device, steps: int) -> dict:
    """Losses and seconds of steps by the trainer's code, with random weights, on one batch of noise."""
    from olmo.benchmark.models import build, config_of, prepare, video_batch
    from olmo.benchmark.parts import trainer_steps

    config = config_of(case)
    model = prepare(build(config, device), case)
    (step,) = trainer_steps([model], case, device, ["optimizer.llm_learning_rate=1e-5", "scheduler.llm_t_warmup=0"])
    batch, losses, seconds = video_batch(case, config), [], []
    for number in range(1, steps + 1):
        start = time.perf_counter()
        losses.append(step(batch, number).metrics["train/CrossEntropyLoss"])
        seconds.append(time.perf_counter() - start)
    return {"losses": losses, "seconds": seconds}


GOLDENS = ("tests/goldens/test_golden_vision.py", "tests/goldens/test_golden_molmo2.py")
ORACLES = ("tests/oracles/test_transformers_towers.py", "tests/oracles/test_transformers_decoders.py")
PARTS = {
    "parity": Part("stored numbers and transformers' towers and decoders, fp32 on the GPU", tests(*GOLDENS, *ORACLES)),
    "attention": Part("every backend of attention against the formula, fp32 and bf16", tests("tests/nn/test_attention.py")),
    "generation": Part("decoding as a CUDA graph", tests("tests/inference/test_generation.py")),
    "sync": Part("a step that never waits for the device", function=sync),
    "compile": Part("graphs over many batches, and their numbers", tests("tests/models/test_compile_counts.py", slow=True)),
    "memory": Part("activations with and without pruning", function=memory),
    "numerics": Part("bf16 against transformers' bf16 in the 4B shape", ("scripts/compare_numerics.py", "--size=4b")),
    "vit": Part("benchmark: the vision transformer", benchmark("vit")),
    "published_case": Part("benchmark: ViT and connector", benchmark("published_case")),
    "llm": Part("benchmark: reading text", benchmark("llm")),
    "step": Part("benchmark: training steps of the 4B shape", benchmark("step")),
    "generate": Part("benchmark: answering requests", benchmark("generate")),
    "training": Part("fifteen steps of the 4B shape", function=training),
}


def build_parser() -> CommandParser:
    parser = CommandParser("gpu_check.py", __doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--list", action="store_true", help="print the parts and stop")
    parser.add_argument("--again", action="store_true", help="run parts that have a result already")
    parser.add_argument("--output", help="file of the results")
    parser.add_argument("--run", choices=[n for n, p in PARTS.items() if p.function], help="run one part in this process")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.list:
        print("\n".join(f"{name:<16} {part.what}" for name, part in PARTS.items()))
        return 0
    if not torch.cuda.is_available():
        raise OLMoEnvironmentError("torch sees no GPU here, and all parts need one")
    if args.run:
        print("result:", json.dumps(PARTS[args.run].function()))
        return 0
    if unknown := sorted(set(args.parts) - set(PARTS)):
        raise OLMoEnvironmentError(f"there is no part {unknown[0]}; known: {', '.join(PARTS)}")
    device = torch.device("cuda")
    file = Path(args.output or REPO / f"benchmarks/results/gpu_check_{device_name(device)}.json")
    results = json.loads(file.read_text())["parts"] if file.exists() else {}
    for name in args.parts or PARTS:
        if args.again or not results.get(name, {}).get("ok"):
            print(f"== {name}: {PARTS[name].what}", flush=True)
            results[name] = run(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"environment": environment(device), "parts": results}, indent=1) + "\n")
        print(f"{'ok    ' if results[name]['ok'] else 'FAILED'} {name}: {results[name]['summary']}", flush=True)
    return 0 if all(results[name]["ok"] for name in args.parts or PARTS) else 1


def run(name: str) -> dict:
    """One part in a process of its own: did it end well, how long did it take, and what did it say."""
    part = PARTS[name]
    command = [sys.executable, *(part.command or (__file__, "--run", name))]
    env = os.environ | {"TEST_DEVICE": "cuda", "PYTHONPATH": os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])}
    start = time.monotonic()
    try:
        done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=LIMIT)
        said, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as err:
        said, code = f"{(err.stdout or b'').decode(errors='replace')}\nstopped after {LIMIT} s", 1
    print(said[-3000:], flush=True)
    found = re.search(r"^result: (.*)$", said, re.M)
    numbers = {"result": json.loads(found[1])} if found else {"errors": worst_errors(said)}
    lines = [line for line in said.splitlines() if line.strip()]
    summary = found[0] if found else lines[-1].strip("= ") if lines else ""
    return {"ok": code == 0, "seconds": round(time.monotonic() - start, 1), "summary": summary, **numbers}


def worst_errors(said: str) -> dict[str, float]:
    """Of every golden file, oracle and backend the largest error over its limit."""
    worst: dict[str, float] = {}
    for what, used in re.findall(r"^((?:golden|oracle) \S+).* used ([\d.]+)", said, re.M):
        worst[what] = max(worst.get(what, 0.0), float(used))
    return worst


if __name__ == "__main__":
    sys.exit(run_command(main))
