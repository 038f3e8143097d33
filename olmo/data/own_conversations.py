"""The conversations of a line of a data file of one's own: what is asked, what is right, and the style in which it is put."""

import re
from typing import Any

from olmo.data.annotations import Entry
from olmo.data.own_lines import CONVERSATION_KEYS, LIST_KEYS, MEDIA_KEYS, TURN_KEYS, mapping, nearest, no_special_tokens, short, text_of
from olmo.data.records import MC, MC_SUBTITLE, OE, Record, multiple_choice, open_ended
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.multiple_choice import option_letters
from olmo.preprocessing.prompts import CAPTION_FAMILIES, POINT_MODES, SHORT_ANSWER_STYLES, UNSUPPORTED_STYLES, VIDEO_MC_STYLES

ROLES = ("user", "assistant")

OPEN_STYLES = {"video": OE, "image": "user_qa", "images": "user_qa", None: "text_sft"}
CHOICE_STYLES = {"video": MC, "image": "a_okvqa_mc", "images": "multi_image_mc", None: "a_okvqa_mc"}
TURNS_STYLES = {"video": "user_qa", "image": "user_qa", "images": "user_qa", None: "text_sft"}
"""Key of the media (None: text only) -> style of a question with an answer, with options, and of a conversation."""

VIDEO_STYLES = sorted({*SHORT_ANSWER_STYLES, *VIDEO_MC_STYLES, *(s for s in CAPTION_FAMILIES if s.startswith("video_"))})
"""Styles of videos that need nothing but a question and an answer."""


def check_conversations(line: Entry) -> Record:
    """The conversations of a line, as the formatter takes them."""
    several = [k for k in LIST_KEYS if line.get(k) is not None]
    if not several:
        return {"conversations": [_conversation(line, line)]}
    if twice := [k for k in (*LIST_KEYS, *CONVERSATION_KEYS) if line.get(k) is not None and k not in several[:1]]:
        raise OLMoDataError(f"{line.where}: has both '{several[0]}' and '{twice[0]}'; write each conversation with its keys into the list")
    entries = line.need(several[0], list)
    if not entries:
        raise OLMoDataError(f"{line.where}: '{several[0]}' is empty; it should hold at least one conversation")
    checked = (mapping(line, several[0], i, e, CONVERSATION_KEYS) for i, e in enumerate(entries))
    return {"conversations": [_conversation(entry, line) for entry in checked]}


def _conversation(entry: Entry, line: Entry) -> dict[str, Any]:
    """One conversation: `entry` is the line itself, or an element of its list."""
    media = next((k for k in MEDIA_KEYS if line.get(k) is not None), None)
    asked = [k for k in ("messages", "question") if entry.get(k) is not None]
    if len(asked) != 1:
        what = f"has both '{asked[0]}' and '{asked[1]}'" if asked else "nothing is asked"
        wanted = "'question' (with 'answer') or 'messages'" + (", or a list 'conversations'" if entry is line else "")
        raise OLMoDataError(f"{entry.where}: {what}; there should be {wanted}, but there is {', '.join(entry) or 'nothing'}")
    if asked == ["messages"]:
        if extra := [k for k in ("answer", "options") if entry.get(k) is not None]:
            raise OLMoDataError(f"{entry.where}: '{extra[0]}' belongs to a 'question'; in 'messages' the assistant's turns are the answers")
        style = _style(entry, TURNS_STYLES[media], media)
        found = {"messages": _turns(entry), "style": style}
    elif entry.get("options") is not None:
        default = MC_SUBTITLE if media == "video" and line.get("subtitles") else CHOICE_STYLES[media]
        options = _options(entry)
        style = _style(entry, default, media)
        found = multiple_choice(text_of(entry, "question"), options, _option_number(entry, options), entry.where, style)
    else:
        style = _style(entry, OPEN_STYLES[media], media)
        found = open_ended(text_of(entry, "question"), text_of(entry, "answer"), style)
    metadata = {"question_type": text_of(entry, "question_type")} if entry.get("question_type") is not None else {}
    return found | ({"metadata": metadata} if metadata else {})


def _turns(entry: Entry) -> list[str]:
    """The contents of `messages`, the user's and the assistant's in turns."""
    turns = entry.need("messages", list)
    if not turns:
        raise OLMoDataError(f"{entry.where}: 'messages' is empty; it should hold a turn of the user and one of the assistant")
    texts = []
    for i, turn in enumerate(turns):
        turn = mapping(entry, "messages", i, turn, TURN_KEYS)
        role, wanted = turn.need("role", str), ROLES[i % 2]
        if role != wanted:
            raise OLMoDataError(
                f"{turn.where}: 'role' should be {wanted}, but is {role[:60]}; user and assistant take turns, the user begins"
            )
        texts.append(text_of(turn, "content"))
    if len(texts) % 2:
        raise OLMoDataError(f"{entry.where}: 'messages' ends with the user; the last turn should be the assistant's")
    return texts


def _options(entry: Entry) -> list[str]:
    options = entry.texts("options")
    if len(options) < 2 or not all(o.strip() for o in options):
        raise OLMoDataError(f"{entry.where}: 'options' should be at least two texts, none of them empty, but is {short(options)}")
    if twice := [o for i, o in enumerate(options) if o in options[:i]]:
        raise OLMoDataError(f"{entry.where}: 'options' holds {short(twice[0])} twice")
    for i, option in enumerate(options):
        no_special_tokens(entry, f"options[{i}]", option)
    return options


def _option_number(entry: Entry, options: list[str]) -> int:
    """Which option is the answer: it is one of them, or the letter of one."""
    answer = entry.need("answer", str)
    letters = list(option_letters(len(options)))
    if answer in options:
        return options.index(answer)
    if answer.upper() in letters:
        return letters.index(answer.upper())
    raise OLMoDataError(
        f"{entry.where}: 'answer' should be one of the options or its letter ({letters[0]} to {letters[-1]}), but is {short(answer)}"
    )


def _style(entry: Entry, default: str, media: str | None) -> str:
    """The style that the line names, if it is one that the keys of a line are enough for."""
    if entry.get("style") is None:
        return default
    style = entry.need("style", str)
    if not re.fullmatch(r"[a-z0-9_]+", style):
        raise OLMoDataError(f"{entry.where}: 'style' should be made of small letters, digits and _, but is {short(style)}")
    if style.startswith("video_") and media != "video":
        raise OLMoDataError(f"{entry.where}: the 'style' {style} asks about a video, but the line has no 'video'")
    if style.startswith("video_") and style not in VIDEO_STYLES:
        raise OLMoDataError(f"{entry.where}: the 'style' {style} is none that a line can have{nearest(style, VIDEO_STYLES)}")
    if style in POINT_MODES or "_exp" in style or any(s in style for s in UNSUPPORTED_STYLES):
        raise OLMoDataError(f"{entry.where}: the 'style' {style} needs keys that a line cannot have; leave it out, or use {default}")
    return style
