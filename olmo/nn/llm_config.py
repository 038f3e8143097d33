"""The `llm` block of a model config: published field names and defaults."""

from dataclasses import dataclass, field
from typing import Any

from olmo.config import BaseConfig, StrEnum, refuse_set
from olmo.exceptions import OLMoConfigurationError
from olmo.nn.rope import RopeSettings, RopeType
from olmo.tokenizer import TokenizerConfig


class LayerNormType(StrEnum):
    default = "default"
    low_precision = "low_precision"
    rms = "rms"


class AttentionLayerNormType(StrEnum):
    olmo = "olmo"
    qwen3 = "qwen3"


class AttentionType(StrEnum):
    sdpa = "sdpa"
    direct = "direct"
    flash = "flash"


class BlockType(StrEnum):
    sequential = "sequential"
    llama = "llama"
    moe = "moe"


class ActivationType(StrEnum):
    swiglu = "swiglu"


class ActivationCheckpoint(StrEnum):
    """Which LLM blocks are recomputed in the backward pass; fine_grained, a name of published files, acts as whole_layer."""

    whole_layer = "whole_layer"
    one_in_two = "one_in_two"
    one_in_three = "one_in_three"
    one_in_four = "one_in_four"
    two_in_three = "two_in_three"
    three_in_four = "three_in_four"
    fine_grained = "fine_grained"

    def wraps(self, layer: int) -> bool:
        """Is block `layer` recomputed? `n_in_m` recomputes the last n of every m blocks."""
        taken, period = {
            ActivationCheckpoint.one_in_two: (1, 2),
            ActivationCheckpoint.one_in_three: (1, 3),
            ActivationCheckpoint.one_in_four: (1, 4),
            ActivationCheckpoint.two_in_three: (2, 3),
            ActivationCheckpoint.three_in_four: (3, 4),
        }.get(self, (1, 1))
        return layer % period >= period - taken


