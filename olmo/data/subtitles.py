"""Subtitles of a video: SubRip (.srt), WebVTT (.vtt) and the JSON of the published data sets -> (start, end) seconds -> text.

That mapping is what an example carries under `subtitle`. Every text is one line: the preprocessor writes a line per cue.
"""

import html
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from olmo.data.annotations import Entry, read_json, read_text
from olmo.exceptions import OLMoDataError

Cues = dict[tuple[float, float], str]
"""(start, end) in seconds -> what is said, in the order of the file."""

_TIME = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?")
_MARKUP = re.compile(r"<[^>\n]*>|\{\\[^}\n]*\}")
"""Tags of both formats (<i>, <v Anna>, <00:01.500>) and positions ({\\an8})."""
_BLOCKS_WITHOUT_CUES = ("NOTE", "STYLE", "REGION")
_ARROW = "-->"


def read_subtitles(path: str | Path) -> Cues:
    """Read a file by its ending. OLMoDataError names the file and the line (JSON: the entry) that is wrong."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".json":
        return cues_of(read_json(path), str(path))
    if kind not in (".srt", ".vtt"):
        raise OLMoDataError(f"{path} is no subtitle file: its name should end in .srt, .vtt or .json")
    lines = read_text(path).splitlines()
    first = 0
    if kind == ".vtt":
        if not lines or not re.match(r"WEBVTT(\s|$)", lines[0]):
            raise OLMoDataError(f"{path}, line 1: a WebVTT file begins with WEBVTT")
        first = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))  # the header goes on to a blank line
    return _collect(_read_blocks(path, lines, first))


def cues_of(entries: Any, where: str) -> Cues:
    """The JSON form: a list of cues, or a mapping from any name to a cue, as annotations hold it too.

    A cue has `start` and `end` (or `timestamp`, a pair of both) in seconds or as "00:01:02.500", and `text` (or `line`).
    """
    if isinstance(entries, Mapping):
        named = [(f"{where}, {name}", cue) for name, cue in entries.items()]
    elif isinstance(entries, list):
        named = [(f"{where}, entry {number}", cue) for number, cue in enumerate(entries)]
    else:
        raise OLMoDataError(f"{where}: subtitles should be a list or a mapping of cues")
    return _collect(_cue_of(cue, place) for place, cue in named)


def rebased(cues: Cues, start: float, end: float = math.inf) -> Cues:
    """The cues heard between `start` and `end` of the video, in seconds of that clip, as the time stamps of its frames are."""
    inside = ((s, e, text) for (s, e), text in cues.items() if e > start and s < end)
    return {(max(s - start, 0.0), min(e, end) - start): text for s, e, text in inside}


def _read_blocks(path: Path, lines: list[str], first: int) -> Iterable[tuple[float, float, str]]:
    """Cues of both text formats: a line with an arrow, and the lines up to the next blank one."""
    number = first
    while number < len(lines):
        begin = number
        while number < len(lines) and lines[number].strip():
            number += 1
        if begin < number and lines[begin].split()[0] not in _BLOCKS_WITHOUT_CUES:
            yield _cue_of_block(path, lines[begin:number], begin + 1)
        number += 1


def _cue_of_block(path: Path, block: list[str], number: int) -> tuple[float, float, str]:
    """`number` is the line of the block's first line, counted from 1; the times may follow a number or a name."""
    at = next((i for i, line in enumerate(block[:2]) if _ARROW in line), None)
    if at is None:
        raise OLMoDataError(f'{path}, line {number}: here should be times like 00:01:02,500 --> 00:01:04,000, not "{block[0][:60]}"')
    where = f"{path}, line {number + at}"
    left, _, right = block[at].partition(_ARROW)
    end = (right.split() or [""])[0]  # WebVTT writes settings behind it
    return (*_span(left.strip(), end, where), " ".join(block[at + 1 :]))


def _cue_of(cue: Any, where: str) -> tuple[float, float, str]:
    if not isinstance(cue, Mapping):
        raise OLMoDataError(f"{where}: a cue should be a mapping with start, end and text")
    cue = Entry(dict(cue), where)
    if "timestamp" in cue:
        span = cue.need("timestamp", list)
        if len(span) != 2:
            raise OLMoDataError(f"{where}: 'timestamp' should be a start and an end")
    else:
        span = [_given(cue, "start"), _given(cue, "end")]
    return (*_span(*span, where), cue.need("line" if "line" in cue and "text" not in cue else "text", str))


def _given(cue: Entry, key: str) -> Any:
    """A time however it is written; the error for a missing key is that of every annotation."""
    return cue[key] if cue.get(key) is not None else cue.need(key, float)


def _span(start: Any, end: Any, where: str) -> tuple[float, float]:
    begin, stop = _seconds(start, where), _seconds(end, where)
    if stop < begin:
        raise OLMoDataError(f"{where}: the cue ends at {stop:g} s, before it starts at {begin:g} s")
    return begin, stop


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, str):
        if match := _TIME.fullmatch(value.strip()):
            hours, minutes, seconds, fraction = match.groups()
            if int(minutes) < 60 and int(seconds) < 60:
                whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
                return whole + int((fraction or "0").ljust(3, "0")) / 1000
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    raise OLMoDataError(f"{where}: {value!r} is no time: seconds or hours:minutes:seconds.thousandths")


def _collect(cues: Iterable[tuple[float, float, str]]) -> Cues:
    """One line per span: markup is dropped, empty cues too, and what is said at the very same time follows one another."""
    out: Cues = {}
    for start, end, text in cues:
        line = " ".join(html.unescape(_MARKUP.sub("", text)).split())
        if line:
            out[start, end] = f"{out[start, end]} {line}" if (start, end) in out else line
    return out
