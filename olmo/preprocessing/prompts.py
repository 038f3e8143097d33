"""The words around a question: request wordings per style, time stamps in requests, and the style prefix.

Wordings live in `templates/*.yaml`; this module only draws and fills them.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from olmo.exceptions import OLMoDataError
from olmo.preprocessing.points import output_timestamp, parse_timestamp, seconds_to_clock

VIDEO_MC_STYLES = frozenset(
    f"video_multiple_choice{suffix}" for suffix in ("", "_count_without_pointing", "_multiple_correct", "_w_subtitle")
)
IMAGE_MC_STYLES = frozenset(
    [
        "a_okvqa_mc",
        "ai2_diagram",
        "ai2_diagram_no_letter",
        "science_qa",
        "eval_multiple_choice",
        "multi_image_mc",
        "multi_image_mc_exp",
        "mantis_instruct_mc",
        "eval_multi_image_mc",
    ]
)
_TIMED_DEMO = ("video_clip_caption_start_end", "video_clip_transcript_start_end", "video_frame_caption_timestamp")
DEMO_STYLES = frozenset(
    [
        "point_count",
        "pointing",
        "cosyn_point",
        "user_qa",
        "long_caption",
        "short_caption",
        "video_long_caption",
        "video_short_caption",
        "video_point_track_per_frame",
        "video_point_track_start_end",
        "video_single_point_track_start_end",
        "video_transcript",
        *_TIMED_DEMO,
        *(f"{s}_in_seconds" for s in _TIMED_DEMO),
        "correction_qa",
        "text_sft",
        "video_point",
        "video_point_count",
        "video_count",
        "video_count_point",
        "multi_image_pointing",
        "multi_image_counting",
        "multi_image_point_then_count",
        "multi_image_count_then_point",
    ]
)
"""Styles that a user would not name: their requests carry no prefix."""

_STYLE_ALIASES = {
    "eval_short_answer": "vqa2",
    "eval_multiple_choice": "a_okvqa_mc",
    "video_eval_short_answer": "video_short_answer",
    "video_eval_multiple_choice": "video_multiple_choice",
    "video_eval_multiple_choice_w_subtitle": "video_multiple_choice_w_subtitle",
}
_NO_POINTING = "_count_without_pointing"

CAPTION_FAMILIES = {
    "long_caption": "long_caption",
    "short_caption": "short_caption",
    "video_long_caption": "long_caption",
    "video_short_caption": "short_caption",
    "video_transcript": "transcript",
    "video_motion_caption": "motion_caption",
    "video_object_caption": "object_caption",
}
SHORT_ANSWER_STYLES = frozenset(["video_short_answer", f"video_short_answer{_NO_POINTING}"])
TIMED_FAMILIES = {
    "video_frame_caption_timestamp": "frame_caption",
    "video_clip_caption_start_end": "clip_caption",
    "video_clip_short_caption_start_end": "clip_caption",
    "video_clip_transcript_start_end": "clip_transcript",
}
POINT_FAMILIES = {
    "pointing": "pointing",
    "cosyn_point": "pointing",
    "point_count": "point_count",
    "point_then_count": "point_count",
    "count_then_point": "count_then_point",
    "video_point": "pointing",
    "video_point_count": "point_count",
    "video_count": "only_count",
    "video_count_point": "count_then_point",
}
POINT_MODES = {
    "pointing": None,
    "cosyn_point": None,
    "point_count": "point_then_count",
    "point_then_count": "point_then_count",
    "count_then_point": "count_then_point",
    "video_point": None,
    "video_point_count": "point_then_count",
    "video_count": "count",
    "video_count_point": "count_then_point",
}
"""Style -> how the answer counts (see `PointFormatter.frames`)."""

UNSUPPORTED_STYLES = ("_point_track", "_point_ground", "multi_image_pointing", "multi_image_count", "multi_image_point_then_count")


@cache
def load_templates(name: str) -> dict[str, list[str]]:
    """The YAML file `templates/<name>.yaml`."""
    return yaml.safe_load((files("olmo.preprocessing") / "templates" / f"{name}.yaml").read_text(encoding="utf-8"))


def draw_prompt(family: str, rng: np.random.Generator, *, video: bool, **slots: str) -> str:
    """One wording of `family` with its slots filled."""
    wordings = load_templates("prompts")[family]
    text = wordings[int(rng.integers(len(wordings)))]
    if video:
        for word in ("image", "picture", "photo"):
            text = text.replace(word, "video")
    return fill(text, **slots)


def fill(template: str, **slots: str) -> str:
    """Replace `{name}` by its value in one pass (values may contain braces themselves)."""
    parts, rest = [], template
    while True:
        found = [(rest.index("{" + n + "}"), n) for n in slots if "{" + n + "}" in rest]
        if not found:
            return "".join([*parts, rest])
        at, name = min(found)
        parts += [rest[:at], slots[name]]
        rest = rest[at + len(name) + 2 :]


def need(message: Mapping[str, Any], key: str, style: str) -> Any:
    """A field that a style cannot do without: numbers as they are, everything else as text."""
    value = message.get(key)
    if value is None:
        raise OLMoDataError(f"the style {style} needs the field {key}")
    return value if isinstance(value, (int, float)) else str(value)


def asked_times(style: str, message: Mapping[str, Any]) -> dict[str, float]:
    """The time or the span of time, in seconds, that a message of a timed style is about."""
    keys = ("timestamp",) if "timestamp" in style else ("start_time", "end_time")
    return {k: parse_timestamp(need(message, k, style)) for k in keys}


def timed_prompt(style: str, message: Mapping[str, Any], rng: np.random.Generator, decimals: int) -> str:
    """A request about one time or a span of time, in seconds half of the time and as a clock otherwise."""
    times = asked_times(style, message)
    family = TIMED_FAMILIES[style]
    if rng.random() > 0.5:
        return draw_prompt(f"{family}_in_seconds", rng, video=True, **{k: output_timestamp(t) for k, t in times.items()})
    return draw_prompt(family, rng, video=True, **{k: seconds_to_clock(t, decimals) for k, t in times.items()})


def canonical_style(style: str, *, mapping: Mapping[str, str] | None, keep_no_pointing: bool) -> str:
    """The style whose name stands in the prefix: evaluation styles take the name of what they were trained as."""
    if mapping and style in mapping:
        return mapping[style]
    if style in _STYLE_ALIASES:
        style = _STYLE_ALIASES[style]
    elif style.startswith("eval_multi_image_"):
        style = style.removeprefix("eval_")
    return style if keep_no_pointing else style.removesuffix(_NO_POINTING)


def style_prefix(
    system_prompt: str | None,
    style: str | None,
    response: str | None,
    rng: np.random.Generator,
    *,
    is_training: bool,
    for_inference: bool,
    inference_len: int,
) -> str:
    """What stands before the request, or an empty string. `style` is the canonical one."""
    if system_prompt in (None, "no_style") or style is None:
        return ""
    if system_prompt == "style":
        return f"{style}:"
    if system_prompt == "demo_or_style":
        if style in ("demo", "android") or (style in DEMO_STYLES and not (is_training and rng.random() >= 0.9)):
            return ""
        return f"{style}:"
    if system_prompt == "demo_or_style_v2":
        return "" if style in DEMO_STYLES | VIDEO_MC_STYLES | IMAGE_MC_STYLES else f"{style}:"
    if style in POINT_MODES or style.startswith("multi_image_point"):
        return f"{style}:"
    if for_inference:
        return f"{style} {inference_len}:"
    length = len(response or "")
    if not is_training:
        return f"{style} {length // (25 if system_prompt.endswith('v3') else 15)}:"
    if system_prompt == "style_and_length_v3":
        return f"{style} {int(length * np.clip(rng.normal(1, 0.05), 0.5, 1.5) / 25)}:"
    if rng.random() < 0.9:
        return f"{style} {max(0, length + int(rng.normal(0, 25))) // 15}:"
    return f"{style} :" if system_prompt == "style_and_length" else f"{style}:"


SYSTEM_PROMPTS = (
    None,
    "style",
    "demo_or_style",
    "demo_or_style_v2",
    "style_and_length",
    "style_and_length_v2",
    "style_and_length_v3",
    "no_style",
)
