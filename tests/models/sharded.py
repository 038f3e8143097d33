"""What each rank of `test_parallelize.py` runs (a module of its own, so that spawned processes can import it)."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from olmo.distributed import World
from olmo.inference.generation import generate
from olmo.models.molmo2.parallelize import parallelize_model
from tests.models.builders import Example, batch, model

ROWS = (
    [Example(4, (4, 3), 1), Example(2, (5,), 2)],
    [Example(0, (6,), 3)],  # no video on the second rank
)
QUESTIONS = ([Example(3, (4,), 5)], [Example(2, (3,), 6)])
CASES = {
    "tied": dict(llm=dict(activation_checkpoint="one_in_two")),
    "untied": dict(llm=dict(weight_tying=False)),
    "plain": dict(temporal=False),
}


def loss_of(output) -> torch.Tensor:
    loss = output.loss.ce + 0.1 * output.loss.z
    return loss if output.aux_loss is None else loss + output.aux_loss


def reference(case: str) -> tuple[list[float], dict[str, torch.Tensor], list]:
    """Losses, mean gradients and answers of one process that sees the rows of all ranks."""
    m = model(**CASES[case]).train()
    losses = []
    for row in ROWS:
        loss = loss_of(m(batch(row), compute_loss=True))
        (loss / len(ROWS)).backward()
        losses.append(loss.item())
    answers = [generate(m, batch(q, subsegments=False), 4).token_ids for q in QUESTIONS]
    return losses, {n: p.grad for n, p in m.named_parameters() if p.grad is not None}, answers


def run(world: World, folder: Path, _) -> None:
    """Loss, gradients and answers of this rank, for every case and precision."""
    mesh = init_device_mesh("cpu", (world.size,))
    results = {}
    for case, settings in CASES.items():
        for precision, dtype in (("float", torch.float32), ("mixed", torch.bfloat16), ("pure", torch.bfloat16)):
            m = model(**settings)
            names = [n for n, _ in m.named_parameters()]
            parallelize_model(m, mesh=mesh, compute_dtype=dtype, fsdp_precision=precision)
            assert [n for n, _ in m.named_parameters()] == names
            assert all(isinstance(p, DTensor) for p in m.parameters())
            loss = loss_of(m.train()(batch(ROWS[world.rank]), compute_loss=True))
            loss.backward()
            gradients = {n: p.grad.full_tensor() for n, p in m.named_parameters() if p.grad is not None}
            answers = generate(m, batch(QUESTIONS[world.rank], subsegments=False), 4, process_group=dist.group.WORLD).token_ids
            results[case, precision] = (loss.item(), gradients, answers)
    torch.save(results, folder / f"rank{world.rank}.pt")
