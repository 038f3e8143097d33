"""The tokenizer of Qwen3, built from the vocabulary that the package dashscope carries.

dashscope is a client for a web service with many dependencies, of which nothing is imported: only its file of token ranks is
read (the Makefile installs it alone). Ranks are the order in which byte pairs were merged, which is all a tokenizer needs.
"""

import base64
import importlib.util
import json
import tempfile
from functools import cache
from pathlib import Path

from olmo.tokenizer import Tokenizer, TokenizerConfig, build_tokenizer

CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Added tokens 151643.. that reference vectors know."""
QWEN3 = (
    *CHAT,
    *(f"<|{what}_{end}|>" for what in ("object_ref", "box", "quad", "vision") for end in ("start", "end")),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
)
"""All added tokens of the released Qwen3 tokenizers, 151643 to 151668."""
EMBEDDING = 151936
"""Rows of Qwen3's embedding."""
PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How text is cut before bytes are merged; every digit stands alone."""


def ranks() -> dict[bytes, int]:
    """Every token of the vocabulary with its id."""
    found = importlib.util.find_spec("dashscope")
    if found is None:
        raise ModuleNotFoundError("the Qwen vocabulary is missing: pip install --no-deps -c constraints.txt dashscope")
    lines = (Path(found.origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def merge(piece: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """`piece` after every merge that makes a token of a rank under `below`, lowest first."""
    parts = [bytes([b]) for b in piece]
    while True:
        pairs = [(ranks.get(a + b, below), i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))]
        rank, i = min(pairs, default=(below, 0))
        if rank >= below:
            return parts
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def spelling() -> list[str]:
    """The printable character that stands for each byte in a tokenizer file."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + rest.index(b)) for b in range(256)]


@cache
def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token -> id, merges in order). The pair that made a token is what earlier merges leave of it."""
    letters, table = spelling(), ranks()

    def spell(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    merges = [tuple(map(spell, merge(token, table, rank))) for token, rank in table.items() if len(token) > 1]
    return {spell(token): rank for token, rank in table.items()}, merges


def save(folder: Path, added: tuple[str, ...] = QWEN3, eos: str = "<|im_end|>") -> Path:
    """Write a tokenizer folder as on the hub. The instruction-tuned models end with <|im_end|>, base models with <|endoftext|>."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Core

    tokens, merges = vocabulary()
    core = Core(models.BPE(vocab=tokens, merges=merges))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in added])
    folder.mkdir(parents=True, exist_ok=True)
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "eos_token": eos, "pad_token": "<|endoftext|>"}))
    return folder


@cache
def build(added: tuple[str, ...] = QWEN3, eos: str = "<|im_end|>") -> Tokenizer:
    """Our tokenizer with Qwen3's vocabulary, read from a folder as any other."""
    with tempfile.TemporaryDirectory() as folder:
        return build_tokenizer(TokenizerConfig(str(save(Path(folder), added, eos))), EMBEDDING)
