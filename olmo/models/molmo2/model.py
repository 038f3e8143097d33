"""Molmo2: vision backbone, language model, and the sequence between them."""

from collections.abc import Sequence

import torch

from olmo.batch import PAD_ID, Batch
from olmo.config import resolve
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.models.model import DecodeState, LogitRows, ModelBase, ModelOutput
from olmo.models.molmo2.config import Molmo2Config
from olmo.nn.attention_mask import BiDirectionalAttn, Mask, SharedMask, TokenAttributes, build_mask, dense_mask, token_attributes
from olmo.nn.context_parallel import ContextParallel
from olmo.nn.indices import any_of, check_total, flat_positions, kept_indices
from olmo.nn.kv_cache import KVCache
from olmo.nn.llm import Transformer
from olmo.nn.vision_backbone import VisionOutput
from olmo.tokenizer import IMAGE_TOKENS, SEGMENT_STARTS


class Molmo2Model(ModelBase):
    """Images enter as features added to the embeddings of `<im_patch>` tokens."""

    def __init__(self, config: Molmo2Config):
        super().__init__()
        config.validate()
        self.config = config
        self.special_token_ids = config.special_token_ids()
        self.image_patch_id = self.special_token_ids["image_patch"]
        self.placeholder_ids = config.placeholder_ids()
        self.transformer = Transformer(config.llm)
        self.vision_backbone = None if config.vision_backbone is None else config.vision_backbone.build(config.llm)
        self.run_vision_without_images = False
        """Set for training: collectives and gradients need every rank to run the backbone, with or without images."""
        self.context: ContextParallel | None = None
        """Set for training: the ranks that have the same batches and share the work on them, whenever a loss is asked for."""
        self.mask_by_example = True
        """Cleared where blocks are compiled: the lengths of packed examples would become part of the compiled code."""

    def reset_parameters(self) -> None:
        self.transformer.reset_parameters()
        if self.vision_backbone is not None:
            self.vision_backbone.reset_parameters()

    def pretrained_files(self) -> dict[str, str]:
        files = {"transformer.": self.config.llm.init_path}
        if self.config.vision_backbone is not None:
            files["vision_backbone.image_vit."] = self.config.vision_backbone.vit.init_path
        return {prefix: resolve(path) for prefix, path in files.items() if path is not None}

    def group_of(self, name: str) -> str:
        if "temporal_token_scorer" in name:
            return "temporal_token_scorer"
        if name.startswith("vision_backbone.image_vit."):
            return "vit"
        if name.startswith("vision_backbone.") or name.endswith("wte.new_embedding"):
            return "connector"
        return "llm"

    # -- the pass over whole sequences

    def forward(self, batch: Batch, *, compute_loss: bool = False, logits: LogitRows = "loss", pad_to: int | None = None) -> ModelOutput:
        if compute_loss and self.context is not None:
            return self._shared_loss(batch, self.context, pad_to)
        vision = self._vision(batch)
        batch = self.shorten(batch, vision, pad_to)
        hidden = self._language_model(batch, vision)
        output = self._output(batch, vision)
        if compute_loss:
            _check_labels(batch)
            rows = self._rows(batch, "loss")
            flat = (t.flatten()[rows] for t in (batch.labels, batch.loss_masks))
            output.loss = self.transformer.loss(hidden.flatten(0, 1)[rows], *flat)
        else:
            output.logits = self.transformer.logits(hidden.flatten(0, 1)[self._rows(batch, logits)])
        return output

    def _shared_loss(self, batch: Batch, context: ContextParallel, pad_to: int | None) -> ModelOutput:
        """The terms of the loss for this rank's part of every sequence; over the group they add up to those of the batch."""
        vision = self._vision(batch, context)
        batch = context.pad(self.shorten(batch, vision, pad_to))
        _check_labels(batch)
        x = self.transformer.embed(context.part(batch.input_ids))
        if vision is not None:
            x = self._add_shared_features(x, batch, vision.features, context)
        mask = SharedMask(context, self._mask(batch))
        loss_masks = context.part(batch.loss_masks)
        hidden = self.transformer(x, context.part(batch.position_ids), mask, response_mask=loss_masks > 0)
        output = self._output(batch, vision)
        # How many tokens of this part have a loss is known to the device only: room for all there are, those left over weigh nothing.
        total, has_loss = sum(row.num_loss_tokens for row in batch.layout), loss_masks.flatten() > 0
        check_total(batch.loss_masks > 0, total, "tokens with a loss in the layout")
        rows = kept_indices(has_loss, min(total, len(has_loss)))
        weights = loss_masks.flatten()[rows] * (torch.arange(len(rows), device=rows.device) < has_loss.sum())
        # Those left over may stand at image tokens, which the head has no logits for.
        labels = context.part(batch.labels).flatten()[rows].masked_fill(weights == 0, -1)
        output.loss = self.transformer.loss(hidden.flatten(0, 1)[rows], labels, weights)
        return output

    def encode_vision(self, batch: Batch) -> VisionOutput | None:
        return self._vision(batch)

    def _vision(self, batch: Batch, context: ContextParallel | None = None) -> VisionOutput | None:
        if self.vision_backbone is None:
            if batch.images is not None:
                raise OLMoConfigurationError("the batch has images, but model.vision_backbone is null")
            return None
        if batch.images is None and not self.run_vision_without_images:
            return None
        return self.vision_backbone(batch.images, batch.token_pooling, batch.layout, batch.image_masks, batch.fast, context)

    def shorten(self, batch: Batch, vision: VisionOutput | None, pad_to: int | None) -> Batch:
        """The batch that the language model sees: here the same, padded or cut to `pad_to` tokens per row."""
        return batch if pad_to is None else fit_length(batch, pad_to)

    def _output(self, batch: Batch, vision: VisionOutput | None) -> ModelOutput:
        metrics = {} if vision is None else dict(vision.metrics)
        lengths = tuple(row.num_tokens for row in batch.layout)
        return ModelOutput(None, None, None if vision is None else vision.aux_loss, vision, lengths, metrics)

    def _language_model(self, batch: Batch, vision: VisionOutput | None, cache: KVCache | None = None) -> torch.Tensor:
        """Embeddings with the features added -> output of the last block [B, S, d]."""
        x = self.transformer.embed(batch.input_ids)
        if vision is not None:
            x = self._add_features(x, batch, vision.features)
        response = None if batch.loss_masks is None else batch.loss_masks > 0
        return self.transformer(x, batch.position_ids, self._mask(batch), cache, response)

    def _mask(self, batch: Batch) -> Mask:
        tokens = token_attributes(batch.input_ids, batch.subsegment_ids, self._ids(IMAGE_TOKENS), self._ids(SEGMENT_STARTS))
        return self.attention_mask(tokens, batch)

    def attention_mask(self, tokens: TokenAttributes, batch: Batch) -> Mask:
        """Who sees whom, in the cheapest form that the device and the layout allow."""
        return build_mask(tokens, self._bidirectional, batch.layout if self.mask_by_example else ())

    def _add_features(self, x: torch.Tensor, batch: Batch, features: torch.Tensor) -> torch.Tensor:
        # x: [B, S, d], features: [K, d] in the order of the <im_patch> tokens
        is_cell = any_of(batch.input_ids, self.placeholder_ids)
        where = flat_positions(is_cell, features.shape[0], "visual features for the <im_patch> tokens")
        return x.flatten(0, 1).index_add(0, where, features.to(x.dtype)).view_as(x)

    def _add_shared_features(self, x: torch.Tensor, batch: Batch, features: torch.Tensor, context: ContextParallel) -> torch.Tensor:
        # x: [B, S / degree, d], features: [K, d] of the whole batch; how many are for this part, the host does not know
        is_cell = any_of(batch.input_ids, self.placeholder_ids)
        check_total(is_cell, len(features), "visual features for the <im_patch> tokens")
        if not len(features):
            return x.flatten(0, 1).index_add(0, batch.input_ids.new_zeros(0), features.to(x.dtype)).view_as(x)
        nth = (is_cell.flatten().cumsum(0) - 1).clamp(min=0).view_as(is_cell)
        own = features.to(x.dtype).index_select(0, context.part(nth).flatten()).view_as(x)
        return x + torch.where(context.part(is_cell)[..., None], own, 0)

    def _rows(self, batch: Batch, which: LogitRows) -> torch.Tensor:
        """Flat positions [n] of the tokens named by `which`; n is known on the host."""
        if which == "loss":
            if batch.loss_masks is None:
                raise OLMoDataError("logits of the tokens with a loss were asked for, but the batch has no loss_masks")
            total = sum(row.num_loss_tokens for row in batch.layout)
            return flat_positions(batch.loss_masks > 0, total, "tokens with a loss in the layout")
        valid = batch.input_ids >= 0
        if which == "all":
            return flat_positions(valid, sum(row.num_tokens for row in batch.layout), "tokens in the layout")
        if which == "last":
            return _last(valid) + torch.arange(len(batch), device=valid.device) * valid.shape[1]
        raise ValueError(f"logits must be 'loss', 'all' or 'last', not '{which}'")

    def _ids(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.special_token_ids[name] for name in names) if self._bidirectional else ()

    @property
    def _bidirectional(self) -> BiDirectionalAttn | None:
        return self.config.bi_directional_attn

    # -- decoding

    def prefill(
        self, batch: Batch, max_new_tokens: int, vision: VisionOutput | None = None
    ) -> tuple[torch.Tensor, DecodeState, ModelOutput]:
        vision = self._vision(batch) if vision is None else vision
        batch = self.shorten(batch, vision, None)
        cache = KVCache(self.config.llm.n_layers, batch.input_ids.shape[1] + max_new_tokens)
        hidden = self._language_model(batch, vision, cache)
        output = self._output(batch, vision)
        output.logits = self.transformer.logits(hidden.flatten(0, 1)[self._rows(batch, "last")])
        return output.logits, start_decoding(batch, cache), output

    def decode_step(self, ids: torch.Tensor, state: DecodeState) -> torch.Tensor:
        x = self.transformer.embed(ids[:, None])  # [B, 1, d]
        mask = dense_mask(*_decode_attributes(state), None)  # [B, 1, 1, max_length]
        hidden = self.transformer(x, state.positions[:, None], mask, state.cache)
        state.positions += 1  # in place: a captured step reads and writes the same memory every time
        state.cache.slots += 1
        return self.transformer.logits(hidden[:, 0])


