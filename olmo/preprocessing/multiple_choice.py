"""Multiple-choice questions in many shapes, so that a model does not come to depend on one."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmo.preprocessing.prompts import fill, load_templates

_NUMERALS = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"]


@dataclass(frozen=True)
class MultipleChoice:
    """A question with its options laid out."""

    prompt: str
    """What the user asks."""
    answers: list[str]
    """What the model says for each option."""
    names: str | list[str]
    """How an answer refers to each option, for the evaluator."""


def plain_options(question: str, options: Sequence[str]) -> MultipleChoice:
    """The bare list used without templates."""
    names, lines = _lettered(options)
    return MultipleChoice("\n".join([question, *lines, ""]), lines, names)


def standard_form(question: str, options: Sequence[str], labelled: bool = True) -> MultipleChoice:
    """The fixed form of every evaluation: options lettered A, B, ... or, unlabelled, one per line."""
    names, lines = _lettered(options) if labelled else (list(options), list(options))
    return MultipleChoice("\n".join([question, "Only return the correct answer option.", *lines]), lines, names)


def _lettered(options: Sequence[str]) -> tuple[str | list[str], list[str]]:
    """(letters, one line "A. ..." per option)."""
    names = option_letters(len(options))
    return names, [f"{n}. {o}" for n, o in zip(names, options, strict=True)]


def option_letters(count: int) -> str | list[str]:
    """A, B, C, ...; AA, AB, ... beyond Z."""
    letters = string.ascii_uppercase
    if count <= len(letters):
        return letters[:count]
    return [*letters, *(a + b for a in letters for b in letters)][:count]


def randomised_form(
    question: str, options: Sequence[str], rng: np.random.Generator, *, answer_idx: int | None = None, may_label: bool = True
) -> MultipleChoice:
    """A random layout; `may_label` false keeps options unlabelled. A blank correct option is always labelled."""
    parts = load_templates("multiple_choice")

    def pick(items: Sequence[str]) -> str:
        return items[int(rng.integers(len(items)))]

    blank = answer_idx is not None and not options[answer_idx].strip()
    label_only = may_label and rng.random() < 0.25
    labelled = may_label and (label_only or blank or rng.random() < 0.8)
    inline = rng.random() < 0.1
    names: str | list[str] = list(options)
    word = "option"
    lines = list(options)
    answers = list(options)
    if labelled:
        names, word = _draw_names(len(options), rng)
        marker = pick(parts["common_markers"] if rng.random() < 0.8 else parts["unusual_markers"])
        lines = [marker.replace("%s", n) + o for n, o in zip(names, options, strict=True)]
        answers = list(names) if label_only else lines
    listing = _join(lines, labelled, inline, parts, rng)
    if rng.random() < 0.5:
        if label_only:
            instruction = pick(parts["label_instructions"])
        else:
            instruction = pick(parts["option_instructions"] + (parts["labelled_option_instructions"] if labelled else []))
        prompt = fill(pick(parts["instruction_layouts"]), q=question, o=listing, i=instruction.replace("{t}", word))
    else:
        prompt = fill(pick(parts["label_templates" if label_only else "option_templates"]), q=question, o=listing, t=word)
    return MultipleChoice(prompt, answers, names)


def _draw_names(count: int, rng: np.random.Generator) -> tuple[list[str], str]:
    """Labels that suffice for `count` options, and what to call one of them."""
    kinds = [("number", [str(i + 1) for i in range(count)])]
    if count <= 26:
        kinds += [("letter", list(string.ascii_uppercase)), ("letter", list(string.ascii_lowercase))]
    if count <= len(_NUMERALS):
        kinds.append(("numeral", _NUMERALS))
    word, names = kinds[int(rng.integers(len(kinds)))]
    draw = rng.random()
    return names[:count], word if draw < 0.6 else "identifier" if draw < 0.8 else "label"


def _join(lines: Sequence[str], labelled: bool, inline: bool, parts: dict[str, list[str]], rng: np.random.Generator) -> str:
    if inline:
        usable = [s for s in parts["separators"] if (labelled or s.strip()) and not any(s.strip() and o.endswith(s.strip()) for o in lines)]
        if usable:
            return usable[int(rng.integers(len(usable)))].join(lines)
    if not labelled and rng.random() < 0.5:
        bullet = parts["bullets"][int(rng.integers(len(parts["bullets"])))]
        return "\n".join(f"{bullet} {o}" for o in lines)
    return "\n".join(lines)
