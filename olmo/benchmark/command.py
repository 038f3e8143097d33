"""`scripts/benchmark.py`: measure the rows of a part, keep them in a file, and write the pages from the files."""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from olmo.benchmark.cases import PROFILES, Case, cases_of
from olmo.benchmark.data import decode, decode_cases, decode_key
from olmo.benchmark.loading import loading_key, wait_for_data
from olmo.benchmark.packing import TOPKS, pack, pack_key
from olmo.benchmark.render import write_page
from olmo.benchmark.results import ResultFile, Row, device_name
from olmo.benchmark.run import ARMS, measure, prepare
from olmo.benchmark.trace import name_stages, stage_names, trace
from olmo.exceptions import OLMoCliError, OLMoEnvironmentError
from olmo.host_memory import reuse_freed_memory
from olmo.launch import CommandParser

log = logging.getLogger(__name__)

PARTS = ("vit", "llm", "step", "generate", "decode", "pack", "published_case", "all")
RESULTS = "benchmarks/results"
PAGE = "docs/benchmarks.md"
DESCRIPTION = """\
Paired measurements of what pruning saves, on random weights and noise.

    python scripts/benchmark.py all --profile=smoke --output=smoke.json     every part in seconds, at toy sizes
    python scripts/benchmark.py published_case --profile=cpu
    python scripts/benchmark.py page                                        docs/benchmarks.md from all result files

Rows that the file has already are skipped, so an interrupted run goes on when it is started again."""


def build_parser() -> CommandParser:
    parser = CommandParser("benchmark.py", DESCRIPTION)
    parser.add_argument("part", choices=[*PARTS, "page"], help="what to measure, or `page` to write the page from the files")
    parser.add_argument("--profile", choices=list(PROFILES), default="smoke", help="which rows and at which sizes (smoke)")
    parser.add_argument("--output", help=f"file of the rows ({RESULTS}/<profile or device>.json)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of every row, after one that is dropped (3)")
    parser.add_argument("--minutes", type=float, help="begin no further row after this time; the next call goes on from there")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="only rows whose key has one of these in it")
    parser.add_argument("--fresh", action="store_true", help="measure rows again that the file has already")
    parser.add_argument("--profile_trace", metavar="FOLDER", help="instead of timing: a chrome trace of both arms of the chosen rows")
    parser.add_argument("--list", action="store_true", help="print the keys and stop")
    parser.add_argument("--page", default=PAGE, help=f"the page to write ({PAGE})")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.rounds < 1:
        raise OLMoCliError(f"--rounds must be at least 1, not {args.rounds}")
    if args.part == "page":
        print(f"wrote {write_page(Path(RESULTS), Path(args.page))}")
        return 0
    device = pick_device(args.profile)
    if device.type == "cpu":
        reuse_freed_memory()  # as training, evaluation and asking do
    with tempfile.TemporaryDirectory(prefix="clips_") as clips:
        rows = rows_of(args.part, args.profile, device, args.rounds, Path(clips))
        rows = {key: run for key, run in rows.items() if any(text in key for text in args.only)}
        if not rows:
            wanted = "' or '".join(args.only)
            raise OLMoCliError(f"profile {args.profile} has no row of part {args.part} with '{wanted}' in its key")
        if args.list:
            print("\n".join(rows))
            return 0
        if args.profile_trace:
            return profile_rows([c for c in cases_of(args.profile, args.part) if c.key in rows], device, Path(args.profile_trace))
        file = ResultFile(Path(args.output or default_output(args.profile, device)), device)
        waiting = [key for key in rows if args.fresh or key not in file.rows]
        print(f"{len(waiting)} of {len(rows)} rows to measure; {file.path} gets them one by one", flush=True)
        start = time.monotonic()
        for number, key in enumerate(waiting, start=1):
            if args.minutes is not None and time.monotonic() - start > 60 * args.minutes:
                print(f"{args.minutes:g} minutes are over: {len(waiting) - number + 1} rows are left", flush=True)
                break
            row = rows[key]()
            file.add(row)
            print(f"{number:>3} of {len(waiting)}  {describe(row)}", flush=True)
    return 0


def profile_rows(cases: Sequence[Case], device: torch.device, folder: Path) -> int:
    """Write `<key>-<arm>.json` for every arm and print the seconds of each stage."""
    for case in cases:
        pair = prepare(case, device)
        for model in pair.models:
            name_stages(model)
        stages = {}
        for name, run in zip(ARMS, pair.runs, strict=True):
            run()
            stages[name] = trace(run, folder / f"{case.key.replace('/', '-')}-{name}.json", device)
        print(f"{case.key}: seconds of {case.baseline} and {case.method}")
        for stage in stage_names():
            if any(stage in seconds for seconds in stages.values()):
                print(f"  {stage:<28} {stages['baseline'].get(stage, 0):9.3f} {stages['measured'].get(stage, 0):9.3f}")
    print(f"traces for chrome://tracing or ui.perfetto.dev: {folder}")
    return 0


def pick_device(profile: str) -> torch.device:
    if profile == "gpu" and not torch.cuda.is_available():
        raise OLMoEnvironmentError("profile gpu needs a GPU, and torch sees none here; take --profile=cpu or --profile=smoke")
    return torch.device("cuda" if profile == "gpu" else "cpu")


def default_output(profile: str, device: torch.device) -> str:
    return f"{RESULTS}/{device_name(device) if device.type == 'cuda' else profile}.json"


def rows_of(part: str, profile: str, device: torch.device, rounds: int, clips: Path) -> dict[str, Callable[[], Row]]:
    """Key -> what measures it, for every row of a part."""
    rows = {case.key: lambda case=case: measure(case, device, rounds) for case in cases_of(profile, part)}
    if part in ("decode", "all"):
        rows |= {decode_key(*case): lambda case=case: decode(*case, rounds, clips) for case in decode_cases(profile)}
        steps = 10 if profile == "smoke" else 100
        rows |= {loading_key(n): lambda n=n: wait_for_data(n, steps, clips) for n in (0, 2)}
    if part in ("pack", "all"):
        examples = 300 if profile == "smoke" else 2000
        rows |= {pack_key(k): lambda k=k: pack(k, rounds, examples) for k in TOPKS}
    return rows


def describe(row: Row) -> str:
    """One line."""
    line = f"{row.key:<58} {row.seconds_median:9.3f} s"
    if row.speedup is not None:
        line += f"  {row.speedup:5.2f}x over {row.baseline}"
    if row.ideal_fraction is not None:
        line += f" ({100 * row.ideal_fraction:.0f} % of the ideal {row.ideal_speedup:.2f}x)"
    return line
