"""Reference vectors of the data side: loading them, and the two tokenizers that they name."""

import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from olmo.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer
from tests import goldens

FOLDER = goldens.FOLDER / "data"
HAS_QWEN = importlib.util.find_spec("dashscope") is not None


def read(name: str) -> dict:
    return json.loads((FOLDER / name).read_text())


def cases(name: str, *kinds: str, where=lambda case: True) -> list:
    """Parameters for the cases of these kinds (all without kinds).

    Cases of the large vocabulary are taken only where the package that ships it is installed.
    """
    found = []
    for case in read(name)["cases"] if (FOLDER / name).is_file() else ():
        if kinds and case.get("kind") not in kinds:
            continue
        if case["input"].get("tokenizer") == "qwen" and not HAS_QWEN:
            continue
        if where(case):
            found.append(pytest.param(case, id=case["name"]))
    return goldens.or_absent(found, f"file data/{name}")


def tokenizer(name: str) -> Tokenizer:
    """`tiny` comes with the vectors, `qwen` with the package dashscope."""
    return build_tokenizer(TokenizerConfig(str(FOLDER / "tiny_tok")), 1024) if name == "tiny" else _qwen()


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


@cache
def _qwen() -> Tokenizer:
    """The Qwen tokenizer, its merges recovered from the token ranks."""
    import base64

    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Core

    lines = (Path(importlib.util.find_spec("dashscope").origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in printable)}

    def spell(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    def halves(token: bytes, rank: int) -> list[bytes]:
        parts = [bytes([b]) for b in token]
        while True:
            pairs = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))]
            best, i = min(pairs, default=(rank, 0))
            if best >= rank:
                return parts
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    merges = [tuple(map(spell, halves(token, rank))) for token, rank in sorted(ranks.items(), key=lambda item: item[1]) if len(token) > 1]
    core = Core(models.BPE(vocab={spell(t): r for t, r in ranks.items()}, merges=merges))
    core.normalizer = normalizers.NFC()
    tiny = json.loads((FOLDER / "tiny_tok" / "tokenizer.json").read_text())
    pattern = tiny["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    return Tokenizer(core, None, core.token_to_id("<|endoftext|>"), 151936)
