"""Small models and batches for tests: every example's content depends on its own seed only, packed or alone."""

from dataclasses import dataclass

import torch

from olmo.batch import Batch, ExampleLayout, MultimodalType, RowLayout, VisualSegment
from olmo.models.model import ModelBase, build_model_config

VOCAB = 64
IDS = {"image_patch": VOCAB + 2, "frame_start": VOCAB + 7, "frame_end": VOCAB + 8}
GRID, CELLS = 9, 9

LLM = dict(
    d_model=32, n_heads=4, n_kv_heads=2, head_dim=16, n_layers=2, mlp_hidden_size=96, rope=True, layer_norm_type="rms",
    layer_norm_eps=1e-6, include_bias=False, attention_layer_norm=True, attention_layer_norm_type="qwen3", residual_dropout=0.0,
    embedding_dropout=0.0, vocab_size=VOCAB, embedding_size=VOCAB, additional_vocab_size=16, init_std=0.2, new_embedding_init_range=0.2,
    initializer_range=0.2,
)  # fmt: skip
VIT = dict(
    image_model_type="siglip", image_default_input_size=[126, 126], image_emb_dim=32, image_num_heads=2, image_num_key_value_heads=2,
    image_head_dim=16, image_num_layers=4, image_mlp_dim=48, image_mlp_activations="gelu_pytorch_tanh", image_num_pos=81,
    image_norm_eps=1e-6, initializer_range=0.2, normalize="siglip", resize_mode="siglip",
)  # fmt: skip
PRUNE = dict(topk=0.5, prune_at=1)


def config(temporal: bool = True, llm: dict | None = None, vit: dict | None = None, **top):
    """A config of a fraction of the size of `tiny`."""
    vision = dict(vit=VIT | (PRUNE if temporal else {}) | (vit or {}), vit_layers=[-1, -3], pooling_attention_mask=True)
    name = "temporal_video_olmo" if temporal else "video_olmo"
    raw = dict(model_name=name, llm=LLM | (llm or {}), vision_backbone=vision, bi_directional_attn="image_tokens")
    return build_model_config(raw | top)


def model(temporal: bool = True, seed: int = 0, **kwargs) -> ModelBase:
    """A model with random weights, in eval mode."""
    built = config(temporal, **kwargs).build_model().to_empty(device="cpu")
    torch.manual_seed(seed)
    built.reset_parameters()
    return built.eval()


@dataclass(frozen=True)
class Example:
    """A video of `frames` frames (0 = none) with `branches` conversations of these lengths."""

    frames: int
    branches: tuple[int, ...] = (5,)
    seed: int = 0


@dataclass
class _Row:
    ids: list
    positions: list
    subsegments: list
    weights: list
    images: list
    pooling: list
    segments: list
    examples: list


def _example(example: Example, number: int) -> _Row:
    g = torch.Generator().manual_seed(1000 + example.seed)

    def words(n: int) -> list[int]:
        return torch.randint(3, VOCAB, (n,), generator=g).tolist()

    prefix = [0, *words(2)]
    for _ in range(example.frames):
        prefix += [*words(1), IDS["frame_start"], *[IDS["image_patch"]] * CELLS, IDS["frame_end"]]
    branched = len(example.branches) > 1
    row = _Row(prefix, list(range(len(prefix))), [], [0.0] * len(prefix), [], [], [], [])
    row.subsegments = [number * 100_000 + (10_000 if branched else 0)] * len(prefix)
    for i, length in enumerate(example.branches):
        row.ids = row.ids + words(length)
        row.positions = row.positions + list(range(len(prefix), len(prefix) + length))
        row.subsegments += [number * 100_000 + (i if branched else 0)] * length
        row.weights += [0.0, *[0.5 + i] * (length - 1)]
    if example.frames:
        row.images = list(torch.randint(0, 256, (example.frames, GRID * GRID, 588), generator=g, dtype=torch.uint8))
        patches = torch.arange(GRID * GRID).view(3, 3, 3, 3).permute(0, 2, 1, 3).reshape(CELLS, 9)
        row.pooling = [patches + f * GRID * GRID for f in range(example.frames)]
        row.segments = [VisualSegment(MultimodalType.VIDEO, example.frames, CELLS)]
    row.examples = [ExampleLayout(len(row.ids), len(row.segments), branched)]
    return row


def batch(*rows: list[Example], extra: int = 0, subsegments: bool = True) -> Batch:
    """One row per list of examples; `extra` more padding tokens, frames and pooling rows."""
    built = []
    for examples in rows:
        total = _Row([], [], [], [], [], [], [], [])
        for number, example in enumerate(examples):
            part = _example(example, number)
            part.pooling = [p + len(total.images) * GRID * GRID for p in part.pooling]
            for name in vars(total):
                setattr(total, name, getattr(total, name) + getattr(part, name))
        built.append(total)
    width = max(len(r.ids) for r in built) + extra
    frames = max(len(r.images) for r in built) + (extra > 0)

    def text(name: str, dtype=torch.long) -> torch.Tensor:
        return torch.tensor([getattr(r, name) + [-1] * (width - len(r.ids)) for r in built], dtype=dtype)

    images = torch.zeros(len(built), frames, GRID * GRID, 588, dtype=torch.uint8)
    pooling = torch.full((len(built), frames * CELLS, 9), -1)
    for b, row in enumerate(built):
        for f, image in enumerate(row.images):
            images[b, f] = image
            pooling[b, f * CELLS : (f + 1) * CELLS] = row.pooling[f]
    ids = text("ids")
    labels = torch.where(ids >= 0, torch.roll(ids, -1, 1).clamp(0, VOCAB - 1), -1)
    layout = tuple(
        RowLayout(tuple(r.segments), len(r.ids), len(r.images) * CELLS, sum(w > 0 for w in r.weights), tuple(r.examples)) for r in built
    )
    return Batch(
        input_ids=ids,
        position_ids=text("positions"),
        layout=layout,
        labels=labels,
        loss_masks=text("weights", torch.float32),
        subsegment_ids=text("subsegments") if subsegments else None,
        images=images if frames else None,
        token_pooling=pooling if frames else None,
    )