@dataclass
class LlmConfig(BaseConfig):
    """A Qwen3- or OLMo3-like decoder."""

    d_model: int = 768
    """Width of the residual stream."""
    n_heads: int = 12
    """Query heads."""
    n_kv_heads: int | None = None
    """Key and value heads; null = n_heads."""
    head_dim: int | None = None
    """Width of a head; null = d_model / n_heads."""
    qkv_bias: bool = False
    """Bias of the q, k, v projection even if include_bias is false (Qwen2)."""
    clip_qkv: float | None = None
    """Clamp the fused projection to +-clip_qkv."""
    n_layers: int = 12
    """Blocks."""
    mlp_ratio: int = 4
    """mlp_hidden_size / d_model where mlp_hidden_size is null."""
    mlp_hidden_size: int | None = None
    """Rows of ff_proj: both halves of SwiGLU together."""
    activation_type: ActivationType = ActivationType.swiglu
    """Only swiglu."""
    block_type: BlockType = BlockType.sequential
    """Only sequential; llama and moe are known names of older files."""
    rope: bool = False
    """Must be true: there is no learned position embedding."""
    rope_full_precision: bool = True
    """Rotate in fp32."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rope_type: RopeType = RopeType.default
    """default, llama3 or yarn."""
    rope_factor: float | None = None
    """Context extension factor of llama3 and yarn."""
    rope_high_freq_factor: float | None = None
    """llama3: rotations above which a frequency stays."""
    rope_low_freq_factor: float | None = None
    """llama3: rotations below which a frequency is divided."""
    rope_original_max_position_embeddings: int | None = None
    """Context length before extension."""
    rope_attention_factor: float | None = None
    """yarn: factor on cos and sin; null = 0.1 ln(rope_factor) + 1."""
    rope_beta_fast: float | None = None
    """yarn: rotations where the ramp starts; null = 32."""
    rope_beta_slow: float | None = None
    """yarn: rotations where the ramp ends; null = 1."""
    rope_mscale: float | None = None
    """yarn: with rope_mscale_all_dim, their ratio replaces the default attention factor."""
    rope_mscale_all_dim: float | None = None
    """See rope_mscale."""
    rope_truncate: bool | None = None
    """yarn: round the ramp to whole dimensions; null = true."""
    attention_type: AttentionType = AttentionType.sdpa
    """Only sdpa: block-sparse flex attention on GPUs, dense SDPA elsewhere."""
    full_attention_layers: list[int] | None = None
    """Layers that use rope_type while the others use default frequencies; null = all layers use rope_type."""
    sliding_attention_rope_scaling: bool = False
    """Swap the roles: the listed layers use default frequencies."""
    float32_attention: bool = True
    """Carried by published configs; nothing reads it."""
    attention_dropout: float = 0.0
    """Dropout of attention probabilities."""
    attention_layer_norm: bool = False
    """RMS norm of queries and keys."""
    attention_layer_norm_type: AttentionLayerNormType = AttentionLayerNormType.olmo
    """olmo: over the whole projection; qwen3: per head."""
    residual_dropout: float = 0.1
    """Dropout of each branch before it is added."""
    response_residual_dropout: float = 0.0
    """If above 0: dropout on tokens with a loss, residual_dropout on the others."""
    layer_norm_type: LayerNormType = LayerNormType.default
    """Norms of the blocks."""
    layer_norm_with_affine: bool = True
    """Norms have a weight."""
    layer_norm_eps: float | None = None
    """null = 1e-5."""
    attention_layer_norm_with_affine: bool = True
    """The norms of queries and keys have a weight."""
    max_sequence_length: int = 1024
    """Longest sequence of training."""
    max_position_embeddings: int | None = None
    """Longest position that an export declares; null = max_sequence_length."""
    include_bias: bool = True
    """Biases in all linear layers."""
    bias_for_layer_norm: bool | None = None
    """Biases in norms; null = include_bias."""
    norm_after: bool = False
    """Norm the output of a branch instead of its input (OLMo2, OLMo3)."""
    moe_num_experts: int | None = 8
    """Carried by published configs, as all moe_ fields; nothing reads them."""
    moe_top_k: int | None = 2
    """See moe_num_experts."""
    moe_mlp_impl: str | None = "sparse"
    """See moe_num_experts."""
    moe_log_expert_assignment: bool | None = False
    """See moe_num_experts."""
    moe_shared_expert: bool | None = False
    """See moe_num_experts."""
    moe_lbl_in_fp32: bool | None = False
    """See moe_num_experts."""
    moe_interleave: bool | None = False
    """See moe_num_experts."""
    moe_loss_weight: float | None = 0.1
    """See moe_num_experts."""
    moe_zloss_weight: float | None = None
    """See moe_num_experts."""
    moe_dropless: bool | None = True
    """See moe_num_experts."""
    moe_capacity_factor: float | None = 1.25
    """See moe_num_experts."""
    embedding_dropout: float = 0.1
    """Dropout of the embeddings."""
    scale_logits: bool = False
    """Divide logits by sqrt(d_model)."""
    vocab_size: int = 50257
    """Entries of the tokenizer."""
    additional_vocab_size: int | None = 128
    """Rows of the separate embedding of special tokens; null = one plain embedding."""
    weight_tying: bool = True
    """The output head is the embedding."""
    embedding_size: int | None = 50304
    """Rows of the embedding; null = vocab_size."""
    use_position_ids: bool = True
    """Must be true: batches carry position ids."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """The tokenizer this model was trained with."""
    can_predict_extra_tokens: bool = False
    """The (untied) head also has rows for the special tokens."""
    init_path: str | None = None
    """File of pretrained weights that a fresh model starts from."""
    init_incremental: int | None = None
    """Of older files; loading never holds a second copy of the weights here."""
    new_embedding_init_range: float = 0.02
    """Standard deviation of the special tokens' embedding."""
    initializer_range: float = 0.02
    """Standard deviation of the connector's projector."""
    normalize_input_embeds: bool = False
    """Multiply embeddings by sqrt(d_model)."""
    activation_checkpoint: ActivationCheckpoint | None = ActivationCheckpoint.whole_layer
    """Blocks recomputed in the backward pass; null = none."""
    compile: str | None = "blocks"
    """blocks: every block and the loss; null: nothing. Only used where the run asks for compilation."""
    fix_pad_tokenizer: bool = False
    """Special tokens start at the size of the embedding instead of vocab_size."""
    init_std: float = 0.02
    """Standard deviation of linear layers and embeddings."""
    init_fn: str = "normal"
    """Only normal."""
    init_cutoff_factor: float | None = None
    """Cut the normal distribution at this many standard deviations."""

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        raw = dict(raw)
        refuse_set(raw, ("mm_rope", "debug"), "llm")
        return raw

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_size(self) -> int:
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def hidden_size(self) -> int:
        """Rows of ff_proj."""
        return self.mlp_ratio * self.d_model if self.mlp_hidden_size is None else self.mlp_hidden_size

    @property
    def embedding_rows(self) -> int:
        return self.vocab_size if self.embedding_size is None else self.embedding_size

    @property
    def first_special_token(self) -> int:
        """Id of the first special token: the tokenizer is padded up to here."""
        return self.embedding_rows if self.fix_pad_tokenizer else self.vocab_size

    @property
    def norm_eps(self) -> float:
        return 1e-5 if self.layer_norm_eps is None else self.layer_norm_eps

    @property
    def norm_bias(self) -> bool:
        return self.include_bias if self.bias_for_layer_norm is None else self.bias_for_layer_norm

    def rope_settings(self, layer: int) -> RopeSettings:
        """What determines the rotary frequencies of block `layer`."""
        scaled = True
        if self.full_attention_layers is not None:
            scaled = (layer in self.full_attention_layers) != self.sliding_attention_rope_scaling
        if not scaled or self.rope_type == RopeType.default:
            return RopeSettings(self.head_size, self.rope_theta)
        return RopeSettings(
            self.head_size,
            self.rope_theta,
            self.rope_type,
            factor=self.rope_factor,
            low_freq_factor=self.rope_low_freq_factor,
            high_freq_factor=self.rope_high_freq_factor,
            original_max_positions=self.rope_original_max_position_embeddings,
            attention_factor=self.rope_attention_factor,
            beta_fast=self.rope_beta_fast,
            beta_slow=self.rope_beta_slow,
            mscale=self.rope_mscale,
            mscale_all_dim=self.rope_mscale_all_dim,
            truncate=self.rope_truncate is not False,
        )

    def validate(self) -> None:
        """Refuse what cannot run, naming the field."""
        for name, value, only in (
            ("block_type", self.block_type, BlockType.sequential),
            ("attention_type", self.attention_type, AttentionType.sdpa),
            ("init_fn", self.init_fn, "normal"),
            ("rope", self.rope, True),
            ("use_position_ids", self.use_position_ids, True),
        ):
            if value != only:
                raise OLMoConfigurationError(f"llm.{name} '{value}' is not supported; only '{only}' is")
        if self.n_heads % self.kv_heads:
            raise OLMoConfigurationError(f"llm.n_heads ({self.n_heads}) must be a multiple of llm.n_kv_heads ({self.kv_heads})")
        if self.head_size % 2 or self.hidden_size % 2:
            raise OLMoConfigurationError("llm.head_dim and llm.mlp_hidden_size must be even")
        per_head = self.attention_layer_norm_type == AttentionLayerNormType.qwen3
        if self.attention_layer_norm and not per_head and self.n_heads * self.head_size != self.d_model:
            raise OLMoConfigurationError("llm.attention_layer_norm_type 'olmo' needs n_heads * head_dim equal to d_model")
        if self.can_predict_extra_tokens and (self.weight_tying or self.additional_vocab_size is None):
            raise OLMoConfigurationError("llm.can_predict_extra_tokens needs weight_tying false and an additional_vocab_size")
        if self.compile not in (None, "blocks"):
            raise OLMoConfigurationError(f"llm.compile must be 'blocks' or null, not '{self.compile}'")
