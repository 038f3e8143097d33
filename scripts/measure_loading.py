"""How much memory loading a checkpoint takes, for a generated checkpoint in every format.

    python scripts/measure_loading.py [--parameters=1e9] [--dtype=bfloat16] [--stored=float32] [--formats=sharded,unsharded,...]

Each format is written, loaded in a fresh process and deleted, one after the other. What counts is anonymous memory above what
the process has after its imports: pages of mapped files can be dropped at any time and are no burden. The table says how many
times the size of the loaded parameters that was at most; the project's limit is 1.2. Needs room for one checkpoint in --folder.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from olmo.exceptions import OLMoCheckpointError, OLMoCliError
from olmo.host_memory import status_bytes
from olmo.launch import CommandParser, run_command

FORMATS = ("sharded", "unsharded", "safetensors", "safetensors_parts", "huggingface", "huggingface_parts")
DTYPES = ("float32", "bfloat16", "float16")
LIMIT = 1.2


def build_parser() -> CommandParser:
    parser = CommandParser("measure_loading.py", __doc__)
    parser.add_argument(
        "--parameters", type=float, default=1e9, help="about this many (1e9); from 8e8 on with the ViT of the released models"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the loaded model (bfloat16)")
    parser.add_argument("--stored", choices=DTYPES, default="float32", help="of the files (float32, as training writes them)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="separated by commas (all)")
    parser.add_argument("--folder", help="where to write the checkpoints (a temporary folder)")
    parser.add_argument("--output", default="benchmarks/results/loading_memory.json", help="the measured numbers")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--load", help="only load this checkpoint and print its numbers (what the fresh processes do)")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.load:
        print(json.dumps(measure(Path(args.load), args.dtype)))
        return 0
    formats = args.formats.split(",")
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise OLMoCliError(f"--formats: {unknown[0]} is none of {', '.join(FORMATS)}")
    results = []
    print(f"{'format':<18} {'parameters':>13} {'loaded':>9} {'anonymous':>10} {'times':>6}")
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="measure_loading_") as root:
        for kind in formats:
            folder = Path(root) / kind
            config = generate(folder, kind, int(args.parameters), args.stored)
            results.append({"format": kind} | in_fresh_process(folder, args.dtype))
            shutil.rmtree(folder)
            r = results[-1]
            print(
                f"{kind:<18} {r['parameters']:>13,} {r['loaded_bytes'] / 1e9:>6.2f} GB {r['anonymous_bytes'] / 1e9:>7.2f} GB "
                f"{r['times']:>6.3f}",
                flush=True,
            )
    write_results(Path(args.output), args, config, results)
    worst = max(r["times"] for r in results)
    print(f"at most {worst:.3f} times the loaded parameters (limit {LIMIT}); numbers in {args.output}")
    return 0 if worst <= LIMIT else 1


def write_results(file: Path, args, config, results: list[dict]) -> None:
    import torch

    from olmo.benchmark.results import environment

    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "what": "anonymous memory above the import baseline while olmo.checkpoints.load_model runs, at most",
        "stored": args.stored,
        "dtype": args.dtype,
        "limit": LIMIT,
        "llm_layers": config.llm.n_layers,
        "environment": environment(torch.device("cpu")),
        "results": results,
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


# ---------------------------------------------------------------------------------------------- generating


def generate(folder: Path, kind: str, parameters: int, stored: str):
    """Write a checkpoint of random weights; returns its model config."""
    import torch
    import yaml

    from olmo.benchmark.sized import sized_config
    from olmo.convert.safetensors_file import write_safetensors_files
    from olmo.convert.writers import write_checkpoint
    from olmo.hf_model.config import to_hf_config
    from olmo.hf_model.names import EMBEDDING, LM_HEAD, stored_name
    from olmo.weights import WeightSource

    config = sized_config(parameters)

    class Random(WeightSource):
        """Weights that are drawn when they are read, the same every time; `renamed`: as Hugging Face folders call them."""

        format = "random"

        def __init__(self, renamed: bool) -> None:
            self.folder = folder
            shapes = {n: tuple(p.shape) for n, p in config.build_model("meta").named_parameters()}
            self.ours = {stored_name(n) if renamed else n: n for n in shapes} | ({LM_HEAD: EMBEDDING} if renamed else {})
            self.shapes = {name: shapes[ours] for name, ours in self.ours.items()}
            self.dtypes = dict.fromkeys(self.shapes, getattr(torch, stored))

        def read(self, name: str) -> torch.Tensor:
            generator = torch.Generator().manual_seed(crc32(self.ours[name].encode()))
            return torch.empty(self.shapes[name], dtype=self.dtypes[name]).normal_(0, 0.02, generator=generator)

    max_bytes = 10**9 if kind.endswith("_parts") else 10**12
    if kind.startswith("huggingface"):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(to_hf_config(config)))
        write_safetensors_files(folder, Random(renamed=True), lambda _: None, max_bytes)
    else:
        write_checkpoint(Random(renamed=False), {"model": yaml.safe_load(config.to_yaml())}, folder, kind.removesuffix("_parts"), max_bytes)
    return config


# ---------------------------------------------------------------------------------------------- measuring


def in_fresh_process(folder: Path, dtype: str) -> dict:
    command = [sys.executable, __file__, f"--load={folder}", f"--dtype={dtype}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise OLMoCheckpointError(f"loading {folder.name} failed: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


class Peak(threading.Thread):
    """Looks at the memory every few milliseconds: copying releases the interpreter's lock."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.looks, self.ended = 0, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.002):
            self.highest, self.looks = max(self.highest, status_bytes("RssAnon")), self.looks + 1

    def stop(self) -> int:
        self.ended.set()
        self.join()
        return max(self.highest, status_bytes("RssAnon"))


def measure(folder: Path, dtype: str) -> dict:
    """Load the checkpoint here, and compare anonymous memory with what the imports had taken."""
    import torch

    import olmo.hf_model.source
    import olmo.models.molmo2.model  # noqa: F401 (part of the baseline)
    from olmo.checkpoints import load_config, load_model

    load_config(folder).build_model("meta")
    baseline, peak = status_bytes("RssAnon"), Peak()
    peak.start()
    model = load_model(folder, dtype=getattr(torch, dtype))
    highest = peak.stop() - baseline
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    spread = torch.cat([p.detach().flatten()[:: max(1, p.numel() // 1000)].float() for p in model.parameters()]).std()
    if not 0.015 < float(spread) < 0.025:
        raise OLMoCheckpointError(f"{folder} did not give back the weights that were written")
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loaded_bytes": size,
        "anonymous_bytes": highest,
        "times": highest / size,
        "looks": peak.looks,
        "baseline_bytes": baseline,
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
