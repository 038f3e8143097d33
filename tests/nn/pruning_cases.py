"""Small pruned backbones, mixed batches, and a slow oracle of the whole forward pass.

The oracle works frame by frame and cell by cell with Python loops, a softmax written out and dense masks; it shares no
code with the fast path except the parameters.
"""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from olmo.batch import MultimodalType, RowLayout, VisualSegment
from olmo.nn.temporal_vision_backbone import TemporalVisionBackbone, TemporalVisionBackboneConfig
from olmo.nn.vision_backbone import MolmoVisionBackboneConfig

LLM = SimpleNamespace(d_model=12, hidden_size=16, initializer_range=0.02)
PATCH = 2
VIDEO, IMAGE, MULTI_IMAGE = MultimodalType.VIDEO, MultimodalType.IMAGE, MultimodalType.MULTI_IMAGE


def vit_fields(grid=(6, 6), **fields) -> dict:
    return dict(
        image_model_type="siglip", image_default_input_size=[grid[0] * PATCH, grid[1] * PATCH], image_patch_size=PATCH, image_emb_dim=16,
        image_num_heads=2, image_num_key_value_heads=2, image_head_dim=8, image_mlp_dim=24, image_num_layers=6,
        image_num_pos=grid[0] * grid[1], image_mlp_activations="gelu_pytorch_tanh", normalize="siglip",
    ) | fields  # fmt: skip


def temporal_config(grid=(6, 6), window=(3, 3), **fields) -> TemporalVisionBackboneConfig:
    vit = vit_fields(grid, pooling_h=window[0], pooling_w=window[1], **({"prune_at": 1} | fields))
    return TemporalVisionBackboneConfig.from_dict({"vit": vit, "vit_layers": [-1, -4], "pooling_attention_mask": True})


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)


def build(config: TemporalVisionBackboneConfig, dtype=torch.float64) -> TemporalVisionBackbone:
    backbone = config.build(LLM).to(dtype)
    randomize(backbone)
    return backbone.train()


def plain_twin(backbone: TemporalVisionBackbone):
    """The unpruned backbone with the same weights."""
    config = backbone.config
    raw = {key: value for key, value in vit_fields(config.vit.grid).items()}
    twin = MolmoVisionBackboneConfig.from_dict({"vit": raw, "vit_layers": list(config.vit_layers), "pooling_attention_mask": True}).build(
        LLM
    )
    twin.to(next(backbone.parameters()).dtype)
    twin.load_state_dict({k: v for k, v in backbone.state_dict().items() if "temporal_token_scorer" not in k})
    return twin.train(backbone.training)


