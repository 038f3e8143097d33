"""From a raw example to the strings of its conversation(s): what the user says and what the model should answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing import prompts
from olmo.preprocessing.multiple_choice import plain_options, randomised_form, standard_form
from olmo.preprocessing.points import PointFormatter

EXPLAIN = "Provide reasoning steps and then give the short answer."
_METADATA_KEYS = ("answer_idx", "answers", "answer", "points", "options")
VIDEO_POINT_SCALE = 100.0
"""Coordinates of video points are percentages unless the example says otherwise."""


@dataclass
class DataFormatterConfig(BaseConfig):
    """How questions and answers are worded."""

    prompt_templates: str = "none"
    """none (bare questions) or uber_model_v2 (request wordings per style)."""
    message_format: str = "none"
    """none, role ("User: ... Assistant:") or qwen3 (chat turns)."""
    system_prompt: str | None = None
    """Style prefix before a request: null, style, demo_or_style[_v2], style_and_length[_v2|_v3] or no_style."""
    always_start_with_space: bool = False
    """Begin the first message with a space too (formats none and role)."""
    default_inference_len: int = 65
    """Length hint of the style_and_length prefixes when answering."""
    select_answer: str = "best"
    """Which of several equally frequent answers is the target: best (drawn) or first (alphabetically)."""
    debug: bool = False
    """Published key; only false is accepted."""
    image_last: bool = False
    """Published key; only false is accepted."""
    format_message_list: str | None = None
    """numbered_qa numbers the questions and answers of a message list; null leaves them."""
    p_one_message: float = 0
    """Probability of keeping only the first of several branches while training."""
    eval_system_prompt_mapping: dict[str, str] | None = None
    """Style of an example -> style named in its prefix, outside training."""
    p_choice_content_in_mc: float = 1.0
    """Published key; only 1 is accepted (answers contain the text of the chosen option)."""
    template_video_mc_questions: bool = True
    """Also vary the layout of multiple-choice questions about videos while training."""
    pointing_format: str = "default"
    """How points are written: html-v1 or html-v2 (the published "default" is accepted as long as no points are written)."""
    points_decimal_places: int = 1
    """Published key of older point formats; only 1 is accepted."""
    use_seperate_non_pointing_qa_style: bool = False
    """Published key; only false is accepted."""
    timestamp_mode: str = "50-percent-seconds"
    """How times appear in requests; the only mode writes seconds half of the time and HH:MM:SS.s otherwise."""
    output_timestamp_mode: str = "seconds"
    """How times appear in answers; seconds is the only mode."""
    seconds_decimal_places: int = 1
    """Decimals of clock times in requests."""
    p_multi_point_all_image: float = 0
    """Share of "all images" requests in multi-image pointing (styles that are not supported yet; kept for checkpoints)."""
    use_seperate_count_without_pointing_style: bool = False
    """While training, keep `_count_without_pointing` in the style prefix."""
    sample_random_initial_point: bool = True
    """Tracking styles only (not supported yet; kept for checkpoints)."""

    @classmethod
    def update_legacy_settings(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Published files also hold the point formatter's own copy of two keys."""
        raw.pop("_point_formatter", None)
        return raw

    def check(self) -> None:
        """Refuse values that nothing implements."""
        _one_of("prompt_templates", self.prompt_templates, ("none", "uber_model_v2"))
        _one_of("message_format", self.message_format, ("none", "role", "qwen3"))
        _one_of("system_prompt", self.system_prompt, prompts.SYSTEM_PROMPTS)
        _one_of("select_answer", self.select_answer, ("best", "first"))
        _one_of("format_message_list", self.format_message_list, (None, "numbered_qa"))
        _one_of("pointing_format", self.pointing_format, ("default", "html-v1", "html-v2"))
        _one_of("timestamp_mode", self.timestamp_mode, ("50-percent-seconds",))
        _one_of("output_timestamp_mode", self.output_timestamp_mode, ("seconds",))
        for name, value in {
            "debug": False,
            "image_last": False,
            "use_seperate_non_pointing_qa_style": False,
            "p_choice_content_in_mc": 1,
            "points_decimal_places": 1,
        }.items():
            _one_of(name, getattr(self, name), (value,))
        if self.prompt_templates == "uber_model_v2" and self.system_prompt == "demo_or_style":
            raise OLMoConfigurationError("data_formatter: uber_model_v2 goes with system_prompt demo_or_style_v2, not demo_or_style")


def _one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        names = ", ".join("null" if k is None else str(k) for k in known)
        raise OLMoConfigurationError(f"data_formatter.{name} '{value}' is not supported; use {names}")


@dataclass
class _Turn:
    """One request with its answer (None when the model is to answer)."""

    prompt: str
    response: str | None
    metadata: dict[str, Any]


