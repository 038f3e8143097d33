"""Nothing in a training step or in decoding asks the device for a number: fake tensors have no values to give away."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from olmo.models.temporal_video_olmo import compaction
from olmo.nn import attention, attention_mask, indices
from tests.models.builders import Example, batch, config

VARIANTS = {
    "pruned": dict(compact_positions=True),
    "merged": dict(vit=dict(prune_method="tome")),
    "bias only": dict(vit=dict(pruning_in_scorer=False)),
}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """What CPUs alone do is switched off: checks of the layout, attention one segment at a time."""
    for module in (indices, compaction, attention_mask):
        monkeypatch.setattr(module, "check_total", lambda *args: None)
    monkeypatch.setattr(attention, "choose_backend", lambda *args: "padded")


def step(variant: str, pad_to: int | None = None) -> None:
    mode = FakeTensorMode()
    b = batch([Example(4, (4, 3), 1), Example(2, (5,), 2)], [Example(3, (4,), 3)])
    with mode:
        b = b.map_tensors(mode.from_tensor)
        m = config(**VARIANTS[variant]).build_model("cpu").train()
        out = m(b, compute_loss=True, pad_to=pad_to)
        (out.loss.ce + out.loss.z + (out.aux_loss if out.aux_loss is not None else 0)).backward()
        m.eval()
        with torch.no_grad():
            assert m(b, logits="all").logits.shape == (sum(out.tokens_after), 64)
            _, state, _ = m.prefill(b, 2)
            assert m.decode_step(torch.zeros(2, dtype=torch.long), state).shape == (2, 64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_reads_nothing_back(variant, as_on_a_gpu):
    """Seen to fail with boolean indexing instead of `kept_indices`, and with lengths taken from the mask."""
    step(variant, pad_to=90)


def test_reading_a_number_would_be_noticed(as_on_a_gpu, monkeypatch):
    """Negative control: boolean indexing and `.item()` raise here."""
    monkeypatch.setattr(indices, "kept_indices", lambda mask, total: mask.nonzero()[:, 0])
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        step("pruned")
    monkeypatch.undo()
    with pytest.raises(DataDependentOutputException):
        step("pruned")  # the checks of the CPU path do read
