"""One random model in both implementations, and the same inputs for both."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from olmo.batch import Batch
from olmo.hf_model.config import to_hf_config
from olmo.hf_model.names import EMBEDDING, LM_HEAD, stored_name
from olmo.models.model import ModelBase, build_model_config
from olmo.models.molmo2.preprocessor import build_collator, build_preprocessor
from olmo.preprocessing.video import VideoFrames

VIT = dict(
    image_model_type="siglip", image_default_input_size=[126, 126], image_emb_dim=64, image_num_heads=4, image_num_key_value_heads=4,
    image_head_dim=16, image_num_layers=4, image_mlp_dim=96, image_mlp_activations="gelu_pytorch_tanh", image_num_pos=81,
    image_norm_eps=1e-6, initializer_range=0.1, patch_embedding_init_std=0.05, normalize="siglip", resize_mode="siglip",
)  # fmt: skip
LLM = dict(
    d_model=64, n_heads=4, n_kv_heads=2, head_dim=32, n_layers=4, mlp_hidden_size=192, rope=True, rope_theta=1e4, layer_norm_type="rms",
    layer_norm_eps=1e-6, include_bias=False, attention_layer_norm=True, attention_layer_norm_type="qwen3", residual_dropout=0.0,
    embedding_dropout=0.0, vocab_size=1024, embedding_size=1024, additional_vocab_size=128, init_std=1.0, new_embedding_init_range=0.3,
    initializer_range=0.1, max_sequence_length=2048, tokenizer={"identifier": "tiny"},
)  # fmt: skip
OLMO3 = dict(
    head_dim=16, n_kv_heads=4, attention_layer_norm_type="olmo", norm_after=True, weight_tying=False, rope_theta=5e5, rope_type="yarn",
    rope_factor=8.0, rope_attention_factor=1.2079441541679836, rope_beta_fast=32.0, rope_beta_slow=1.0,
    rope_original_max_position_embeddings=64, full_attention_layers=[1, 3],
)  # fmt: skip
VARIANTS = {
    "qwen3": {},
    "qwen3_untied": dict(weight_tying=False, qkv_bias=True),
    "olmo3": OLMO3,
    "llama3_rope": dict(
        rope_type="llama3", rope_factor=8.0, rope_low_freq_factor=1.0, rope_high_freq_factor=4.0, rope_original_max_position_embeddings=64
    ),
}
PREPROCESSOR = {
    "video": dict(
        max_frames=8, frame_sample_mode="uniform_last_frame", max_fps=[2.0], time_sampling=True, use_frame_special_tokens=True,
        per_frame_special_token=True,
    ),
    "image": dict(
        crop_mode="overlap-and-resize-c2", max_crops=4, overlap_margins=[2, 2], use_single_crop_col_tokens=False,
        use_single_crop_start_token=True, max_images=3, max_multi_image_crops=4,
    ),
}  # fmt: skip


def raw_config(variant: str = "qwen3", **top) -> dict:
    """The `model` block of a small model; `top` replaces keys on the first level."""
    vision = dict(vit=VIT, vit_layers=[-1, -3], pooling_attention_mask=True, normalize_on_gpu=True)
    formatter = dict(prompt_templates="uber_model_v2", message_format="qwen3", system_prompt="demo_or_style_v2", pointing_format="html-v2")
    raw = dict(
        model_name="video_olmo", llm=LLM | VARIANTS[variant], vision_backbone=vision, bi_directional_attn="image_tokens",
        mm_preprocessor=PREPROCESSOR, data_formatter=formatter,
    )  # fmt: skip
    return raw | top


def build(raw: dict, seed: int = 0) -> ModelBase:
    """A model with random weights, none of them at a value where a mistake would not show."""
    model = build_model_config(raw).build_model("cpu")
    torch.manual_seed(seed)
    model.reset_parameters()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms start at 1, biases at 0
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@cache
def our_model(variant: str = "qwen3") -> ModelBase:
    return build(raw_config(variant))


def write_folder(model: ModelBase, folder: Path) -> Path:
    """The least that transformers loads: a config and one file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hf_config(model.config)))
    tensors = {stored_name(name): p.detach().clone() for name, p in model.named_parameters()}
    tensors.setdefault(LM_HEAD, tensors[stored_name(EMBEDDING)].clone())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load_theirs(folder: Path, **kwargs):
    """transformers' model from a folder."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, **kwargs).eval()


# ---------------------------------------------------------------------------------------------- inputs


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clip(seed: int, frames: int) -> VideoFrames:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 126, 126, 3), dtype=np.uint8)
    return VideoFrames(pixels, np.arange(frames) / 2)


EXAMPLES = {
    "image": {"image": picture(1, 150, 230), "question": "What is in the image?"},
    "two images": {"image": [picture(2, 130, 120), picture(3, 300, 150)], "question": "Which one is larger?"},
    "video": {"video": clip(4, 5), "question": "What happens in the video?"},
    "long video": {"video": clip(5, 8), "question": "How many?"},
    "text": {"question": "What is the capital of France?"},
}


def batch(model: ModelBase, *examples: dict) -> Batch:
    """What our own preprocessing makes of raw examples."""
    preprocess = build_preprocessor(model.config, for_inference=True)
    ready = [preprocess({"style": "user_qa", **e}, np.random.default_rng(0)) for e in examples]
    return build_collator(preprocess)(ready)


def image_token_ids(model: ModelBase) -> torch.Tensor:
    names = ("image_start", "image_end", "image_patch", "image_col", "low_res_image_start", "image_low_res", "frame_start", "frame_end")
    ids = model.config.special_token_ids()
    return torch.tensor([ids[name] for name in names])


def hf_inputs(model: ModelBase, batch: Batch, bidirectional: bool = True) -> dict[str, torch.Tensor]:
    """Our batch as keyword arguments of their model: rows padded on the left, pictures (and their patches' numbers) of all rows in one."""
    ids, lengths = batch.input_ids, [row.num_tokens for row in batch.layout]
    width = max(lengths)
    rows = [torch.cat([ids.new_full((width - n,), -1), row[:n]]) for row, n in zip(ids, lengths, strict=True)]
    tokens = torch.stack(rows)
    inputs = {"input_ids": tokens.clamp(min=0), "attention_mask": (tokens >= 0).long()}
    inputs["mm_token_type_ids"] = torch.isin(tokens, image_token_ids(model)).long() * bidirectional
    return inputs | _pictures(model, batch)


def _pictures(model: ModelBase, batch: Batch) -> dict[str, torch.Tensor]:
    if batch.images is None:
        return {}
    pixels, pooling, grids, crops = [], [], [], []
    is_video = any(s.cells_per_frame for row in batch.layout for s in row.segments)
    for b, row in enumerate(batch.layout):
        cells = batch.token_pooling[b, : row.num_pooled]
        pooling.append(torch.where(cells >= 0, cells + sum(len(p) for p in pixels) * batch.images.shape[2], -1))
        pixels.append(batch.images[b, : row.num_frames].float() / 255 * 2 - 1)
        if is_video:
            side = round(row.segments[0].cells_per_frame ** 0.5) if row.segments else 0
            grids += [[s.num_frames, side, side] for s in row.segments]
        elif row.segments:
            found = _image_grids(model, batch.input_ids[b])
            grids += found
            crops += _crops_per_image(cells, found, batch.images.shape[2])
    pixels, pooling, grids = torch.cat(pixels), torch.cat(pooling), torch.tensor(grids)
    if is_video:
        return {"pixel_values_videos": pixels, "video_token_pooling": pooling, "video_grids": grids}
    return {"pixel_values": pixels, "image_token_pooling": pooling, "image_grids": grids, "image_num_crops": torch.tensor(crops)}


def _image_grids(model: ModelBase, ids: torch.Tensor) -> list[list[int]]:
    """[low rows, low columns, high rows, high columns] of each image, read off its tokens."""
    special = model.config.special_token_ids()
    grids: list[list[int]] = []
    tokens = ids.tolist()
    for i, token in enumerate(tokens):
        if token == special["low_res_image_start"]:
            side = round((tokens.index(special["image_end"], i) - i - 1) ** 0.5)
            grids.append([side, side])
        elif token == special["image_start"]:
            columns = tokens.index(special["image_col"], i) - i - 1
            rows = (tokens.index(special["image_end"], i) - i - 1) // (columns + 1)
            grids[-1] += [rows, columns]
    return grids


def _crops_per_image(cells: torch.Tensor, grids: list[list[int]], patches: int) -> list[int]:
    """How many crops of `patches` patches each image of a row has: up to the one with the last patch that its tokens refer to."""
    ends, at = [], 0
    for low_h, low_w, high_h, high_w in grids:
        at += low_h * low_w + high_h * high_w
        ends.append(int(cells[:at].max()) // patches + 1)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
