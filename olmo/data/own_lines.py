"""A line of a data file of one's own -> a record, or a sentence about what is wrong with it.

The forms that a line may have stand in docs/own_data.md. Whatever the preprocessor would stumble over later is found here, while
the index is built, because here the place in the file is known.
"""

import difflib
import json
import math
import os
import re
import stat
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmo.data.annotations import Entry
from olmo.data.records import MC, MC_SUBTITLE, OE, Record, multiple_choice, open_ended
from olmo.data.subtitles import Cues, cues_of, read_subtitles
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.multiple_choice import option_letters
from olmo.preprocessing.prompts import CAPTION_FAMILIES, POINT_MODES, SHORT_ANSWER_STYLES, UNSUPPORTED_STYLES, VIDEO_MC_STYLES
from olmo.tokenizer import SPECIAL_TOKENS

MEDIA_KEYS = ("video", "image", "images")
LIST_KEYS = ("conversations", "message_list")
CONVERSATION_KEYS = ("question", "answer", "options", "messages", "style", "question_type")
LINE_KEYS = (*MEDIA_KEYS, *LIST_KEYS, *CONVERSATION_KEYS, "subtitles", "clip", "weight", "id")
TURN_KEYS = ("role", "content")
SUBTITLE_KEYS = ("start", "end", "text")
ROLES = ("user", "assistant")

OPEN_STYLES = {"video": OE, "image": "user_qa", "images": "user_qa", None: "text_sft"}
CHOICE_STYLES = {"video": MC, "image": "a_okvqa_mc", "images": "multi_image_mc", None: "a_okvqa_mc"}
TURNS_STYLES = {"video": "user_qa", "image": "user_qa", "images": "user_qa", None: "text_sft"}
"""Key of the media (None: text only) -> style of a question with an answer, with options, and of a conversation."""

VIDEO_STYLES = sorted({*SHORT_ANSWER_STYLES, *VIDEO_MC_STYLES, *(s for s in CAPTION_FAMILIES if s.startswith("video_"))})
"""Styles of videos that need nothing but a question and an answer."""


def raw_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with its place, whatever they hold. Only a line feed ends one, as in JSON lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(BOM_UTF8) if number == 1 else line
            if line.strip():
                yield f"{path}, line {number}", line


