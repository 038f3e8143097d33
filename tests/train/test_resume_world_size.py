"""The same global batch on one, two and four ranks: fresh runs, and one run that is resumed on more and more of them.

Rows of several examples, half of the cells pruned. What the order of sums does to numbers is told from mistakes by
repeating everything in double precision.
"""

import shutil
from pathlib import Path

import pytest
import torch

from olmo.distributed import World
from tests.train.command import CONFIG
from tests.train.ranks import ALONE, run_ranks
from tests.train.witness import Row, Seen, witness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test waits for runs of one, two and four ranks

STEPS, GLOBAL_ROWS = 12, 4
PHASES = {1: 4, 2: 8, 4: STEPS}
"""Number of ranks -> step up to which they train the run that changes ranks."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}
WORDS = (
    *("--packing", "--data.packing.buffer_size=5", "--data.packing.max_frames=16", "--seq_len=500", f"--max_duration={STEPS}"),
    *(f"--global_batch_size={GLOBAL_ROWS}", "--device_batch_size=1", "--save_interval=4", "--save_final_optim=true"),
    *("--data.isolate_decoding=false", "--activation_checkpointing=false"),
)
"""The last two save time: a child process, and passes that are repeated."""


def run(world: World, folder: Path, *more: str) -> list[Seen]:
    """The training command in this rank. A model is as wide as torch's default type, since nothing in a config widens it."""
    from rich.console import Console

    from olmo.train.run import train
    from olmo.train.sft import build_train_config, parse

    words = [str(CONFIG), "moving_shapes", f"--save_folder={folder}", "--use_temporal_video_olmo", *WORDS, *more]
    with witness() as seen:
        train(build_train_config(*parse(words)), world, Console(quiet=True))
    return seen


def runs(world: World, folder: Path, names: dict[str, int]) -> None:
    """Runs (name-dtype) up to a step, going on from what is in their folder."""
    for name, stop in names.items():
        torch.set_default_dtype(DTYPES[name.split("-")[1]])
        try:
            seen = run(world, folder / name, f"--stop_at={stop}")
        finally:
            torch.set_default_dtype(torch.float32)
        torch.save([vars(s) for s in seen], folder / f"{name}-{world.size}ranks-{world.rank}.pt")


@pytest.fixture(scope="module")
def folder(shapes_folder, tmp_path_factory):
    """One rank trains to the end; from its step 4 two ranks go on to step 8, and four to step 12."""
    folder = tmp_path_factory.mktemp("world_sizes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLMO_DATA_DIR", str(shapes_folder))
        runs(ALONE, folder, {"one-float32": STEPS, "one-float64": STEPS})
        growing = shutil.copytree(folder / "one-float64", folder / "growing-float64")
        for step in (8, 12):
            shutil.rmtree(growing / f"step{step}")
        run_ranks(2, runs, folder, {"two-float32": STEPS, "two-float64": STEPS, "growing-float64": PHASES[2]})
        run_ranks(4, runs, folder, {"four-float32": STEPS, "four-float64": STEPS, "growing-float64": PHASES[4]})
    return folder


def seen_by(folder: Path, name: str, dtype: str, ranks: int) -> list[list[Seen]]:
    """Steps, each as every rank saw it."""
    files = [torch.load(folder / f"{name}-{dtype}-{ranks}ranks-{r}.pt", weights_only=True) for r in range(ranks)]
    return [[Seen(**s) for s in step] for step in zip(*files, strict=True)]


def both(folder: Path, name: str, dtype: str) -> list[tuple[Seen, list[Seen]]]:
    """Every step on one rank, beside the same step of the named run."""
    alone = [step[0] for step in seen_by(folder, "one", dtype, 1)]
    if name == "growing":
        shared = [[step] for step in alone[: PHASES[1]]] + [s for n in (2, 4) for s in seen_by(folder, name, dtype, n)]
    else:
        shared = seen_by(folder, name, dtype, {"two": 2, "four": 4}[name])
    assert [s.step for s in alone] == [s[0].step for s in shared] == list(range(1, STEPS + 1))
    return list(zip(alone, shared, strict=True))


RUNS = pytest.mark.parametrize("name", ["two", "four", "growing"])
LOSSES = ("train/CrossEntropyLoss", "train/AuxLoss")
NORMS = tuple(f"optim/{part}_grad_norm" for part in ("llm", "vit", "connector", "temporal_token_scorer"))


@RUNS
def test_resume_on_more_ranks_sees_the_same_examples(folder, name):
    """Rows and their order: ranks are dealt them in rounds, so the i-th rows of all ranks are the i-th part of what one rank has."""
    for alone, ranks in both(folder, name, "float64"):
        each = GLOBAL_ROWS // len(ranks)
        assert [len(r.rows) for r in ranks] == [each] * len(ranks)
        for i in range(each):
            part = alone.rows[i * len(ranks) : (i + 1) * len(ranks)]
            assert sorted(r.rows[i] for r in ranks) == sorted(part), (alone.step, i)
    rows = [row for alone, _ in both(folder, name, "float64") for row in alone.rows]
    assert sum(len(row) > 1 for row in rows) > len(rows) / 2, "examples share rows"


def kept_cells(*ranks: Seen) -> list[tuple[Row, list[bool]]]:
    return sorted((row, kept) for r in ranks for row, kept in zip(r.rows, r.kept, strict=True))


@pytest.mark.parametrize(("name", "dtype", "steps"), [("two", "float32", 1), ("four", "float32", 1), ("growing", "float64", STEPS)])
def test_resume_on_more_ranks_keeps_the_same_cells(folder, name, dtype, steps):
    """In the first step, and in double precision in all twelve."""
    for alone, ranks in both(folder, name, dtype)[:steps]:
        assert kept_cells(alone) == kept_cells(*ranks), alone.step
        assert all(0 < sum(row) < len(row) for row in alone.kept)


@pytest.mark.parametrize(
    ("name", "dtype", "first", "later"),
    [
        *[(name, "float32", 1e-6, 1e-4) for name in ("two", "four")],
        *[(name, "float64", 1e-9, 1e-9) for name in ("two", "four", "growing")],
    ],
)
def test_resume_on_more_ranks_has_the_same_losses(folder, name, dtype, first, later):
    """Of all steps; norms of gradients too, for which single precision is ten times less exact."""
    far = 0.0
    for alone, ranks in both(folder, name, dtype):
        for key in LOSSES + NORMS:
            limit = (first if alone.step == 1 else later) * (10 if key in NORMS and dtype == "float32" else 1)
            expected = alone.metrics[key]
            far = max(far, *(abs(r.metrics[key] / expected - 1) for r in ranks))
            assert [r.metrics[key] for r in ranks] == [pytest.approx(expected, rel=limit, abs=0)] * len(ranks), (alone.step, key)
    print(f"{name} {dtype}: relative differences of at most {far:.1e}")
