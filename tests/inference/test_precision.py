"""Asking in every precision: what the weights are, that it answers, and that an evaluation takes and records it."""

import pytest
import torch

from olmo.eval.command import parse
from olmo.exceptions import OLMoCliError, OLMoConfigurationError
from olmo.inference.api import PRECISIONS, load, precision_of
from tests.inference.tiny import videos, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("precision")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return write_checkpoint(folder / "run")


@pytest.fixture(scope="module")
def video(folder):
    return videos(folder / "videos", 1).get(0, None)["video"]


@pytest.mark.parametrize("precision", [None, *PRECISIONS])
def test_asking(checkpoint, video, precision):
    """Seen to fail with the weights left in fp32 for bf16."""
    qa = load(checkpoint, device="cpu", precision=precision)
    seen = []
    qa.model.transformer.ln_f.register_forward_hook(lambda _, args, out: seen.append(args[0].dtype))
    answer = qa.ask(video, "Which way?", max_new_tokens=2)
    assert {p.dtype for p in qa.model.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}  # autocast leaves this stream in fp32
    assert qa.autocast == (torch.bfloat16 if precision == "amp_bf16" else None)
    assert answer.keep_cells[0].all() and answer.scores.dtype == "float32"


def test_default_and_mistakes(checkpoint):
    assert precision_of(CPU) == "fp32" and precision_of(torch.device("cuda")) == "amp_bf16" and precision_of(CPU, "bf16") == "bf16"
    with pytest.raises(OLMoConfigurationError, match="precision 'fp8' is unknown; use fp32, amp_bf16, bf16"):
        load(checkpoint, precision="fp8")


def test_evaluation_takes_it(checkpoint):
    args, *_ = parse([str(checkpoint), "--precision=bf16"])
    assert args.precision == "bf16" and parse([str(checkpoint)])[0].precision is None
    with pytest.raises(OLMoCliError, match="fp8"):
        parse([str(checkpoint), "--precision=fp8"])
