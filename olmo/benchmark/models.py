"""Models and batches of a case: random weights and noise in the shapes of a config; what is timed does not depend on values."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from olmo.batch import Batch, ExampleLayout, MultimodalType, RowLayout, VisualSegment
from olmo.benchmark.cases import Case
from olmo.budget import frames_within_budget
from olmo.config import read_yaml
from olmo.config_files import find_config
from olmo.models.model import ModelBase, build_model_config
from olmo.models.molmo2.preprocessor import video_cells
from olmo.nn.attention_mask import dense_mask

BASE = "stts_50"
"""The config whose `model` block every case changes."""
SEED = 0


@dataclass
class Arm:
    """One of the two models of a case, with the batch that it gets."""

    config: Any
    model: ModelBase
    batch: Batch


def overrides_of(case: Case, method: str) -> list[str]:
    """Changes to the `model` block; `method` none = without pruning."""
    prune = ["prune=false"] if method == "none" else [f"prune_method={method}", f"topk={case.topk:g}", f"packing={case.packing}"]
    vision = [*case.vision, *(f"vit.{word}" for word in (*prune, f"activation_checkpointing={case.recompute}".lower()))]
    compiled = "blocks" if case.compiled else "null"
    vision += [f"compile_vit={compiled}", f"compile_connector={'dynamic' if case.compiled else 'null'}"]
    vision += [f"connector_activation_checkpointing={case.recompute}".lower()]
    llm = [f"llm.activation_checkpoint={'whole_layer' if case.recompute else 'null'}", f"llm.compile={compiled}"]
    return [*(f"vision_backbone.{word}" for word in vision), *case.llm, *llm, "llm.residual_dropout=0"]


def config_of(case: Case, method: str | None = None) -> Any:
    """The `model` block of a case, or of the same shapes with another method."""
    raw = read_yaml(find_config(BASE))["model"]
    return build_model_config(raw).with_overrides(overrides_of(case, case.method if method is None else method))


def build(config: Any, device: torch.device) -> ModelBase:
    """The model with random weights, on its device."""
    model = config.build_model("meta").to_empty(device=device)
    torch.manual_seed(SEED)
    model.reset_parameters()
    return model


def twin(config: Any, of: ModelBase) -> ModelBase:
    """A model of another config that shares the parameters of `of`: two arms in the memory of one."""
    model = config.build_model("meta")
    shared = dict(of.named_parameters())
    for name, _ in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, shared[name])
    return model


def prepare(model: ModelBase, case: Case, compiled: bool | None = None) -> ModelBase:
    """Compilation and recomputation as the trainer applies them."""
    from olmo.models.molmo2.parallelize import parallelize_model

    compiled = case.compiled if compiled is None else compiled
    parallelize_model(
        model, compile_args={"dynamic": False} if compiled else None, activation_checkpointing="full" if case.recompute else "none"
    )
    return model


def arms(case: Case, device: torch.device) -> tuple[Arm, Arm]:
    """(baseline, pruned): the same weights, prepared alike (unless the baseline is a plain one), each with the batch that it would get."""
    configs = config_of(case, "none"), config_of(case)
    pruned = build(configs[1], device)
    base = twin(configs[0], pruned)
    if case.baseline == "plain":
        prepare(base, case, compiled=False)
        base.attention_mask = lambda tokens, batch: dense_mask(tokens, tokens, configs[0].bi_directional_attn)
    else:
        prepare(base, case)
    prepare(pruned, case)
    return tuple(Arm(c, m, video_batch(case, c).to(device)) for c, m in zip(configs, (base, pruned), strict=True))


def video_batch(case: Case, config: Any) -> Batch:
    """Rows of one video of noise and its text, a loss on the second half of the text."""
    vit, cells = config.vision_backbone.vit, video_cells(config).num_cells
    frames = frames_within_budget(case.frames, cells, vit.topk) if vit.thins_frames else case.frames
    ids, random = config.special_token_ids(), torch.Generator().manual_seed(SEED)
    frame = torch.tensor([ids["frame_start"], *[ids["image_patch"]] * cells, ids["frame_end"]])
    words = torch.randint(10, config.llm.vocab_size, (case.rows, case.text), generator=random)
    tokens = torch.cat([frame.repeat(frames).expand(case.rows, -1), words], dim=1)
    pixels = (case.rows, frames, vit.num_patches, 3 * vit.image_patch_size**2)
    return one_video_per_row(config, tokens, torch.randint(0, 256, pixels, generator=random, dtype=torch.uint8), learned=case.text // 2)


def one_video_per_row(config: Any, tokens: Tensor, images: Tensor, learned: int = 0) -> Batch:
    """A batch without padding: tokens [B, S], of which the last `learned` carry a loss, and images [B, F, N, px] (F may be 0)."""
    rows, frames, num_patches = images.shape[:3]
    cells = video_cells(config)
    patches = torch.arange(1, num_patches + 1).view(1, -1, 1)
    pooling = cells.split(patches)[0, :, :, 0] - 1  # [C, G], -1 = missing
    pooling = torch.where(pooling >= 0, pooling + torch.arange(frames)[:, None, None] * num_patches, -1).flatten(0, 1)  # [F * C, G]
    segments = (VisualSegment(MultimodalType.VIDEO, frames, cells.num_cells),) if frames else ()
    length = tokens.shape[1]
    row = RowLayout(segments, length, len(pooling), learned, (ExampleLayout(length, len(segments)),))
    masks = torch.zeros(tokens.shape)
    masks[:, length - learned :] = 1.0
    return Batch(
        input_ids=tokens,
        position_ids=torch.arange(length).expand_as(tokens).contiguous(),
        layout=(row,) * rows,
        labels=tokens.roll(-1, 1).clamp(max=config.llm.vocab_size - 1),
        loss_masks=masks,
        images=images if frames else None,
        token_pooling=pooling.expand(rows, -1, -1).contiguous() if frames else None,
        metadata=[{}] * rows,
    )


def release(module: nn.Module) -> None:
    """Forget the gradients."""
    for parameter in module.parameters():
        parameter.grad = None
