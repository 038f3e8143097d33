"""Checkpoints of this package as a model of lmms-eval, with pruning and every other setting chosen on the command line.

    python -m lmms_eval --model molmo2_stts --tasks videomme --batch_size 2 --output_path logs --log_samples \\
      --model_args pretrained=runs/stts_50,topk=0.5,max_frames=128

The class behind `--model` is made on first use, because its base comes from lmms-eval, which nothing else needs.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.inference.generation import SamplingConfig
from olmo.plugins import MODEL_NAME

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 128
"""Longest answer where a task does not say."""
MAX_BAD_FRACTION = 0.01
"""Share of unreadable videos and images that an evaluation tolerates; as answers they are empty, so they count as wrong."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
WITHOUT_EFFECT = ("until", "do_sample", "max_new_tokens", "num_beams", "image_aspect_ratio")
"""Keys of a task's generation_kwargs that are not settings of sampling."""


class CheckpointModel:
    """The methods that lmms-eval calls; together with its base class `lmms` this is `Molmo2Stts`."""

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        topk: float | None = None,
        prune_method: str | None = None,
        max_frames: int | None = None,
        positions: str | None = None,
        precision: str | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **overrides: Any,
    ) -> None:
        """What `--model_args` may hold.

        `pretrained`: a checkpoint folder of any format. `topk`, `prune_method`, `max_frames`, `positions` and `precision` as in our own
        evaluation command. Every other key sets one of the model, with or without `model.` in front: vision_backbone.vit.prune_at=2.
        """
        from olmo.checkpoints import select_checkpoint
        from olmo.eval.test_time import Scaling
        from olmo.inference.api import load_with_overrides

        super().__init__()
        if pretrained is None:
            raise OLMoConfigurationError("--model_args: name the checkpoint folder with pretrained=")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise OLMoConfigurationError(f"--batch_size {batch_size}: must be a positive number (there is no automatic one)")
        self.batch_size = int(batch_size)
        checkpoint = select_checkpoint(str(pretrained))
        words = [f"{key.removeprefix('model.')}={'null' if value is None else value}" for key, value in overrides.items()]
        words = Scaling(max_frames, topk, prune_method, positions).with_overrides(checkpoint, words)
        self.qa = load_with_overrides(checkpoint, words, device=device or device_of_rank(), precision=precision)
        self.device = self.qa.device

    def clean(self) -> None:
        """Give the memory back before answers are judged, perhaps by another model on the same device."""
        self.qa = None
        super().clean()

    # ------------------------------------------------------------------ requests

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """An answer for every request, in their order: greedy unless the task asks for sampling."""
        from tqdm import tqdm

        from olmo.data.failures import FailureLog

        together: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            together[repr(sorted(request.args[1].items()))].append(number)
        answers: list[Any] = [None] * len(requests)
        bad = FailureLog(MAX_BAD_FRACTION, "the fixed limit of an evaluation ({:g})")
        with tqdm(total=len(requests), desc="questions", disable=self.rank != 0) as progress:
            for numbers in together.values():
                for start in range(0, len(numbers), self.batch_size):
                    chunk = numbers[start : start + self.batch_size]
                    failures = self._answer([requests[i] for i in chunk], chunk, answers)
                    bad.record(len(chunk), failures)
                    progress.update(len(chunk))
        return answers

    def _answer(self, requests: Sequence[Any], numbers: Sequence[int], answers: list[Any]) -> list[OLMoDataError]:
        """Fill in the answers of one batch; returns what could not be read."""
        from lmms_eval.api.instance import GenerationResult, TokenCounts

        examples, rows, failures = [], [], []
        for number, request in zip(numbers, requests, strict=True):
            try:
                examples.append(self.qa.reader.read(self._example(request)))
                rows.append((number, request))
            except OLMoDataError as err:
                failures.append(err)
                answers[number] = GenerationResult("")
        if not examples:
            return failures
        settings = requests[0].args[1]
        length, sampling = generation_settings(settings)
        output = self.qa.generate(self.qa.reader.collate(examples), length, sampling)
        parts = zip(rows, self.qa.decode(output), output.tokens_after, output.token_ids, strict=True)
        for (number, request), text, tokens, ids in parts:
            answers[number] = GenerationResult(cut(text, settings.get("until")), TokenCounts(input_tokens=tokens, output_tokens=len(ids)))
            self.cache_hook.add_partial("generate_until", (request.args[0], settings), answers[number].text)
        return failures

    def _example(self, request: Any) -> dict[str, Any]:
        """A request as the preprocessor takes it."""
        from olmo.inference.api import QUESTION_STYLE

        text, _, visuals_of, document, task, split = request.args
        visuals = visuals_of(self.task_dict[task][split][document]) if visuals_of else None
        question = text.replace("<image>", "").strip()
        return {"question": question, "style": QUESTION_STYLE} | media(visuals or [])

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise cannot("log-likelihoods of given answers (output_type loglikelihood or multiple_choice)")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise cannot("several rounds about one example (output_type generate_until_multi_round)")


