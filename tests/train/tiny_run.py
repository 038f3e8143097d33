"""A model of a few thousand parameters and hand-made batches, for tests that train."""

import dataclasses

import torch

from olmo.batch import Batch, MultimodalType, RowLayout, VisualSegment
from olmo.models.model import ModelConfig, build_model_config

GRID, PATCH, WINDOW = 6, 14, 3
CELLS = (GRID // WINDOW) ** 2


def model_config(model_name: str = "temporal_video_olmo", *overrides: str) -> ModelConfig:
    """ViT of 6 blocks (so that prune_at 3 is legal), two decoder layers, tied embeddings."""
    raw = {
        "model_name": model_name,
        "bi_directional_attn": "image_tokens",
        "llm": dict(
            d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, mlp_hidden_size=64, rope=True, attention_layer_norm=True,
            attention_layer_norm_type="qwen3", layer_norm_type="rms", layer_norm_eps=1e-6, include_bias=False, embedding_dropout=0.0,
            residual_dropout=0.0, vocab_size=1024, embedding_size=1024, additional_vocab_size=128, max_sequence_length=512,
            init_std=0.1, new_embedding_init_range=0.1, activation_checkpoint=None, compile=None, tokenizer={"identifier": "tiny"},
        ),
        "vision_backbone": dict(
            vit=dict(
                image_model_type="siglip", image_default_input_size=[GRID * PATCH] * 2, image_emb_dim=32, image_num_heads=2,
                image_num_key_value_heads=2, image_num_layers=6, image_head_dim=16, image_mlp_dim=48, image_num_pos=GRID * GRID,
                image_mlp_activations="gelu_pytorch_tanh", image_norm_eps=1e-6, resize_mode="siglip", normalize="siglip",
                initializer_range=0.1, activation_checkpointing=False,
            ),
            vit_layers=[-1, -2], pooling_attention_mask=True, normalize_on_gpu=True, connector_activation_checkpointing=False,
            compile_vit=None, compile_connector=None,
        ),
        "mm_preprocessor": dict(
            video=dict(max_frames=8, frame_sample_mode="uniform_last_frame", max_fps=[2.0], time_sampling=True),
            image=dict(crop_mode="resize", max_crops=1),
        ),
        "data_formatter": dict(prompt_templates="none", message_format="qwen3"),
    }  # fmt: skip
    return build_model_config(raw, overrides)


def make_batch(config: ModelConfig, frames: list[int], seed: int = 0, text: int = 9) -> Batch:
    """One row per entry of `frames`: a video of that many frames (0 = text only), then text of which a part has loss."""
    g = torch.Generator().manual_seed(seed)
    patch_id = config.special_token_ids()["image_patch"]
    rows, layout = [], []
    for n in frames:
        ids = torch.cat([torch.full((n * CELLS,), patch_id), torch.randint(10, 200, (text,), generator=g)])
        weights = torch.zeros(len(ids))
        weights[-(text // 2) :] = torch.rand(text // 2, generator=g) + 0.5
        segments = (VisualSegment(MultimodalType.VIDEO, n, CELLS),) if n else ()
        rows.append((ids, weights))
        layout.append(RowLayout(segments, num_tokens=len(ids), num_pooled=n * CELLS, num_loss_tokens=text // 2))
    width, most = max(len(ids) for ids, _ in rows), max(frames)

    def stack(values, dtype):
        return torch.stack([torch.nn.functional.pad(v.to(dtype), (0, width - len(v)), value=-1) for v in values])

    ids = stack([ids for ids, _ in rows], torch.int64)
    labels = stack([torch.cat([ids[1:], ids[:1]]).clamp(max=1000) for ids, _ in rows], torch.int64)
    images = pooling = None
    if most:
        images = torch.randint(0, 256, (len(frames), most, GRID * GRID, PATCH * PATCH * 3), dtype=torch.uint8, generator=g)
        grid = torch.arange(GRID * GRID).view(GRID // WINDOW, WINDOW, GRID // WINDOW, WINDOW).transpose(1, 2).reshape(CELLS, -1)
        pooling = torch.full((len(frames), most * CELLS, WINDOW**2), -1)
        for row, n in zip(pooling, frames, strict=True):
            for f in range(n):
                row[f * CELLS : (f + 1) * CELLS] = grid + f * GRID * GRID
    return Batch(
        input_ids=ids,
        position_ids=stack([torch.arange(len(i)) for i, _ in rows], torch.int64),
        labels=labels,
        loss_masks=stack([w for _, w in rows], torch.float32),
        images=images,
        token_pooling=pooling,
        layout=tuple(layout),
        metadata=[{} for _ in frames],
    )


def cut_rows(batch: Batch, start: int, stop: int) -> Batch:
    """Rows of a batch as another rank would have collated them: without images where none of its rows has any."""
    part = batch.rows(start, stop)
    if part.images is not None and not any(row.num_frames for row in part.layout):
        part = dataclasses.replace(part, images=None, token_pooling=None)
    return part
