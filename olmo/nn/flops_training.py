"""FLOPs of a training step from those of its forward pass, and the speed-up that pruning could bring at best.

Model FLOPs are what the mathematics needs: every product once forward, once for the gradient of its input, once for that
of its weight. Hardware FLOPs add what is computed again to save memory: recomputed blocks, and the head, whose logits are
never kept. MFU divides the first by the peak of the device, HFU the second.
"""

from dataclasses import dataclass
from typing import Any

from olmo.nn.flops import FlopCount, flops_for_video, llm_block_weights, vit_block_weights
from olmo.nn.image_vit import VisionBackboneType


@dataclass(frozen=True)
class Trained:
    """Which weights get a gradient. A frozen ViT counts as without backward pass, even where its scorer is trained.

    The products of low-rank adapters are not counted: they are a percent of those of the layers that they adapt.
    """

    llm: bool = True
    """Blocks of the decoder."""
    head: bool = True
    """Matrix of the output head (the word embedding of tied models)."""
    vit: bool = True
    """ViT and scorer."""
    connector: bool = True
    """Connector."""
    adapted: frozenset[str] = frozenset()
    """Which of llm, vit and connector hold adapters: gradients pass through their frozen weights."""

    def passes(self, part: str) -> bool:
        """Whether something inside this part is trained."""
        return getattr(self, part) or part in self.adapted


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of forward and backward pass."""

    model: float
    """What the mathematics needs."""
    hardware: float
    """What is computed: with recomputation."""


def step_flops(count: FlopCount, model_config: Any, trained: Trained = Trained(), recompute: str = "none") -> StepFlops:
    """A step whose forward pass costs `count`; `recompute`: none, selective or full where the model config asks for it."""
    model = training_flops(count, trained)
    return StepFlops(model, model + count.head + (recomputed_flops(count, model_config) if recompute == "full" else 0.0))


def training_flops(count: FlopCount, trained: Trained = Trained()) -> float:
    """Forward and backward pass: thrice the forward pass where everything is trained, less where weights are frozen.

    Pixels need no gradient, so the patch embedding counts twice only.
    """
    vit = trained.passes("vit")
    before_llm = vit or trained.passes("connector")
    backward = trained.vit * (count.patch_embedding + count.vit_linear + count.scorer)
    backward += vit * (count.vit_linear + 2 * count.vit_attention + count.scorer)
    backward += (trained.connector + (vit or "connector" in trained.adapted)) * count.connector
    anything = before_llm or trained.passes("llm")
    backward += (trained.llm + anything) * count.llm_linear + 2 * anything * count.llm_attention
    backward += (trained.head + anything) * count.head
    return count.total + backward


def recomputed_flops(count: FlopCount, model_config: Any) -> float:
    """What the backward pass computes again with full checkpointing.

    Recomputation stops when everything saved is there, so the last product of a block is not repeated, unless its result is
    itself saved: for dropout, a norm or a layer scale behind it.
    """
    llm, vision = model_config.llm, model_config.vision_backbone
    total = 0.0
    if llm.activation_checkpoint is not None:
        share = sum(llm.activation_checkpoint.wraps(layer) for layer in range(llm.n_layers)) / llm.n_layers
        last = llm.hidden_size // 2 * llm.d_model
        if llm.norm_after or llm.residual_dropout or llm.response_residual_dropout:
            last = 0
        total += share * (count.llm_linear * (1 - last / llm_block_weights(llm)) + count.llm_attention)
    if vision is None:
        return total
    vit = vision.vit
    if vit.activation_checkpointing:
        last = 0 if vit.image_model_type == VisionBackboneType.dino else vit.image_mlp_dim * vit.image_emb_dim
        total += count.vit_linear * (1 - last / vit_block_weights(vit)) + count.vit_attention + count.scorer
    if vision.connector_activation_checkpointing:
        total += count.connector
    return total


def ideal_speedup(
    model_config: Any,
    num_frames: int,
    text_tokens: int,
    *,
    part: str = "all",
    topk: float | None = None,
    loss_tokens: int = 0,
    training: bool = False,
    real_mask: bool = False,
) -> float:
    """How much faster pruning could make a part (see `flops.PARTS`) if time were FLOPs; the base is the same model unpruned.

    `training`: forward and backward pass of everything that is trained, without recomputation.
    """
    counts = [
        flops_for_video(model_config, num_frames, text_tokens, loss_tokens=loss_tokens, topk=t, real_mask=real_mask) for t in (0.0, topk)
    ]
    base, pruned = (training_flops(c.only(part)) if training else c.part(part) for c in counts)
    return base / pruned
