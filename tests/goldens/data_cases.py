"""Reference vectors of the data side: loading them, and the two tokenizers that they name."""

import hashlib
import json

import numpy as np
import pytest

from olmo.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer
from tests import goldens, qwen_tokenizer

FOLDER = goldens.FOLDER / "data"
TAKEN: set[tuple[str, str | None]] = set()
"""(file, kind) of the cases that some test asked for."""


def read(name: str) -> dict:
    return json.loads((FOLDER / name).read_text())


def cases(name: str, *kinds: str) -> list:
    """Parameters for the cases of these kinds (all without kinds)."""
    found = []
    for case in read(name)["cases"] if (FOLDER / name).is_file() else ():
        if kinds and case.get("kind") not in kinds:
            continue
        TAKEN.add((name, case.get("kind")))
        found.append(pytest.param(case, id=case["name"]))
    return goldens.or_absent(found, f"file data/{name}")


def tokenizer(name: str) -> Tokenizer:
    """`tiny` comes with the vectors; `qwen` knows three added tokens there and begins and ends with the same one."""
    if name == "tiny":
        return build_tokenizer(TokenizerConfig(str(FOLDER / "tiny_tok")), 1024)
    return qwen_tokenizer.build(qwen_tokenizer.CHAT, "<|endoftext|>")


def sha256(array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<i8").tobytes()).hexdigest()


def rle(values) -> list[list]:
    out: list[list] = []
    for v in values:
        if out and out[-1][0] == v:
            out[-1][1] += 1
        else:
            out.append([v, 1])
    return out
