"""The three precisions a model runs in: fp32, bf16 autocast as published, and weights in bf16. See docs/numerics.md."""

from contextlib import nullcontext

import pytest
import torch

from olmo.inference.generation import generate
from olmo.nn import attention, temporal_image_vit
from tests.models import builders
from tests.models.builders import Example

FP32, BF16 = torch.float32, torch.bfloat16
MODES = {"fp32": (FP32, FP32, FP32), "autocast": (BF16, BF16, FP32), "bf16": (BF16, BF16, BF16)}
"""mode -> dtypes of the ViT's stream, of the visual features, and of the language model's residual stream."""
METHODS = ("scorer", "easy", "heuristic", "random", "evs", "tome")


def model_in(mode: str, **kwargs):
    """The same random weights in every mode."""
    return builders.model(**kwargs).to(BF16 if mode == "bf16" else FP32)


def cast(mode: str):
    return torch.autocast("cpu", BF16) if mode == "autocast" else nullcontext()


def batch():
    return builders.batch([Example(6)], [Example(5, (4, 6), seed=3)])


def outputs_of(model) -> dict[str, torch.Tensor]:
    """Filled with what every module returns."""
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out}))
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_streams(mode):
    """Which stream is in which precision, and that norms, rope and logits are in fp32 in all. Seen to fail with rope tables cast
    to the input's dtype, and with logits left in the dtype of the weights."""
    model = model_in(mode)
    seen, ropes = outputs_of(model), []
    model.transformer.blocks[0].register_forward_pre_hook(lambda _, args: ropes.append(args[1]))
    with torch.no_grad(), cast(mode):
        output = model(batch(), logits="all")
    vit, features, language = MODES[mode]
    assert {seen[f"vision_backbone.image_vit.transformer.resblocks.{i}"].dtype for i in range(4)} == {vit}
    assert output.vision.features.dtype == features
    assert {seen[f"transformer.blocks.{i}"].dtype for i in range(2)} == {seen["transformer.ln_f"].dtype} == {language}
    assert ropes[0].cos.dtype == ropes[0].sin.dtype == output.logits.dtype == FP32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_scores_and_selection_are_fp32(mode, method, monkeypatch):
    """What is sorted, what becomes the bias, and what the auxiliary loss compares. Seen to fail with the scorer's last layer under
    autocast, and with similarities of bf16 patches multiplied in bf16."""
    sorted_by, biases, similarities = [], [], []

    def spy(module, name: str, found: list, pick=lambda out, args: out):
        original = getattr(module, name)

        def call(*args, **kwargs):
            out = original(*args, **kwargs)
            found.append(pick(out, args).dtype)
            return out

        monkeypatch.setattr(module, name, call)

    spy(temporal_image_vit, "select", sorted_by, lambda out, args: args[0].scores)
    spy(temporal_image_vit, "log_score_bias", biases)
    spy(temporal_image_vit, "neighbour_similarity", similarities)
    model = model_in(mode, vit=dict(prune_method=method)).train()
    with cast(mode):
        output = model(batch(), compute_loss=True)
    learned = method == "scorer"
    assert sorted_by == [FP32] and output.vision.scores.dtype == FP32
    assert biases == similarities == ([FP32] if learned else [])
    assert not learned or output.aux_loss.dtype == FP32
    assert output.loss.ce.dtype == FP32


@pytest.mark.parametrize("mode", ["autocast", "bf16"])
def test_scores_do_not_tie(mode):
    """Rounded to bf16 many cells share a score; in fp32 each has its own, though the rest of the scorer ran in bf16."""
    with torch.no_grad(), cast(mode):
        vision = model_in(mode)(builders.batch([Example(40)]), logits="last").vision
    scores = vision.scores[1:].flatten()
    assert len(scores.unique()) > 0.98 * len(scores)
    assert len(scores.bfloat16().unique()) < 0.8 * len(scores)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_kept_is_allowed_by_rounded_scores(mode):
    """Rounding keeps order, so no cell leaves whose score, rounded to bf16, is higher than that of one that stays."""
    with torch.no_grad(), cast(mode):
        vision = model_in(mode)(builders.batch([Example(40)]), logits="last").vision
    scores, keep = vision.scores[1:].bfloat16().flatten(), vision.keep_rows[0].view(40, -1)[1:].flatten()
    assert scores[~keep].max() <= scores[keep].min() and 0 < keep.sum() < keep.numel()


def test_the_bias_keeps_its_small_differences(monkeypatch):
    """Where attention is in bf16 the bias travels as two numbers, so that it is finer than bf16. Seen to fail with the first alone."""
    keys, given, original = [], [], attention.append_key_bias

    def spy(q, k, v, bias, scale):
        out = original(q, k, v, bias, scale)
        keys.append(out[1][..., v.shape[-1] :].float().sum(-1) * scale)
        given.append(bias[..., 0])
        return out

    monkeypatch.setattr(attention, "append_key_bias", spy)
    with torch.no_grad(), cast("autocast"):
        model_in("autocast")(batch(), logits="last")
    assert given[0].dtype == FP32 and len(given) == 1
    error = (keys[0] - given[0]).abs().max()
    assert error < 1e-4 < (given[0].bfloat16().float() - given[0]).abs().max()


@pytest.mark.parametrize("mode", ["autocast", "bf16"])
def test_bf16_is_near_fp32(mode):
    """With the same cells kept (a method that looks at no numbers), errors are those of rounding. Seen to fail with heads
    in half precision scaled as if they were 8 channels wider."""
    outputs = []
    for precision in ("fp32", mode):
        model = model_in(precision, vit=dict(prune_method="random"))
        with torch.no_grad(), cast(precision):
            outputs.append(model(batch(), logits="all"))
    reference, output = outputs
    assert torch.equal(output.vision.keep_rows, reference.vision.keep_rows)
    cosine = torch.cosine_similarity(output.vision.features.float(), reference.vision.features, dim=-1)
    rms = ((output.logits - reference.logits).square().mean() / reference.logits.square().mean()).sqrt()
    print(f"{mode}: cosine of features {cosine.mean():.6f}, relative RMS of logits {rms:.4f}")
    assert cosine.mean() > 0.999 and rms < 0.05


@pytest.mark.parametrize("mode", MODES)
def test_generation_runs(mode):
    with torch.inference_mode(), cast(mode):
        output = generate(model_in(mode), builders.batch([Example(6)], subsegments=False), 4)
    assert len(output.token_ids[0]) == 4 and output.vision.scores.dtype == FP32