def parse_line(line: bytes, where: str) -> Entry:
    """A line of JSON as an entry, if it is a mapping whose keys are known."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise OLMoDataError(f"{where}: is not UTF-8 text") from None
    except json.JSONDecodeError as err:
        raise OLMoDataError(f"{where}: is no JSON ({err.msg}, column {err.colno})") from None
    if not isinstance(value, dict):
        raise OLMoDataError(f"{where}: should be a mapping, but is {_short(value)}")
    entry = Entry(value, where)
    only_known_keys(entry, LINE_KEYS)
    return entry


def check_media(line: Entry, folder: Path) -> Record:
    """The picture or video of a line: a file that is there and holds something."""
    given = [k for k in MEDIA_KEYS if line.get(k) is not None]
    if len(given) > 1:
        raise OLMoDataError(f"{line.where}: has both '{given[0]}' and '{given[1]}'; one of them is supported")
    if not given:
        return {}
    (key,) = given
    paths = line.texts(key) if key == "images" else [line.need(key, str)]
    if not paths:
        raise OLMoDataError(f"{line.where}: 'images' is empty; it should name at least one file, or be left out")
    for path in paths:
        must_be_file(line, key, path, folder)
    return {key if key == "video" else "image": paths if len(paths) > 1 else paths[0]}


def must_be_file(line: Entry, key: str, path: str, folder: Path) -> None:
    """OLMoDataError unless `path` (relative to `folder`, or absolute) is a file that is not empty."""
    try:
        found = os.stat(folder / path)
        wrong = "is no file" if not stat.S_ISREG(found.st_mode) else None if found.st_size else "is empty"
    except FileNotFoundError:
        wrong = "is missing"
    except (OSError, ValueError) as err:
        wrong = f"cannot be read ({getattr(err, 'strerror', None) or err})"
    if wrong is not None:
        raise OLMoDataError(
            f"{line.where}: '{key}' should name a file (absolute, or relative to {folder}), but {path or 'an empty text'} {wrong}"
        )


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
    checked = (_mapping(line, several[0], i, e, CONVERSATION_KEYS) for i, e in enumerate(entries))
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
        found = multiple_choice(_text(entry, "question"), options, _option_number(entry, options), entry.where, style)
    else:
        style = _style(entry, OPEN_STYLES[media], media)
        found = open_ended(_text(entry, "question"), _text(entry, "answer"), style)
    metadata = {"question_type": _text(entry, "question_type")} if entry.get("question_type") is not None else {}
    return found | ({"metadata": metadata} if metadata else {})


def _turns(entry: Entry) -> list[str]:
    """The contents of `messages`, the user's and the assistant's in turns."""
    turns = entry.need("messages", list)
    if not turns:
        raise OLMoDataError(f"{entry.where}: 'messages' is empty; it should hold a turn of the user and one of the assistant")
    texts = []
    for i, turn in enumerate(turns):
        turn = _mapping(entry, "messages", i, turn, TURN_KEYS)
        role, wanted = turn.need("role", str), ROLES[i % 2]
        if role != wanted:
            raise OLMoDataError(
                f"{turn.where}: 'role' should be {wanted}, but is {role[:60]}; user and assistant take turns, the user begins"
            )
        texts.append(_text(turn, "content"))
    if len(texts) % 2:
        raise OLMoDataError(f"{entry.where}: 'messages' ends with the user; the last turn should be the assistant's")
    return texts


def _options(entry: Entry) -> list[str]:
    options = entry.texts("options")
    if len(options) < 2 or not all(o.strip() for o in options):
        raise OLMoDataError(f"{entry.where}: 'options' should be at least two texts, none of them empty, but is {_short(options)}")
    if twice := [o for i, o in enumerate(options) if o in options[:i]]:
        raise OLMoDataError(f"{entry.where}: 'options' holds {_short(twice[0])} twice")
    for i, option in enumerate(options):
        _no_special_tokens(entry, f"options[{i}]", option)
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
        f"{entry.where}: 'answer' should be one of the options or its letter ({letters[0]} to {letters[-1]}), but is {_short(answer)}"
    )


def _style(entry: Entry, default: str, media: str | None) -> str:
    """The style that the line names, if it is one that the keys of a line are enough for."""
    if entry.get("style") is None:
        return default
    style = entry.need("style", str)
    if not re.fullmatch(r"[a-z0-9_]+", style):
        raise OLMoDataError(f"{entry.where}: 'style' should be made of small letters, digits and _, but is {_short(style)}")
    if style.startswith("video_") and media != "video":
        raise OLMoDataError(f"{entry.where}: the 'style' {style} asks about a video, but the line has no 'video'")
    if style.startswith("video_") and style not in VIDEO_STYLES:
        raise OLMoDataError(f"{entry.where}: the 'style' {style} is none that a line can have{_nearest(style, VIDEO_STYLES)}")
    if style in POINT_MODES or "_exp" in style or any(s in style for s in UNSUPPORTED_STYLES):
        raise OLMoDataError(f"{entry.where}: the 'style' {style} needs keys that a line cannot have; leave it out, or use {default}")
    return style


def check_clip(line: Entry) -> Record:
    """The part of the video that the line is about, in seconds."""
    if line.get("clip") is None:
        return {}
    _needs_video(line, "clip")
    clip = line.need("clip", list)
    if len(clip) != 2 or not all(_is_number(t) for t in clip):
        raise OLMoDataError(f"{line.where}: 'clip' should be [start, end] in seconds, but is {_short(clip)}")
    start, end = clip
    if not 0 <= start < end:
        raise OLMoDataError(f"{line.where}: 'clip' should start at 0 or later and end after its start, but is {_short(clip)}")
    return {"clip": [float(start), float(end)]}


def check_subtitles(line: Entry, folder: Path) -> Record:
    """What is spoken: the path of a subtitle file, or [start, end, text] in seconds of the whole video."""
    given = line.get("subtitles")
    if given is None:
        return {}
    _needs_video(line, "subtitles")
    if isinstance(given, str):
        must_be_file(line, "subtitles", given, folder)
        try:
            cues_in(folder / given)
        except OLMoDataError as err:
            raise OLMoDataError(f"{line.where}: 'subtitles': {err}") from None
        return {"subtitles": given}
    if not isinstance(given, list):
        raise OLMoDataError(f"{line.where}: 'subtitles' should be the path of a file, or a list, but is {_short(given)}")
    for i, entry in enumerate(line.need("subtitles", list)):
        _text(_mapping(line, "subtitles", i, entry, SUBTITLE_KEYS), "text")
    return {"subtitles": [[*span, text] for span, text in cues_of(given, f"{line.where}, subtitles").items()]}


def cues_in(path: Path) -> Cues:
    """What a subtitle file holds; lines about one video follow one another and share it."""
    return _cues_in(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _cues_in(path: Path, changed: int) -> Cues:
    return read_subtitles(path)


def check_weight(line: Entry) -> Record:
    """Factor on the loss of the answers."""
    if line.get("weight") is None:
        return {}
    weight = _number(line, "weight")
    if weight <= 0:
        raise OLMoDataError(f"{line.where}: 'weight' should be above 0, but is {weight}; leave out lines that should not count")
    return {"weight": weight}


def check_id(line: Entry) -> Record:
    """The name of the line, as text."""
    name = line.get("id")
    if name is None:
        return {}
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise OLMoDataError(f"{line.where}: 'id' should be text or a whole number, but is {_short(name)}")
    return {"id": str(name)}


def only_known_keys(entry: Entry, known: Collection[str]) -> None:
    """OLMoDataError at the first key that is not one of `known`."""
    for key in entry:
        if key not in known:
            raise OLMoDataError(f"{entry.where}: unknown key '{key}'{_nearest(key, known)}")


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"


def _mapping(parent: Entry, key: str, number: int, value: Any, known: Collection[str]) -> Entry:
    if not isinstance(value, Entry):
        raise OLMoDataError(f"{parent.where}: '{key}[{number}]' should be a mapping of {', '.join(known)}, but is {_short(value)}")
    only_known_keys(value, known)
    return value


def _text(entry: Entry, key: str) -> str:
    """A text that says something."""
    text = entry.need(key, str)
    if not text.strip():
        raise OLMoDataError(f"{entry.where}: '{key}' is empty; it should say something")
    _no_special_tokens(entry, key, text)
    return text


def _no_special_tokens(entry: Entry, key: str, text: str) -> None:
    for token in SPECIAL_TOKENS.values():
        if token in text:
            raise OLMoDataError(f"{entry.where}: '{key}' holds {token}, which is reserved; pictures and videos stand before the text")


def _number(entry: Entry, key: str) -> float:
    entry.need(key, float)  # missing, null or something else altogether
    if not _is_number(entry[key]):
        raise OLMoDataError(f"{entry.where}: '{key}' should be a number, but is {_short(entry[key])}")
    return float(entry[key])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _needs_video(line: Entry, key: str) -> None:
    if line.get("video") is None:
        raise OLMoDataError(f"{line.where}: '{key}' belongs to a 'video', and the line has none")


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:60]
