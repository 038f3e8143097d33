"""The decoder: Qwen3 (pre-norm, per-head q/k norm) and OLMo3 (post-norm, full-width q/k norm, yarn on some layers)."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import nn

from olmo.nn.attention_mask import Mask, masked_attention
from olmo.nn.init import truncated_normal_
from olmo.nn.kv_cache import KVCache, LayerCache
from olmo.nn.llm_config import AttentionLayerNormType, LlmConfig
from olmo.nn.losses import ChunkFunctions, LossTerms, linear_cross_entropy, linear_logits
from olmo.nn.norms import build_norm
from olmo.nn.rope import RopeSettings, RopeTables, apply_rope, rope_tables

__all__ = ["Embedding", "KVCache", "LlmConfig", "OutputHead", "SequentialBlock", "Transformer"]


class ResidualDropout(nn.Module):
    """Dropout whose rate may differ on the tokens that carry a loss."""

    def __init__(self, p: float, response_p: float):
        super().__init__()
        self.p, self.response_p = p, response_p

    def forward(self, x: torch.Tensor, response_mask: torch.Tensor | None) -> torch.Tensor:
        # x: [B, S, d], response_mask: bool [B, S]
        if not self.training or (self.p == 0.0 and self.response_p == 0.0):
            return x
        if self.response_p == 0.0 or response_mask is None:
            return F.dropout(x, self.p)
        keep = torch.where(response_mask, 1.0 - self.response_p, 1.0 - self.p)[..., None].to(x.dtype)
        return x * torch.bernoulli(keep.expand_as(x)) / keep


class SequentialBlock(nn.Module):
    """Attention, then SwiGLU MLP, each added to the residual stream."""

    def __init__(self, config: LlmConfig):
        super().__init__()
        c = self.config = config
        width, kv_width = c.n_heads * c.head_size, c.kv_heads * c.head_size
        self.attn_norm = build_norm(c.layer_norm_type, c.d_model, c.norm_eps, c.layer_norm_with_affine, c.norm_bias)
        self.ff_norm = build_norm(c.layer_norm_type, c.d_model, c.norm_eps, c.layer_norm_with_affine, c.norm_bias)
        self.att_proj = nn.Linear(c.d_model, width + 2 * kv_width, bias=c.include_bias or c.qkv_bias)  # rows: q, k, v
        self.attn_out = nn.Linear(width, c.d_model, bias=c.include_bias)
        self.ff_proj = nn.Linear(c.d_model, c.hidden_size, bias=c.include_bias)  # rows: up, gate
        self.ff_out = nn.Linear(c.hidden_size // 2, c.d_model, bias=c.include_bias)
        self.norm_per_head = c.attention_layer_norm_type == AttentionLayerNormType.qwen3
        if c.attention_layer_norm:
            sizes = (c.head_size, c.head_size) if self.norm_per_head else (width, kv_width)
            affine = c.attention_layer_norm_with_affine
            self.q_norm = build_norm("rms", sizes[0], c.norm_eps, affine, c.norm_bias)
            self.k_norm = build_norm("rms", sizes[1], c.norm_eps, affine, c.norm_bias)
        self.dropout = ResidualDropout(c.residual_dropout, c.response_residual_dropout)

    def reset_parameters(self) -> None:
        for linear in (self.att_proj, self.attn_out, self.ff_proj, self.ff_out):
            std = self.config.init_std
            if linear is self.ff_out:
                std /= math.sqrt(2 * self.config.n_layers)
            _init_normal(linear.weight, std, self.config.init_cutoff_factor)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        norms = [self.attn_norm, self.ff_norm]
        if self.config.attention_layer_norm:
            norms += [self.q_norm, self.k_norm]
        for norm in norms:
            norm.reset_parameters()

    def forward(
        self,
        x: torch.Tensor,
        rope: RopeTables,
        mask: Mask | None,
        response_mask: torch.Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> torch.Tensor:
        # x: [B, S, d]
        if self.config.norm_after:
            x = x + self.dropout(self.attn_norm(self.attention(x, rope, mask, cache)), response_mask)
            return x + self.dropout(self.ff_norm(self.mlp(x)), response_mask)
        x = x + self.dropout(self.attention(self.attn_norm(x), rope, mask, cache), response_mask)
        return x + self.dropout(self.mlp(self.ff_norm(x)), response_mask)

    def attention(self, x: torch.Tensor, rope: RopeTables, mask: Mask | None, cache: LayerCache | None) -> torch.Tensor:
        c = self.config
        fused = self.att_proj(x)
        if c.clip_qkv is not None:
            fused = fused.clamp(-c.clip_qkv, c.clip_qkv)
        kv_width = c.kv_heads * c.head_size
        q, k, v = fused.split((c.n_heads * c.head_size, kv_width, kv_width), dim=-1)
        dtype = k.dtype
        if c.attention_layer_norm and not self.norm_per_head:
            q, k = self.q_norm(q).to(dtype), self.k_norm(k).to(dtype)
        q, k, v = (t.unflatten(-1, (-1, c.head_size)) for t in (q, k, v))  # [B, S, heads, hd]
        if c.attention_layer_norm and self.norm_per_head:
            q, k = self.q_norm(q).to(dtype), self.k_norm(k).to(dtype)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # [B, heads, S, hd]
        q, k = (apply_rope(t, rope, c.rope_full_precision) for t in (q, k))
        if cache is not None:
            k, v = cache.update(k, v)
        out = masked_attention(q, k, v, mask, dropout=c.attention_dropout if self.training else 0.0)
        return self.attn_out(out.transpose(1, 2).flatten(2))

    def mlp(self, x: torch.Tensor) -> torch.Tensor:
        up, gate = self.ff_proj(x).chunk(2, dim=-1)
        return self.ff_out(F.silu(gate) * up)


class _Projection(nn.Module, ABC):
    """Logits and loss from a vocabulary matrix; a module of its own so that sharding can gather the matrix around it."""

    loss_functions: ChunkFunctions | None = None
    """Compiled versions of what the loss does with a chunk of logits."""

    @abstractmethod
    def vocabulary(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(matrix [V, d], its bias [V] or None, further rows [V', d] or None) of the logits."""

    def project(
        self, hidden: torch.Tensor, labels: torch.Tensor | None = None, weights: torch.Tensor | None = None
    ) -> torch.Tensor | LossTerms:
        """hidden [n, d] -> fp32 logits [n, V]; with labels and weights [n], their loss without all logits at once."""
        matrix, bias, extra = self.vocabulary()
        if labels is None:
            return linear_logits(hidden, matrix, bias, extra)
        return linear_cross_entropy(hidden, matrix, labels, weights, bias, extra, functions=self.loss_functions)


