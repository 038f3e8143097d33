"""Reading the replies of a judge. A reply has the form that was asked for, or it means nothing."""

import re
from collections.abc import Mapping, Sequence

_DECORATION = " \t*_`\"'.#>-"


def plain(line: str) -> str:
    """A line without the marks that models like to put around it."""
    return line.strip(_DECORATION)


def verdict(text: str, words: Mapping[str, bool]) -> bool | None:
    """The last line, where it is one of the words (in any case, perhaps behind a label): what the word stands for."""
    lines = [line for line in text.splitlines() if plain(line)]
    if not lines:
        return None
    word = plain(lines[-1].rpartition(":")[2]).lower()
    return {key.lower(): value for key, value in words.items()}.get(word)


def numbered_verdicts(text: str, count: int, words: Mapping[str, bool]) -> dict[int, bool] | None:
    """`3. Stated` per line -> {number from 1: verdict}. Numbers given two different verdicts mean nothing; None if nothing is left."""
    found: dict[int, set[bool]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"[\s*_`#>-]*(\d+)\s*[.:)|]\s*(.*)", line)
        if match is None or not 1 <= int(match[1]) <= count:
            continue
        meaning = verdict(match[2], words)
        if meaning is not None:
            found.setdefault(int(match[1]), set()).add(meaning)
    clear = {number: meanings.pop() for number, meanings in found.items() if len(meanings) == 1}
    return clear or None


def marks(text: str, names: Sequence[str], low: int, high: int) -> dict[str, int] | None:
    """`name: 4` per line -> whole numbers within the scale; None unless every name has exactly one."""
    found: dict[str, set[int]] = {name: set() for name in names}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)[\s*_`]*[:=][\s*_`]*(\d+)(?:\s*/\s*\d+)?", plain(line))
        if match and match[1].lower() in found:
            found[match[1].lower()].add(int(match[2]))
    if any(len(values) != 1 or not low <= min(values) <= high for values in found.values()):
        return None
    return {name: values.pop() for name, values in found.items()}


def letter(text: str, letters: Sequence[str], none: str) -> str | None:
    """The last line, where it is one of the letters (or begins with one and a mark: "B. red", "(B)") or the word for none of them."""
    lines = [line for line in text.splitlines() if plain(line)]
    if not lines:
        return None
    line = plain(lines[-1])
    if line.lower() == none.lower():
        return none
    match = re.match(r"\(?([A-Z])(?:[.):]|$)", line)
    return match[1] if match and match[1] in letters else None
