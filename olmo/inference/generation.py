"""Answers token by token: greedy or sampled, whole batches of prompts of different lengths at once."""

import time
from dataclasses import dataclass

import torch

from olmo.batch import Batch
from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError
from olmo.inference.decoding import decoder
from olmo.models.model import ModelBase
from olmo.nn.vision_backbone import VisionOutput

CHECK_EVERY = {"cuda": 16}
"""Tokens between two looks at whether all rows have ended. Looking waits for the device, which costs more than some steps
too many; what a row says behind its end is cut either way."""


@dataclass
class SamplingConfig(BaseConfig):
    """How the next token is chosen. Penalties look at generated tokens only, not at the prompt."""

    temperature: float = 0.0
    """0 = the most likely token."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this probability."""
    top_k: int | None = None
    """Sample from this many most likely tokens."""
    ngram_size: int | None = None
    """Never generate the same n-gram of this size twice."""
    repetition_penalty: float | None = None
    """Multiply the log-probability of tokens generated before."""
    frequency_penalty: float | None = None
    """Subtract this from the log-probability per earlier occurrence."""

    def validate(self) -> None:
        if self.temperature < 0:
            raise OLMoConfigurationError(f"sampling.temperature must not be negative, but is {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise OLMoConfigurationError(f"sampling.top_p must be above 0 and at most 1, not {self.top_p}")
        for name in ("top_k", "ngram_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OLMoConfigurationError(f"sampling.{name} must be at least 1, not {value}")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k is not None):
            raise OLMoConfigurationError("sampling.top_p and sampling.top_k need a sampling.temperature above 0")


@dataclass
class GenerationOutput:
    """Answers of a batch and what they cost."""

    token_ids: list[list[int]]
    """Generated ids of every row, without the end token."""
    tokens_before: list[int]
    """Prompt tokens of every row before pruning (with the visual tokens of frames left out, but not their time stamps)."""
    tokens_after: list[int]
    """Prompt tokens that the language model read."""
    seconds: dict[str, float]
    """Wall-clock seconds of `vision`, `prefill` (language model over the prompt) and `decode` (all later tokens)."""
    steps: int
    """Decoding steps that ran: one less than the tokens of the longest row, and a few more where the end was noticed late."""
    vision: VisionOutput | None
    """What the vision backbone returned: kept cells and scores."""


@torch.no_grad()
def generate(
    model: ModelBase,
    batch: Batch,
    max_new_tokens: int,
    eos_id: int | None = None,
    sampling: SamplingConfig | None = None,
    generator: torch.Generator | None = None,
    process_group=None,
    capture: bool | None = None,
) -> GenerationOutput:
    """Continue every row of `batch` (on the model's device) until `eos_id` or `max_new_tokens`.

    Ranks that share a sharded model must take the same number of steps: give their `process_group`, and all go on
    until the last row of the last rank is finished. `capture`: decode with a CUDA graph, the time of capturing counted as
    decoding; None = where that is faster, which is never with a `process_group`.
    """
    sampling = sampling or SamplingConfig()
    sampling.validate()
    if max_new_tokens < 1:
        raise OLMoConfigurationError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    training = model.training
    model.eval()
    try:
        clock = _Clock(batch.input_ids.device)
        vision = model.encode_vision(batch)
        seconds = {"vision": clock.lap()}
        logits, state, output = model.prefill(batch, max_new_tokens, vision=vision)
        seconds["prefill"] = clock.lap()
        step = decoder(model, state, max_new_tokens - 1, False if process_group is not None else capture)
        generated = torch.zeros(len(batch), max_new_tokens, dtype=torch.long, device=logits.device)
        finished = torch.zeros(len(batch), dtype=torch.bool, device=logits.device)
        check_every = CHECK_EVERY.get(logits.device.type, 1)
        for length in range(1, max_new_tokens + 1):
            ids = choose(logits, generated[:, : length - 1], sampling, generator)
            generated[:, length - 1] = ids
            if eos_id is not None:
                finished |= ids == eos_id
                if length % check_every == 0 and _all_finished(finished, process_group):
                    break
            if length < max_new_tokens:
                logits = step(ids)
        rows = [_cut(row, eos_id) for row in generated[:, :length].tolist()]
        seconds["decode"] = clock.lap()
    finally:
        model.train(training)
    before = [row.num_tokens + row.num_spared for row in batch.layout]
    return GenerationOutput(rows, before, list(output.tokens_after), seconds, length - 1, output.vision)


def choose(logits: torch.Tensor, generated: torch.Tensor, sampling: SamplingConfig, generator: torch.Generator | None) -> torch.Tensor:
    """Next token [B] from logits [B, V] after `generated` [B, t]."""
    logits = logits.float()
    if sampling.repetition_penalty is not None or sampling.frequency_penalty is not None:
        logits = _penalise(logits.log_softmax(-1), generated, sampling)
    if sampling.ngram_size is not None:
        logits = _ban_ngrams(logits, generated, sampling.ngram_size)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], float("-inf"))
    if sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    probabilities = logits.softmax(-1)
    if generator is not None and generator.device != probabilities.device:
        return torch.multinomial(probabilities.to(generator.device), 1, generator=generator)[:, 0].to(logits.device)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _penalise(log_probs: torch.Tensor, generated: torch.Tensor, sampling: SamplingConfig) -> torch.Tensor:
    counts = torch.zeros_like(log_probs).scatter_add_(1, generated, torch.ones_like(generated, dtype=log_probs.dtype))
    if sampling.repetition_penalty is not None:
        log_probs = torch.where(counts > 0, log_probs * sampling.repetition_penalty, log_probs)
    if sampling.frequency_penalty is not None:
        log_probs = log_probs - counts * sampling.frequency_penalty
    return log_probs


def _ban_ngrams(logits: torch.Tensor, generated: torch.Tensor, n: int) -> torch.Tensor:
    """Exclude every token that would complete an n-gram seen before."""
    length = generated.shape[1]
    if length < n:
        return logits
    windows = generated.unfold(1, n, 1)  # [B, length - n + 1, n]
    current = generated[:, length - n + 1 :]  # [B, n - 1]
    seen = (windows[..., :-1] == current[:, None]).all(-1)
    spare = logits.shape[-1]
    banned = torch.where(seen, windows[..., -1], spare)
    padded = torch.nn.functional.pad(logits, (0, 1))
    return padded.scatter(1, banned, float("-inf"))[:, :spare]


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the most likely tokens up to and including the one that reaches probability `top_p`."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return torch.full_like(logits, float("-inf")).scatter(1, order, ordered.masked_fill(before >= top_p, float("-inf")))


def _all_finished(finished: torch.Tensor, process_group) -> bool:
    missing = (~finished).sum()
    if process_group is not None:
        torch.distributed.all_reduce(missing, group=process_group)
    return not missing


def _cut(ids: list[int], eos_id: int | None) -> list[int]:
    return ids[: ids.index(eos_id)] if eos_id in ids else ids


class _Clock:
    """Seconds between laps, with the device's queue emptied at each."""

    def __init__(self, device: torch.device):
        self.device = device
        self.lap()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        elapsed = now - getattr(self, "last", now)
        self.last = now
        return elapsed