def cannot(what: str) -> OLMoConfigurationError:
    """For tasks that ask for something else than text."""
    return OLMoConfigurationError(
        f"{MODEL_NAME} answers with generated text; this task asks for {what}: choose a task of output_type generate_until"
    )


def device_of_rank() -> str | None:
    """The GPU of this process under `accelerate launch` or torchrun; None = whatever is there."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def media(visuals: Iterable[Any]) -> dict[str, Any]:
    """What a document shows, under the key that the preprocessor knows: one video file, or images (PIL or files)."""
    visuals = list(visuals)
    videos = [v for v in visuals if isinstance(v, str | Path) and Path(v).suffix.lower() not in IMAGE_SUFFIXES]
    if not visuals:
        return {}
    if videos:
        if len(visuals) > 1:
            raise OLMoConfigurationError(f"a question shows {len(visuals)} files, among them the video {videos[0]}; one video can be shown")
        if not Path(videos[0]).is_file():
            raise OLMoDataError(f"there is no video file {videos[0]}")
        return {"video": str(videos[0])}
    if odd := [v for v in visuals if not (isinstance(v, str | Path) or hasattr(v, "getexif"))]:
        raise OLMoConfigurationError(f"a question shows something of type {type(odd[0]).__name__}; videos and images can be shown")
    return {"image": visuals[0] if len(visuals) == 1 else visuals}


def generation_settings(wanted: Mapping[str, Any]) -> tuple[int, SamplingConfig]:
    """(longest answer, sampling) from the `generation_kwargs` of a task, which are those of transformers."""
    if (wanted.get("num_beams") or 1) != 1:
        raise OLMoConfigurationError(f"num_beams={wanted['num_beams']} of the task: there is no beam search; use --gen_kwargs num_beams=1")
    known = SamplingConfig.__dataclass_fields__
    for key in wanted:
        if key not in known and key not in WITHOUT_EFFECT:
            _warn_once(f"generation_kwargs: {key} is unknown here and has no effect")
    chosen = {key: wanted[key] for key in known if wanted.get(key) is not None}
    temperature = chosen.pop("temperature", None)
    samples = bool(temperature) if wanted.get("do_sample") is None else wanted["do_sample"]
    temperature = float(1 if temperature is None else temperature) if samples else 0.0
    if temperature == 0:  # there is nothing to draw from
        chosen = {key: value for key, value in chosen.items() if key not in ("top_p", "top_k")}
    return int(wanted.get("max_new_tokens") or MAX_NEW_TOKENS), SamplingConfig(temperature=temperature, **chosen)


@cache
def _warn_once(line: str) -> None:
    log.warning(line)


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first of the strings that end it."""
    ends = [until] if isinstance(until, str) else until or []
    places = [place for end in ends if end and (place := text.find(end)) >= 0]
    return text[: min(places)].strip() if places else text


@cache
def _model_class() -> type:
    from lmms_eval.api.model import lmms

    return type("Molmo2Stts", (CheckpointModel, lmms), {"__module__": __name__, "__doc__": CheckpointModel.__doc__})


def __getattr__(name: str) -> Any:
    if name == "Molmo2Stts":
        return _model_class()
    raise AttributeError(f"module {__name__} has no attribute {name}")
