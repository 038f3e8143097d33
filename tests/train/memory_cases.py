"""Steps of half a gigabyte and more on a CPU, and what they really take."""

from dataclasses import dataclass
from pathlib import Path

import torch

from olmo.benchmark.cases import Case
from olmo.benchmark.models import config_of, video_batch
from olmo.distributed import World
from olmo.nn.lora import LoraConfig
from olmo.train import build
from olmo.train.config import TrainConfig
from olmo.train.config_blocks import ActivationCheckpointingMode
from olmo.train.memory.activation_memory import ActivationMemory
from olmo.train.memory.estimate import Shape, shape_of
from olmo.train.mesh import ContextParallelConfig, ParallelismConfig
from olmo.train.optim import build_optimizer
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainStep
from tests.train.ranks import ALONE

NARROW_VIT = (
    *("vit.image_emb_dim=64", "vit.image_num_heads=2", "vit.image_num_key_value_heads=2", "vit.image_head_dim=32"),
    *("vit.image_mlp_dim=256", "vit_layers=[-1,-3]"),
)


def llm(width: int, layers: int, hidden: int, vocabulary: int = 4096) -> tuple[str, ...]:
    return (
        *(f"llm.d_model={width}", f"llm.n_layers={layers}", f"llm.n_heads={width // 32}", f"llm.n_kv_heads={width // 64}"),
        *("llm.head_dim=32", f"llm.mlp_hidden_size={hidden}", f"llm.vocab_size={vocabulary}", f"llm.embedding_size={vocabulary}"),
    )


@dataclass(frozen=True)
class MemoryCase:
    """A step: its shape, what is recomputed and trained, and by how many ranks its rows are shared."""

    case: Case
    recompute: str = "none"
    lora: LoraConfig | None = None
    degree: int = 1

    @property
    def config(self) -> TrainConfig:
        model = config_of(self.case)
        rows = self.case.rows
        cfg = TrainConfig(model=model, lora=self.lora, ft_embedding="all", global_train_batch_size=rows, device_train_microbatch_size=rows)
        cfg.parallelism = ParallelismConfig(context_parallel_config=ContextParallelConfig(self.degree))
        cfg.activation_checkpointing = self.recompute != "none"
        if self.recompute != "none":
            cfg.activation_checkpointing_mode = ActivationCheckpointingMode(self.recompute)
        return cfg

    @property
    def shape(self) -> Shape:
        return shape_of(self.config, self.case.frames, self.case.text)


def step_case(method: str, topk: float, frames: int, text: int, layers: int, prune_at: int, words, rows: int = 1, recompute: bool = False):
    vision = (*NARROW_VIT, f"vit.image_num_layers={layers}", f"vit.prune_at={prune_at}")
    return Case("step", method, topk, frames, "training", rows=rows, text=text, vision=vision, llm=words, recompute=recompute)


CASES = {
    "a ViT that stores everything": MemoryCase(step_case("none", 0.0, 24, 100, 8, 1, llm(128, 2, 512))),
    "pruned, everything recomputed, much to optimise": MemoryCase(
        step_case("scorer", 0.5, 24, 100, 10, 1, llm(512, 8, 4096), recompute=True), "full"
    ),
    "pruned, two rows, nothing recomputed": MemoryCase(step_case("scorer", 0.5, 10, 200, 8, 2, llm(256, 4, 1536), rows=2)),
    "adapters on a decoder that keeps its products": MemoryCase(
        step_case("none", 0.0, 0, 1000, 6, 1, llm(256, 8, 1536, 8192), rows=5, recompute=True), "selective", LoraConfig(["llm"], rank=16)
    ),
}


SHARED = {
    "stored": MemoryCase(step_case("scorer", 0.5, 8, 400, 8, 2, llm(256, 4, 1024)), degree=2),
    "not pruned": MemoryCase(step_case("none", 0.0, 9, 100, 6, 1, llm(256, 4, 1024), rows=2), degree=2),
    "recomputed": MemoryCase(step_case("scorer", 0.5, 8, 2000, 8, 2, llm(256, 8, 1024), recompute=True), "full", degree=2),
}


def prepared(case: MemoryCase, world: World = ALONE) -> TrainStep:
    """The step of a run that has gone on for a while: its optimiser has a state already."""
    cfg = case.config
    model = build.build_sharded_model(cfg, world)
    build.initialise_weights(cfg, model, world)
    optimizer = build_optimizer(cfg.optimizer, model)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    return TrainStep(cfg, model, optimizer, Scheduler(SchedulerConfig(), 100), world)


def resident(step: TrainStep) -> int:
    """Bytes of weights and of the optimiser's state."""
    state = [t for values in step.optimizer.state.values() for t in values.values()]
    return sum(t.numel() * t.element_size() for t in (*step.model.parameters(), *state))


def peak_of(step: TrainStep, batch) -> int:
    """The most that the step has allocated at once, by torch's record of every allocation."""
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as profiler:
        step(batch, 1)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def saved_bytes(step: TrainStep, batch) -> int:
    """What the forward pass keeps for the backward pass, parameters not counted; of selective mode all that is still there."""
    with ActivationMemory(step.model) as memory:
        out = step.model.train()(batch, compute_loss=True)
    kept = memory.held_bytes if step.cfg.recompute == "selective" else memory.saved_bytes
    del out
    return kept


def batch_of(case: MemoryCase):
    return video_batch(case.case, case.config.model)


def note_shared(world: World, folder: Path, argument: None) -> None:
    """What one of the ranks that share the rows of each case keeps. Weights stay whole, so that none that was gathered counts."""
    build.sharding_mesh = lambda *args: None
    kept = {name: saved_bytes(prepared(case, world), batch_of(case)) for name, case in SHARED.items()}
    torch.save(kept, folder / f"{world.rank}.pt")
