"""A line of a data file of one's own, key by key: what it says, or a sentence about what is wrong with it.

The forms that a line may have stand in docs/own_data.md. Whatever the preprocessor would stumble over later is found here, while
the index is built, because here the place in the file is known.
"""

import difflib
import json
import os
import stat
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmo.data.annotations import Entry
from olmo.data.records import Record
from olmo.data.subtitles import Cues, cues_of, read_subtitles
from olmo.exceptions import OLMoDataError
from olmo.tokenizer import SPECIAL_TOKENS

MEDIA_KEYS = ("video", "image", "images")
LIST_KEYS = ("conversations", "message_list")
CONVERSATION_KEYS = ("question", "answer", "options", "messages", "style", "question_type")
LINE_KEYS = (*MEDIA_KEYS, *LIST_KEYS, *CONVERSATION_KEYS, "subtitles", "clip", "weight", "id")
TURN_KEYS = ("role", "content")
SUBTITLE_KEYS = ("start", "end", "text")


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
        raise OLMoDataError(f"{where}: should be a mapping, but is {short(value)}")
    if b"\\u" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise OLMoDataError(f"{where}: holds half of a character (a lone surrogate such as \\ud83d)") from None
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


def check_clip(line: Entry) -> Record:
    """The part of the video that the line is about, in seconds."""
    if line.get("clip") is None:
        return {}
    _needs_video(line, "clip")
    clip = line.need("clip", list)
    if len(clip) != 2 or not all(_is_number(t) for t in clip):
        raise OLMoDataError(f"{line.where}: 'clip' should be [start, end] in seconds, but is {short(clip)}")
    start, end = clip
    if not 0 <= start < end:
        raise OLMoDataError(f"{line.where}: 'clip' should start at 0 or later and end after its start, but is {short(clip)}")
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
        raise OLMoDataError(f"{line.where}: 'subtitles' should be the path of a file, or a list, but is {short(given)}")
    for i, entry in enumerate(line.need("subtitles", list)):
        text_of(mapping(line, "subtitles", i, entry, SUBTITLE_KEYS), "text")
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
    weight = line["weight"]
    if not _is_number(weight):
        raise OLMoDataError(f"{line.where}: 'weight' should be a number, but is {short(weight)}")
    if weight <= 0:
        raise OLMoDataError(f"{line.where}: 'weight' should be above 0, but is {weight}; leave out lines that should not count")
    return {"weight": float(weight)}


def check_id(line: Entry) -> Record:
    """The name of the line, as text."""
    name = line.get("id")
    if name is None:
        return {}
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise OLMoDataError(f"{line.where}: 'id' should be text or a whole number, but is {short(name)}")
    return {"id": str(name)}


def only_known_keys(entry: Entry, known: Collection[str]) -> None:
    """OLMoDataError at the first key that is not one of `known`."""
    for key in entry:
        if key not in known:
            raise OLMoDataError(f"{entry.where}: unknown key '{key}'{nearest(key, known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown name."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"


def mapping(parent: Entry, key: str, number: int, value: Any, known: Collection[str]) -> Entry:
    """`value`, which is element `number` of the list `key` of `parent`, if it is a mapping whose keys are known."""
    if not isinstance(value, Entry):
        raise OLMoDataError(f"{parent.where}: '{key}[{number}]' should be a mapping of {', '.join(known)}, but is {short(value)}")
    only_known_keys(value, known)
    return value


def text_of(entry: Entry, key: str) -> str:
    """A text that says something."""
    text = entry.need(key, str)
    if not text.strip():
        raise OLMoDataError(f"{entry.where}: '{key}' is empty; it should say something")
    no_special_tokens(entry, key, text)
    return text


def no_special_tokens(entry: Entry, key: str, text: str) -> None:
    """OLMoDataError if a text holds what stands for pictures among the tokens."""
    for token in SPECIAL_TOKENS.values():
        if token in text:
            raise OLMoDataError(f"{entry.where}: '{key}' holds {token}, which is reserved; pictures and videos stand before the text")


def _is_number(value: Any) -> bool:
    """Whether it is a number that seconds or a weight can be; JSON also knows NaN, infinity and numbers of any length."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _needs_video(line: Entry, key: str) -> None:
    if line.get("video") is None:
        raise OLMoDataError(f"{line.where}: '{key}' belongs to a 'video', and the line has none")


def short(value: Any) -> str:
    """A value as the line has it, short enough for a sentence."""
    return json.dumps(value, ensure_ascii=False, default=str)[:60]
