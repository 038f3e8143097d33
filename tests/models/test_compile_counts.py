"""How often compilation happens: shapes that depend on the batch must not make new graphs.

With `TEST_DEVICE=cuda` the compiled model runs on the GPU, under block-sparse masks, and the one that it is compared with on the CPU.
"""

import shutil
from collections import Counter

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend
from torch._guards import CompileContext

from olmo.models.molmo2.parallelize import parallelize_model
from olmo.nn import attention
from olmo.nn.attention_mask import flex_block_mask
from tests.device import DEVICE
from tests.models import sharded
from tests.models.builders import Example, batch, model

PAD_TO = 160
NEEDS_CPP = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")


class CountingBackend:
    """A backend (forward and backward) that notes which compiled function every graph belongs to."""

    def __init__(self, name: str):
        self.ids: set[tuple[int, int]] = set()
        self.compile = lookup_backend(name)

    def __call__(self, graph, inputs):
        # a set: a compilation may start over with another idea of a float, and only its last graph is used
        current = CompileContext.current_compile_id()
        self.ids.add((current.frame_id, current.frame_compile_id))
        return self.compile(graph, inputs)

    @property
    def graphs(self) -> Counter[int]:
        """Graphs of every compiled function."""
        return Counter(function for function, _ in self.ids)


def batches(count: int, rows: int = 2):
    """Different frame counts, text lengths and kept totals; single frames, text alone and packed examples among them."""
    g = torch.Generator().manual_seed(7)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=g))

    for i in range(count):
        examples = [[Example(pick(0, 6), (pick(3, 9),) * pick(1, 3), pick(0, 999))] for _ in range(rows)]
        if i % 5 == 0:
            examples[0].append(Example(pick(1, 4), (pick(3, 6),), i))
        if i % 10 == 3:
            examples = [[Example(i % 20 // 10, (pick(3, 9),), i)], [Example(0, (pick(3, 9),), i)]]
        yield batch(*examples)


def step(m, b, pad_to: int | None) -> dict[str, torch.Tensor]:
    """Loss and gradients of one batch."""
    m.zero_grad()
    loss = sharded.loss_of(m(b.to(next(m.parameters()).device), compute_loss=True, pad_to=pad_to))
    loss.backward()
    return {"loss": loss.detach().cpu()} | {n: p.grad.cpu() for n, p in m.named_parameters() if p.grad is not None}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Numbers up to rounding, relative to the largest entry of each tensor."""
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-4, atol=1e-4 * max(1, x.abs().max().item()), msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The backend of pruned frames that reads no lengths."""
    monkeypatch.setattr(attention, "choose_backend", lambda *args: "padded")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("count", "recompute", "pad_to", "backend"),
    [
        pytest.param(50, "none", PAD_TO, "aot_eager", id="fifty", marks=pytest.mark.slow),
        pytest.param(14, "none", None, "aot_eager", id="every length", marks=pytest.mark.slow),
        pytest.param(14, "full", PAD_TO, "aot_eager", id="full", marks=pytest.mark.slow),
        pytest.param(14, "selective", PAD_TO, "aot_eager", id="selective", marks=pytest.mark.slow),
        pytest.param(14, "none", PAD_TO, "inductor", id="inductor", marks=[pytest.mark.slow, NEEDS_CPP]),
    ],
)
def test_batches_make_few_graphs(count, recompute, pad_to, backend, as_on_a_gpu):
    """At most three graphs per compiled part, none after the first batches, and the numbers of the model as it stands.

    Without a graph break (`fullgraph`). Seen to fail with `dynamic=None` for the ViT, with single frames compiled, with sizes that
    are equal by chance in the first batch (kept cells and width), and with one code object for all recomputed modules.
    """
    backend = CountingBackend(backend)
    vit = dict(activation_checkpointing=True, image_num_layers=5)
    plain, compiled = model(vit=vit).train(), model(vit=vit).train().to(DEVICE)
    parallelize_model(plain, activation_checkpointing="none")
    arguments = dict(backend=backend, dynamic=pad_to is None, fullgraph=True)
    parallelize_model(compiled, compile_args=arguments, activation_checkpointing=recompute)
    for i, b in enumerate(batches(count)):
        found = step(compiled, b, pad_to)
        if i % 10 == 3 or i < 2:
            same(found, step(plain, b, pad_to))
        if i == 6:
            early = backend.graphs.total()
    assert backend.graphs.total() == early, "compiled again"
    # dense, biased and packed ViT blocks; scorer, pooling, projector and the loss's two functions; decoder blocks
    assert sorted(backend.graphs.values()) == [1, 1, 1, 1, 1, 1 if pad_to else 2, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_block_masks_make_one_graph(as_on_a_gpu, monkeypatch):
    """Decoder blocks under the masks of GPUs, a new one for every batch, are one graph with the numbers of dense masks.

    Forward only: flex attention has no backward pass on CPUs, and inductor's CPU kernel for it is wrong where queries are computed
    in the same graph (torch 2.13). Seen to fail with the compiled kernel made on its first use within a block: two graphs.
    """
    backend = CountingBackend("aot_eager")
    plain, compiled = model(vit=dict(image_num_layers=5)), model(vit=dict(image_num_layers=5))
    parallelize_model(compiled, compile_args=dict(backend=backend, dynamic=False, fullgraph=True), activation_checkpointing="none")
    monkeypatch.setattr(compiled, "attention_mask", lambda tokens, batch: flex_block_mask(tokens, compiled._bidirectional))
    for b in batches(8):
        with torch.no_grad():
            found, expected = (m(b, compute_loss=True, pad_to=PAD_TO).loss.ce for m in (compiled, plain))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert sorted(backend.graphs.values()) == [1, 1, 1, 1, 1, 3]
