"""The checks for GPUs, as far as a machine without one can tell: its parts exist, and their commands are legal."""

from pathlib import Path

import pytest
import torch

from olmo.benchmark.cases import cases_of
from olmo.launch import run_command
from scripts import gpu_check
from scripts.gpu_check import PARTS, main, worst_errors

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PARTS)
def test_parts_name_what_is_there(name):
    part = PARTS[name]
    assert bool(part.command) != bool(part.function)
    files = [word for word in part.command if word.endswith(".py")]
    assert all((REPO / file).is_file() for file in files)
    if files == ["scripts/benchmark.py"]:
        from olmo.benchmark.command import build_parser

        args = build_parser().parse_args(part.command[1:])
        assert args.profile == "gpu" and 60 * args.minutes < gpu_check.LIMIT and cases_of("gpu", args.part)
    if files == ["scripts/compare_numerics.py"]:
        from scripts.compare_numerics import parse

        assert parse(part.command[1:]).size == "4b"


def test_what_the_functions_do_on_small_models():
    """The same code on a CPU: a step in bf16, bytes of both arms, and a loss that falls."""
    case = next(c for c in cases_of("smoke", "step") if c.method == "scorer")
    cpu = torch.device("cpu")
    gpu_check.pruned_step(cpu)()
    unpruned, pruned = gpu_check.saved_bytes(case, cpu)
    assert 0 < pruned < unpruned
    losses = gpu_check.train(case, cpu, steps=6)["losses"]
    assert losses[-1] < losses[0]


def test_every_part_of_the_gpu_profile_is_run():
    assert {case.part for case in cases_of("gpu", "all")} <= PARTS.keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_sentence(capsys):
    assert run_command(main, ["sync"]) == 1
    assert "torch sees no GPU here" in capsys.readouterr().err
    assert run_command(main, ["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PARTS)


def test_the_largest_errors_are_read_off():
    said = "golden vit_clip hidden_1: error 1e-6, limit 4e-6, used 0.250\ngolden vit_clip hidden_2: error 2e-6, limit 4e-6, used 0.500\n"
    assert worst_errors(said + "oracle Siglip as siglip2 block 0: error 0, limit 1, used 0.000") == {
        "golden vit_clip": 0.5,
        "oracle Siglip": 0.0,
    }