def cell_table(grid: tuple[int, int], window: tuple[int, int]) -> list[list[int]]:
    """Patches of every cell, -1 = missing: floor(pad / 2) before, ceil(pad / 2) after, on each axis."""
    (rows, columns), (h, w) = grid, window
    pad_r, pad_c = -rows % h, -columns % w
    padded = -np.ones((rows + pad_r, columns + pad_c), dtype=int)
    padded[pad_r // 2 : pad_r // 2 + rows, pad_c // 2 : pad_c // 2 + columns] = np.arange(rows * columns).reshape(rows, columns)
    return [
        padded[r : r + h, c : c + w].flatten().tolist() for r in range(0, padded.shape[0], h) for c in range(0, padded.shape[1], w)
    ]  # fmt: skip


def make_batch(rows: list[list[tuple]], config: TemporalVisionBackboneConfig, frames_per_row: int, seed: int = 0):
    """Rows of (kind, frames[, seed of the picture]) to (images, token_pooling, layout); frames drift slowly, as in a video."""
    grid, window, num_patches = config.vit.grid, config.vit.cells.window, config.vit.num_patches
    images = torch.zeros(len(rows), frames_per_row, num_patches, 3 * PATCH**2, dtype=torch.uint8)
    group = max(window[0] * window[1], 4)
    pooling, layout = [], []
    for r, row in enumerate(rows):
        cells, segments, t = [], [], 0
        for s, (kind, count, *own_seed) in enumerate(row):
            generator = torch.Generator().manual_seed(own_seed[0] if own_seed else 1000 * seed + 10 * r + s)
            table = cell_table(grid, window if kind == VIDEO else (2, 2))
            frame = torch.randint(0, 256, images.shape[2:], generator=generator)
            for _ in range(count):
                changed = torch.rand(num_patches, 1, generator=generator) < 0.4
                frame = torch.where(changed, torch.randint(0, 256, images.shape[2:], generator=generator), frame)
                images[r, t] = frame
                cells += [[p + t * num_patches if p >= 0 else -1 for p in cell] + [-1] * (group - len(cell)) for cell in table]
                t += 1
            segments.append(VisualSegment(kind, count, len(table) if kind == VIDEO else 0))
        layout.append(RowLayout(tuple(segments), num_tokens=1, num_pooled=len(cells)))
        pooling.append(cells)
    longest = max(max(map(len, pooling)), 1)
    pooling = [cells + [[-1] * group] * (longest - len(cells)) for cells in pooling]
    return images, torch.tensor(pooling).view(len(rows), longest, group), tuple(layout)


MIXED = [
    [(IMAGE, 2), (VIDEO, 3)],
    [],
    [(VIDEO, 4), (VIDEO, 1), (MULTI_IMAGE, 2)],
    [(VIDEO, 2)],
]
"""Images, videos, several images, a video of one frame, a row without pictures, padding frames in most rows."""


def attention(module, x, kv=None, bias=None):
    """x: [S, in]; bias broadcasts to [heads, S, S']."""
    kv = x if kv is None else kv
    q, k, v = module.wq(x), module.wk(kv), module.wv(kv)
    q, k, v = (y.unflatten(-1, (module.heads, module.head_dim)).transpose(0, 1) for y in (q, k, v))
    logits = q @ k.transpose(1, 2) / module.head_dim**0.5
    if bias is not None:
        logits = logits + bias
    return module.wo((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))


def vit_block(block, x, bias=None):
    x = x + attention(block.attention, block.attention_norm(x), bias=bias)
    return x + block.feed_forward(block.ffn_norm(x))


def cosine(a, b):
    return (a * b).sum() / (a.norm() * b.norm())


def slow_selection(scores: list[list[float]], budget: int, frames: list[int] | None = None) -> list[list[bool]]:
    """Drop the `budget` lowest cells of frames 1.. (of those among `frames`), the earlier one first among equals."""
    frames = list(range(len(scores))) if frames is None else frames
    order = sorted((s, f, c) for f, row in enumerate(scores) for c, s in enumerate(row) if f > 0 and f in frames)
    keep = [[True] * len(row) for row in scores]
    for _, f, c in order[:budget]:
        keep[f][c] = False
    return keep


def slow_scores(scorer, frames, table):
    """frames: list of [N, D] of one video; returns [frames, C]."""
    pooled = []
    for x in frames:
        vectors = []
        for cell in table:
            members = torch.stack([x[p] for p in cell if p >= 0])
            vectors.append(attention(scorer.patch_token_pooler, members.mean(0, keepdim=True), members)[0])
        pooled.append(torch.stack(vectors))
    rows = []
    for f, current in enumerate(pooled):
        previous = pooled[f - 1] if f else torch.zeros_like(current)
        h = torch.cat([previous, current], dim=-1)
        h = F.silu(scorer.mlp.w2(F.silu(scorer.mlp.w1(h))))
        rows.append(torch.sigmoid(scorer.mlp.w3(h))[:, 0])
    return torch.stack(rows)


def slow_change(frames, table):
    """1 - cosine of every cell with the same cell one frame earlier, for frames 1.., [frames - 1, C]."""
    vectors = [[torch.cat([x[p] for p in cell if p >= 0]) for cell in table] for x in frames]
    return torch.stack(
        [torch.stack([1 - cosine(a, b) for a, b in zip(vectors[f], vectors[f - 1], strict=True)]) for f in range(1, len(vectors))]
    )


def slow_budget(frames: list[int], cells: int, config) -> int:
    """Cells that leave these frames of a video, of which the first one may not lose any."""
    counted = sum(f >= config.prune_from_frame for f in frames)
    return min(int(np.float32(cells * config.topk) * np.float32(counted)), cells * sum(f > 0 for f in frames))


def slow_forward(backbone: TemporalVisionBackbone, images, pooling, layout, fast=None):
    """(features, auxiliary loss, {(row, frame): ([C] bool, [C] scores)}) of the scorer method, one frame at a time.

    `fast`: windows of the fast frames, which have budgets and cells of their own, and the rows of `pooling` that they stand in for.
    """
    config, vit = backbone.config.vit, backbone.image_vit
    side = 0 if fast is None else round(fast.pooling.shape[2] ** 0.5)
    shapes = [config.cells.window] + ([(side, side)] if side else [])  # slow, fast
    tables = [cell_table(config.grid, shape) for shape in shapes]
    dtype = vit.positional_embedding.dtype
    pixels = (images.float() / 255 * 2 - 1).to(dtype)
    last = max(backbone.layers)
    features, errors, kept = [], [], {}
    for r, row in enumerate(layout):
        start, patches, cell_alive = 0, [], {}
        for segment in row.segments:
            frames = []
            for t in range(start, start + segment.num_frames):
                hidden = [vit.patch_embedding(pixels[r, t]) + vit.positional_embedding]
                for i in range(config.prune_at + 1):
                    hidden.append(vit_block(vit.blocks[i], hidden[-1]))
                frames.append(hidden)
            scored = [hidden[-1] for hidden in frames]
            decided = {}  # frame -> keep, scores, number of its kind
            for kind, table in enumerate(tables):
                own = [f for f in range(segment.num_frames) if (f in segment.fast) == kind]
                budget = slow_budget(own, len(table), config) if segment.kind == VIDEO else 0
                if budget:
                    scores = slow_scores(vit.scorer, scored, table)
                    keep = slow_selection(scores.float().tolist(), budget, own)
                    errors += [(scores[1:] - slow_change(scored, table)).square().flatten()]
                    decided |= {f: (keep[f], scores[f], kind) for f in own}
            for f, hidden in enumerate(frames):
                bias = torch.zeros(config.num_patches, dtype=dtype)
                alive = torch.ones(config.num_patches, dtype=torch.bool)
                if f in decided:
                    keep, scores, kind = decided[f]
                    kept[r, start + f] = keep, scores
                    if f:
                        bias = slow_bias(scores, config, tables[kind], shapes[kind])
                    for cell, stays in zip(tables[kind], keep, strict=True):
                        alive[[p for p in cell if p >= 0]] = stays
                hidden.append(vit_block(vit.blocks[config.prune_at + 1], hidden[-1], bias))
                after = bias if not config.pruning_in_scorer else torch.where(alive, 0.0, -torch.inf).to(dtype)
                for i in range(config.prune_at + 2, last + 1):
                    if alive.any() or not config.pruning_in_scorer:
                        hidden.append(vit_block(vit.blocks[i], hidden[-1], after))
                    else:
                        hidden.append(torch.zeros_like(hidden[-1]))
                patches.append(torch.cat([hidden[i + 1] for i in backbone.layers], dim=-1))
                cell_alive |= {(start + f) * config.num_patches + p: bool(a) for p, a in enumerate(alive)}
            start += segment.num_frames
        cells = pooling[r].tolist()
        for q, place in enumerate([] if fast is None else fast.rows[r].tolist()):
            if place >= 0:
                cells[place] = fast.pooling[r, q].tolist()
        for cell in cells:
            members = [p for p in cell if p >= 0]
            if members and cell_alive[members[0]]:
                x = torch.stack([patches[p // config.num_patches][p % config.num_patches] for p in members])
                pooled = attention(backbone.image_pooling_2d, x.mean(0, keepdim=True), x)[0]
                projector = backbone.image_projector
                features.append(projector.w2(F.silu(projector.w1(pooled)) * projector.w3(pooled)))
    aux = config.sim_reg_loss_coefficient * torch.cat(errors).mean() if errors else torch.zeros((), dtype=dtype)
    return torch.stack(features), aux, kept


def slow_bias(scores, config, table, window):
    """Log of the scores of one frame, stretched over a row of cells or over the frame, for every patch."""
    columns = -(-config.grid[1] // window[1])
    bias = torch.zeros(config.num_patches, dtype=scores.dtype)
    for c, cell in enumerate(table):
        peers = scores if config.bias_rescale == "frame" else scores[c // columns * columns : (c // columns + 1) * columns]
        m = config.rescale_bias_min
        stretched = m + (scores[c] - peers.min()) * (1 - m) / (peers.max() - peers.min() + 1e-6)
        index = [p for p in cell if p >= 0]
        bias = bias.index_put((torch.tensor(index),), stretched.log().expand(len(index)))
    return bias
