"""Parity of whole models with the published code on stored inputs and weights (fp32): logits and greedy answers.

Seen to fail with bidirectional attention off, with features added to the token before the patch, and with position ids that
continue after the padding.
"""

from functools import cache
from pathlib import Path

import pytest
import torch

from olmo.batch import Batch, RowLayout
from olmo.inference.generation import generate
from olmo.models.model import build_model_config
from olmo.tokenizer import SPECIAL_TOKENS
from tests.device import DEVICE
from tests.goldens.model_files import all_files, check_close, header, load, quantities, state_dict

SHORT_NAMES = {text.strip("<>|"): name for name, text in SPECIAL_TOKENS.items()}
"""Special tokens as the metadata spells them -> our names."""


@cache
def build(path: Path):
    meta = load(path)[0]
    raw = {
        "model_name": "video_olmo",
        "llm": meta["llm"],
        "vision_backbone": {"vit": meta["vit"], "vit_layers": meta["vit_layers"], "pooling_attention_mask": meta["pooling_attention_mask"]},
        "bi_directional_attn": meta["bi_directional_attn"],
        "mm_preprocessor": {"image": {"use_single_crop_start_token": True}, "video": {"use_frame_special_tokens": True}},
    }
    ids = {SHORT_NAMES[name]: number for name, number in meta["special_token_ids"].items()}
    model = build_model_config(raw).build_model(DEVICE)
    assert {name: model.config.special_token_ids()[name] for name in ids} == ids
    model.load_state_dict(state_dict(path))
    return model.eval()


def batch(tensors: dict, prefix: str) -> Batch:
    fields = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    ids, pooling = fields["input_ids"], fields["token_pooling"].long()
    default = torch.where(ids >= 0, torch.arange(ids.shape[1], device=DEVICE).expand_as(ids), -1)
    layout = tuple(RowLayout((), int((i >= 0).sum()), int((p >= 0).any(-1).sum())) for i, p in zip(ids, pooling, strict=True))
    return Batch(
        input_ids=ids,
        position_ids=fields.get("position_ids", default),
        layout=layout,
        subsegment_ids=fields.get("subsegment_ids"),
        images=fields["images_u8"],
        token_pooling=pooling,
    )


@pytest.mark.parametrize("path, key", quantities("molmo2", "out.logits"))
def test_golden_molmo2_logits(path, key):
    with torch.no_grad():
        actual = build(path)(batch(load(path)[1], "in."), logits="all").logits
    check_close(actual, path, key, 1e-5)


@pytest.mark.parametrize("path, key", quantities("molmo2", "out.generated"))
def test_golden_molmo2_greedy_answers(path, key):
    expected = load(path)[1][key][:, 0]  # [B, beam, steps]
    output = generate(build(path), batch(load(path)[1], "in.generate."), expected.shape[1])
    assert output.token_ids == expected.tolist()


def test_golden_kinds_are_known():
    """A file of a kind without tests fails by name."""
    known = ("vit", "vision_backbone", "temporal_vision_backbone", "molmo2")
    assert not [path.name for path in all_files() if header(path)[0].get("kind") not in known]
