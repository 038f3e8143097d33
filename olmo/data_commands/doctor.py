"""`scripts/data_doctor.py`: examine every data set of a mixture with the preprocessor of a config, and print what was found."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from olmo.data.paths import is_data_file
from olmo.data_commands.tables import print_table
from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser, setup_logging

log = logging.getLogger(__name__)

DESCRIPTION = """\
Find out whether data are well: a data set (name or name:split), a mixture, or a file of your own.

    python scripts/data_doctor.py moving_shapes_debug --decode
    python scripts/data_doctor.py all-v5-video-academic-only --config stts_50 --json

Examples pass through the preprocessor of --config, which is what counts their frames and tokens. The exit status is 0 when all is well.
"""
EPILOG = "Every other word sets a key of the config: --data.sequence_length=9686, --model.mm_preprocessor.video.max_frames=64.\n"


def build_parser() -> CommandParser:
    parser = CommandParser("data_doctor.py", DESCRIPTION, EPILOG)
    parser.add_argument("data", help="data set, mixture, or a file that describes data")
    parser.add_argument("--config", default="tiny", help="config, YAML file or checkpoint whose preprocessor is used (tiny)")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="examples of each data set that are read (20)")
    parser.add_argument("--decode", action="store_true", help="decode their videos too, not only open them")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and more log lines")
    return parser


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, `key=value` overrides of the config)."""
    args, overrides = build_parser().parse_with_overrides(argv)
    if args.sample < 1:
        raise OLMoCliError(f"--sample must be at least 1, not {args.sample}")
    return args, overrides


def main(argv: Sequence[str]) -> int:
    args, overrides = parse(argv)
    # Torch and everything above it is imported from here on, so that --help and mistakes answer at once.
    from olmo.train import sft

    console = setup_logging(debug=args.debug, stderr=args.json)
    cfg = sft.build_train_config(sft.parse([args.config, args.data])[0], overrides)
    report = {"mixture": args.data, "config": args.config} | examine_all(cfg, args.sample, args.decode)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        show(report, console)
    return int(any(d["status"] != "ok" for d in report["datasets"]))


def examine_all(cfg: Any, sample: int, decode: bool) -> dict[str, Any]:
    """Examine all data sets of a `TrainConfig`: what `--json` prints about them."""
    from olmo.data.doctor import ProbingLoader, examine, rates_of, split_of
    from olmo.data.examples import Limits
    from olmo.data.mixtures import KwargsMixture, WeightedDataset, build_mixture
    from olmo.models.molmo2.preprocessor import build_collator, build_llm_tokenizer, build_preprocessor

    groups = cfg.data.groups()
    tokenizer = build_llm_tokenizer(cfg.model.llm, fallback_tiny=True)
    if tokenizer.fallback_for is not None:
        log.warning("the tokenizer %s is not here: text is counted with the tiny one, which makes more tokens", tokenizer.fallback_for)
    loader = cfg.data.video_loader(cfg.model.mm_preprocessor.video.reader_backend)
    if not decode:
        loader = ProbingLoader(loader.config)
    # No seq_len: lengths are those of whole examples.
    trained = build_preprocessor(cfg.model, is_training=True, load_video=loader, tokenizer=tokenizer)
    asked = build_preprocessor(cfg.model, for_inference=True, load_video=loader, tokenizer=tokenizer)
    max_frames = None if cfg.data.packing is None else cfg.data.packing.max_frames or trained.max_frames
    limits = Limits(cfg.data.sequence_length, max_frames, build_collator(trained).vision_ids)

    def open_set(name: str, split: str):
        """As training opens it, alone; an empty one too."""
        alone = KwargsMixture(1.0, [WeightedDataset(name, root_size_factor=0.0)], name)
        (member,) = build_mixture([alone], split, cfg.data.moving_shapes)
        return member.dataset

    entries = [entry for group in groups for entry in group.datasets]
    found = []
    for number, entry in enumerate(entries, start=1):
        log.info("%d of %d: %s", number, len(entries), entry.dataset_name)
        split = split_of(entry.dataset_name, cfg.data.split)
        # Other splits are what is asked in an evaluation: no answers are needed there, and no rows are packed.
        way = (trained, limits) if split == "train" else (asked, Limits())
        found.append(examine(entry.dataset_name, split, open_set, *way, sample=sample, seed=cfg.data.seed))
    rates = rates_of(groups, {d.name: d.expected if d.examples is None else d.examples for d in found})
    for diagnosis in found:
        diagnosis.rate = rates[diagnosis.name]
    return {
        "sequence_length": cfg.data.sequence_length,
        "decoded": decode,
        "unknown_sizes": [name for name, rate in rates.items() if rate is None],
        "datasets": [asdict(d) for d in found],
    }


def show(report: Mapping[str, Any], console: Any) -> None:
    """A table, and the list of problems."""
    header = ["data set", "status", "share", "examples", "videos", "read", "frames", "tokens", "after pruning", "too long"]
    rows = []
    for d in report["datasets"]:
        videos = "" if d["videos"] is None else f"{d['videos'] - d['videos_missing']}/{d['videos']}"
        examples = "" if d["examples"] is None else f"{d['examples']}" + (f"/{d['expected']}" if d["expected"] is not None else "")
        lengths = [_lengths(d[key]) for key in ("frames", "tokens", "tokens_after_pruning")]
        read = f"{d['readable']}/{d['sampled']}" if d["sampled"] else ""
        name = d["name"] if is_data_file(d["name"]) or ":" in d["name"] else f"{d['name']}:{d['split']}"
        rows.append([name, d["status"], _percent(d["rate"]), examples, videos, read, *lengths, _percent(d["over_sequence_length"])])
    print_table(console, header, rows)
    print("frames and tokens: median/95th percentile/longest")
    datasets = report["datasets"]
    if unknown := len(report["unknown_sizes"]):
        print(f"shares are among the {len(datasets) - unknown} of {len(datasets)} data sets whose size is known")
    for d in datasets:
        for problem in d["problems"]:
            print(f"\n{d['name']}: {problem['what']}\n  -> {problem['do']}")
        if d["problems"] and d["caution"]:
            print(f"  note: {d['caution']}")
    bad = sum(d["status"] != "ok" for d in datasets)
    print(f"\n{bad} of {len(datasets)} data sets have problems" if bad else "\nall is well")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _lengths(lengths: Mapping[str, int] | None) -> str:
    return "" if lengths is None else f"{lengths['median']}/{lengths['p95']}/{lengths['max']}"