class DataFormatter:
    """Turns raw examples into conversations. All randomness comes from the generator it is handed."""

    def __init__(self, config: DataFormatterConfig):
        config.check()
        self.config = config

    def __call__(
        self, example: Mapping[str, Any], rng: np.random.Generator, *, is_training: bool = False, for_inference: bool = False
    ) -> tuple[list[str] | list[list[str]], dict[str, Any] | None]:
        """Messages (one conversation, or one list per branch) and what the evaluator needs (None for several branches)."""
        mode = {"is_training": is_training, "for_inference": for_inference}
        if "message_list" in example:
            branches = list(example["message_list"])
            if not branches:
                raise OLMoDataError("its message_list is empty")
            if is_training and self.config.p_one_message and rng.random() < self.config.p_one_message:
                branches = branches[:1]
            return [self._conversation(m, example, rng, number=i, **mode)[0] for i, m in enumerate(branches, 1)], None
        messages, metadata = self._conversation(example, example, rng, **mode)
        found = {k: example[k] for k in _METADATA_KEYS if k in example}
        return messages, found | metadata

    def _conversation(
        self,
        message: Mapping[str, Any],
        example: Mapping[str, Any],
        rng: np.random.Generator,
        *,
        is_training: bool,
        for_inference: bool,
        number: int | None = None,
    ) -> tuple[list[str], dict[str, Any]]:
        mode = {"is_training": is_training, "for_inference": for_inference}
        metadata: dict[str, Any] = {}
        if "messages" in message:
            texts = list(message["messages"])
            if for_inference and len(texts) % 2 == 0:
                texts = texts[:-1]
            texts[0] = self._prefixed(texts[0], message.get("style"), texts[1] if len(texts) > 1 else None, rng, **mode)
        elif "multi_turn_messages" in message:
            texts = []
            turns = message["multi_turn_messages"]
            for i, turn_message in enumerate(turns):
                answer_this = for_inference and i == len(turns) - 1
                turn = self._turn(turn_message, example, rng, is_training=is_training, for_inference=answer_this)
                texts.append(self._prefixed(turn.prompt, turn_message.get("style"), turn.response, rng, **mode))
                texts += [] if answer_this else [turn.response]
        else:
            turn = self._turn(message, example, rng, **mode)
            metadata = turn.metadata
            texts = [self._prefixed(turn.prompt, message.get("style"), turn.response, rng, **mode)]
            texts += [] if for_inference else [turn.response]
        if number is not None and self.config.format_message_list == "numbered_qa":
            texts = [f"A{number}: {t}" if i % 2 else f" Q{number}: {t}" for i, t in enumerate(texts)]
        return self._as_turns(texts), metadata

    def _as_turns(self, texts: Sequence[str]) -> list[str]:
        """Wrap messages in the chat format."""
        cfg = self.config
        if cfg.message_format == "qwen3":
            return [
                t if i % 2 else f"{'<|im_end|>' + chr(10) if i else ''}<|im_start|>user\n{t}<|im_end|>\n<|im_start|>assistant\n"
                for i, t in enumerate(texts)
            ]
        if cfg.message_format == "role":
            texts = [t if i % 2 else f"User: {t} Assistant:" for i, t in enumerate(texts)]
        return [f" {t}" if i or cfg.always_start_with_space else t for i, t in enumerate(texts)]

    def first_requests(self, messages: list[str] | list[list[str]]) -> list[str]:
        """The first request of every conversation that this formatter made, without the marks of its chat format."""
        head, _, tail = self._as_turns(["\0"])[0].partition("\0")
        first = [messages[0]] if isinstance(messages[0], str) else [conversation[0] for conversation in messages]
        return [text.removeprefix(head).removesuffix(tail) for text in first]

    def _prefixed(
        self, prompt: str, style: str | None, response: str | None, rng: np.random.Generator, *, is_training: bool, for_inference: bool
    ) -> str:
        cfg = self.config
        if style is not None:
            style = prompts.canonical_style(
                style,
                mapping=None if is_training else cfg.eval_system_prompt_mapping,
                keep_no_pointing=cfg.use_seperate_count_without_pointing_style and is_training,
            )
        prefix = prompts.style_prefix(
            cfg.system_prompt,
            style,
            response,
            rng,
            is_training=is_training,
            for_inference=for_inference,
            inference_len=cfg.default_inference_len,
        )
        return f"{prefix} {prompt}" if prefix and prompt else prefix or prompt

    def _turn(
        self, message: Mapping[str, Any], example: Mapping[str, Any], rng: np.random.Generator, *, is_training: bool, for_inference: bool
    ) -> _Turn:
        style = message.get("style") or ""
        if any(s in style for s in prompts.UNSUPPORTED_STYLES):
            raise OLMoDataError(f"the style {style} is not supported yet")
        templates = self.config.prompt_templates != "none"
        metadata: dict[str, Any] = {}
        response: str | None = None
        if message.get("prompt") is not None:
            prompt = message["prompt"]
        elif style in prompts.POINT_MODES:
            prompt = self._point_prompt(style, message, rng, templates)
            if not for_inference and "points" in message:
                response = self._point_answer(style, message, example)
            if style.startswith("video_"):
                metadata["answer"] = response
        elif style in prompts.TIMED_FAMILIES and message.get("question") is None:
            prompt = self._timed_prompt(style, message, rng, templates)
        elif templates and style in prompts.CAPTION_FAMILIES and message.get("question") is None:
            slots = {"object": prompts.need(message, "object", style)} if style == "video_object_caption" else {}
            prompt = prompts.draw_prompt(prompts.CAPTION_FAMILIES[style], rng, video=style.startswith("video_"), **slots)
        elif templates and style in prompts.SHORT_ANSWER_STYLES:
            prompt = prompts.draw_prompt("short_answer", rng, video=True, question=prompts.need(message, "question", style))
        elif templates and "_exp" in style:
            prompt = f"{prompts.need(message, 'question', style)} {EXPLAIN}"
            if not for_inference:
                response = f"{prompts.need(message, 'explanation', style)} Answer: {prompts.need(message, 'answer', style)}"
        elif message.get("question") is not None and ("options" in message or "unlabelled_options" in message):
            prompt, response = self._multiple_choice(style, message, rng, metadata, is_training, templates)
        else:
            prompt = message.get("question") or ""
        if for_inference:
            return _Turn(prompt, None, metadata)
        if response is None:
            response = self._default_answer(message, rng)
        return _Turn(prompt, response, metadata)

    def _multiple_choice(
        self,
        style: str,
        message: Mapping[str, Any],
        rng: np.random.Generator,
        metadata: dict[str, Any],
        is_training: bool,
        templates: bool,
    ) -> tuple[str, str | None]:
        """The question with its options, and the right answer if the example knows it."""
        question = message["question"]
        may_label = "options" in message
        options = [str(o) for o in message["options" if may_label else "unlabelled_options"]]
        index = message.get("answer_idx")
        if index is not None and not 0 <= index < len(options):
            raise OLMoDataError(f"its answer_idx {index} is none of its {len(options)} options")
        vary = is_training and (self.config.template_video_mc_questions or not style.startswith("video_"))
        if not templates:
            choice = plain_options(question, options)
        elif vary and rng.random() >= 0.1:
            choice = randomised_form(question, options, rng, answer_idx=index, may_label=may_label)
        else:
            choice = standard_form(question, options, labelled=may_label)
        metadata["option_names"] = choice.names
        return choice.prompt, None if index is None else choice.answers[index]

    def _timed_prompt(self, style: str, message: Mapping[str, Any], rng: np.random.Generator, templates: bool) -> str:
        if templates:
            return prompts.timed_prompt(style, message, rng, self.config.seconds_decimal_places)
        return "-".join(str(round(t, 2)) for t in prompts.asked_times(style, message).values())

    def _point_prompt(self, style: str, message: Mapping[str, Any], rng: np.random.Generator, templates: bool) -> str:
        if message.get("question") is not None:
            return message["question"]
        label = _label(message, style)
        return (
            prompts.draw_prompt(prompts.POINT_FAMILIES[style], rng, video=style.startswith("video_"), label=label) if templates else label
        )

    def _point_answer(self, style: str, message: Mapping[str, Any], example: Mapping[str, Any]) -> str:
        write = PointFormatter(self.config.pointing_format)
        label = _label(message, style)
        mode = prompts.POINT_MODES[style]
        scale = message.get("point_scale")
        if style.startswith("video_"):
            return write.video(message["points"], message["timestamps"], label, scale or VIDEO_POINT_SCALE, mode)
        if scale is None:
            scale = _image_size(message, example)
        return write.image(message["points"], label, scale, mode)

    def _default_answer(self, message: Mapping[str, Any], rng: np.random.Generator) -> str:
        if "answers" in message:
            votes = Counter(message["answers"])
            if not votes:
                raise OLMoDataError("its list of answers is empty")
            best = sorted(a for a, n in votes.items() if n == max(votes.values()))
            return best[0] if self.config.select_answer == "first" else best[int(rng.integers(len(best)))]
        for key in ("answer", "answer_with_points", "text"):
            if message.get(key) is not None:
                return str(message[key])
        raise OLMoDataError("it has no answer (one of answer, answers, text, or answer_idx with options)")


def _label(message: Mapping[str, Any], style: str) -> str:
    """What is pointed at."""
    return message.get("label_cased") or prompts.need(message, "label", style).lower()


def _image_size(message: Mapping[str, Any], example: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height in which points are given."""
    for source in (message, example):
        for w, h in (("width", "height"), ("w", "h")):
            if source.get(w) and source.get(h):
                return float(source[w]), float(source[h])
    image = example.get("image")
    if isinstance(image, np.ndarray):
        return float(image.shape[1]), float(image.shape[0])
    raise OLMoDataError("its points have no point_scale and the size of its image is not known")