def _check_labels(batch: Batch) -> None:
    if batch.labels is None or batch.loss_masks is None:
        raise OLMoDataError("a loss was asked for, but the batch has no labels and loss_masks")


def start_decoding(batch: Batch, cache: KVCache) -> DecodeState:
    """The state after the prompts of `batch` went into `cache`."""
    valid = batch.input_ids >= 0
    last = _last(valid)[:, None]
    cache.slots = last[:, 0] + 1
    subsegments = torch.zeros_like(batch.input_ids) if batch.subsegment_ids is None else batch.subsegment_ids
    current = subsegments.gather(1, last)  # [B, 1]
    future = current.expand(-1, cache.max_length - valid.shape[1])
    subsegments = torch.cat([torch.where(valid, subsegments, current), future], dim=1)
    return DecodeState(cache, batch.position_ids.gather(1, last)[:, 0] + 1, subsegments)


def _decode_attributes(state: DecodeState) -> tuple[TokenAttributes, TokenAttributes]:
    """(new token, every slot); slots behind the new token are hidden by causality alone."""
    slots = torch.arange(state.cache.max_length, device=state.positions.device).expand_as(state.subsegments)
    zero, true = torch.zeros_like(slots), torch.ones_like(slots, dtype=torch.bool)
    keys = TokenAttributes(slots, state.subsegments, zero, ~true, zero, true)
    at = state.cache.slots[:, None]
    return keys.map(lambda t: t.gather(1, at)), keys


def _last(valid: torch.Tensor) -> torch.Tensor:
    """[B] index of the last valid token of every right-padded row."""
    return (valid.sum(1) - 1).clamp(min=0)


def fit_length(batch: Batch, length: int) -> Batch:
    """Pad every row, or cut its padding, to `length` tokens."""
    longest = max(row.num_tokens for row in batch.layout)
    if longest > length:
        raise OLMoDataError(f"a row has {longest} tokens, which does not fit into sequences of {length}; raise data.sequence_length")
    extra = length - batch.input_ids.shape[1]
    return batch.map_text(lambda t: torch.nn.functional.pad(t, (0, extra), value=PAD_ID))