class Embedding(_Projection):
    """Token embedding with separate rows for the special tokens, which are trained at another rate and never predicted."""

    def __init__(self, rows: int, new_rows: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(rows, width))
        self.new_embedding = nn.Parameter(torch.empty(new_rows, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        # two small look-ups instead of one in the concatenated table, which would copy the whole table
        new = ids - self.embedding.shape[0]
        base = F.embedding(ids.clamp(max=self.embedding.shape[0] - 1), self.embedding)
        return torch.where((new >= 0)[..., None], F.embedding(new.clamp(min=0), self.new_embedding), base)

    def vocabulary(self):
        return self.embedding, None, None


class PlainEmbedding(_Projection):
    """One table for all tokens."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight)

    def vocabulary(self):
        return self.weight, None, None


class OutputHead(_Projection):
    """Output matrix of untied models."""

    def __init__(self, rows: int, new_rows: int, width: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None
        self.new_weight = nn.Parameter(torch.empty(new_rows, width)) if new_rows else None

    def vocabulary(self):
        return self.weight, self.bias, self.new_weight

    def forward(self, hidden, labels=None, weights=None):
        return self.project(hidden, labels, weights)


class Transformer(nn.Module):
    """Embedding, blocks, final norm and head under their published parameter names."""

    def __init__(self, config: LlmConfig):
        super().__init__()
        config.validate()
        c = self.config = config
        if c.additional_vocab_size is None:
            self.wte: Embedding | PlainEmbedding = PlainEmbedding(c.embedding_rows, c.d_model)
        else:
            self.wte = Embedding(c.embedding_rows, c.additional_vocab_size, c.d_model)
        self.emb_drop = nn.Dropout(c.embedding_dropout)
        self.blocks = nn.ModuleList(SequentialBlock(c) for _ in range(c.n_layers))
        self.rope_settings = [c.rope_settings(layer) for layer in range(c.n_layers)]
        self.ln_f = build_norm(c.layer_norm_type, c.d_model, c.norm_eps, c.layer_norm_with_affine, c.norm_bias)
        if not c.weight_tying:
            extra = c.additional_vocab_size if c.can_predict_extra_tokens else 0
            self.ff_out = OutputHead(c.embedding_rows, extra, c.d_model, c.include_bias)

    def reset_parameters(self) -> None:
        c = self.config
        table = self.wte.embedding if isinstance(self.wte, Embedding) else self.wte.weight
        _init_normal(table, c.init_std * (0.5 * math.sqrt(c.d_model) if c.scale_logits else 1.0), c.init_cutoff_factor)
        self.reset_new_embedding()
        for block in self.blocks:
            block.reset_parameters()
        self.ln_f.reset_parameters()
        if not c.weight_tying:
            _init_normal(self.ff_out.weight, c.init_std, c.init_cutoff_factor)
            if self.ff_out.bias is not None:
                nn.init.zeros_(self.ff_out.bias)
            if self.ff_out.new_weight is not None:
                _init_normal(self.ff_out.new_weight, c.new_embedding_init_range, None)

    def reset_new_embedding(self) -> None:
        """Draw the special tokens' embedding, which pretrained language models do not have."""
        if isinstance(self.wte, Embedding):
            nn.init.normal_(self.wte.new_embedding, std=self.config.new_embedding_init_range)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [B, S] (padding reads row 0) -> [B, S, d], before dropout and scaling."""
        return self.wte(ids.clamp(min=0))

    def forward(
        self,
        x: torch.Tensor,
        position_ids: torch.Tensor,
        mask: Mask | None,
        cache: KVCache | None = None,
        response_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings [B, S, d] -> output of the last block [B, S, d], before the final norm (see `logits` and `loss`)."""
        x = self.emb_drop(x)
        if self.config.normalize_input_embeds:
            x = x * math.sqrt(self.config.d_model)
        tables: dict[RopeSettings, RopeTables] = {}
        for layer, block in enumerate(self.blocks):
            settings = self.rope_settings[layer]
            if settings not in tables:
                tables[settings] = rope_tables(settings, position_ids)
            x = block(x, tables[settings], mask, response_mask, cache=None if cache is None else cache.layers[layer])
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows of the last block's output [n, d] -> fp32 logits [n, V]."""
        return self._head(self._final(hidden))

    def loss(self, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> LossTerms:
        """Rows [n, d], labels [n] and weights [n] -> weighted sums, without ever holding all logits."""
        return self._head(self._final(hidden), labels, weights)

    def _head(self, *args):
        return self.wte.project(*args) if self.config.weight_tying else self.ff_out(*args)

    def _final(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.ln_f(hidden)
        return hidden / math.sqrt(self.config.d_model) if self.config.scale_logits else hidden


def _init_normal(weight: torch.Tensor, std: float, cutoff_factor: float | None) -> None:
    if cutoff_factor is None:
        nn.init.normal_(weight, std=std)
    else:
        truncated_normal_(weight, std, bound=cutoff_factor * std)
