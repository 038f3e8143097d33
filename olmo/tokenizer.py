"""Text <-> token ids, with the special tokens of the visual part placed right behind the language model's embedding.

The visual special tokens are not added to the tokenizer file: they are handled here, so that their ids are exactly
`pad_to`, `pad_to + 1`, ... whatever the size of the underlying vocabulary. A tokenizer is a folder with a
`tokenizer.json`, a name on the Hugging Face hub, or `tiny`, the small one that comes with the project.
"""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from olmo.batch import PAD_ID
from olmo.config import BaseConfig
from olmo.config_files import config_dir
from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError, first_line

SPECIAL_TOKENS: dict[str, str] = {
    "image_start": "<im_start>",
    "image_end": "<im_end>",
    "image_patch": "<im_patch>",
    "image_col": "<im_col>",
    "low_res_image_start": "<low_res_im_start>",
    "image_prompt": "<|image|>",
    "image_low_res": "<im_low>",
    "frame_start": "<frame_start>",
    "frame_end": "<frame_end>",
    "video_prompt": "<|video|>",
    "points": "<|points|>",
    "token_index": "<|token_index|>",
    "subpatch_index": "<|vit_index|>",
    "subpatch_loc": "<|vit_loc|>",
}
"""Name -> text, in the order of their ids."""

IMAGE_TOKENS = ("image_start", "image_end", "image_patch", "image_col", "low_res_image_start", "image_low_res", "frame_start", "frame_end")
"""Names of the tokens that make up a picture; a model may let them attend to each other in both directions."""

SEGMENT_STARTS = ("frame_start", "low_res_image_start")
"""Names of the tokens that open an image or frame (the high-resolution view belongs to the image of its low-resolution one)."""

IMAGE_PLACEHOLDER = SPECIAL_TOKENS["image_prompt"]
"""Text that marks where a visual block goes."""

_SPECIAL = re.compile("(" + "|".join(re.escape(s) for s in SPECIAL_TOKENS.values()) + ")")


@dataclass
class TokenizerConfig(BaseConfig):
    """Which tokenizer the language model speaks."""

    identifier: str = "gpt2"
    """`tiny`, a folder with tokenizer.json, or a Hugging Face hub name."""
    tokenizer_dir: str | None = None
    """A folder to use instead of the identifier (or the cache folder of hub downloads, when it has no tokenizer.json)."""


class Tokenizer:
    """Encodes without adding anything by itself; knows the ids of the visual special tokens."""

    pad_id = PAD_ID

    def __init__(self, core, bos_id: int | None, eos_id: int, pad_to: int | None = None, fallback_for: str | None = None):
        """`core`: a `tokenizers.Tokenizer`. `pad_to`: size of the embedding; the special tokens follow it."""
        size = core.get_vocab_size(with_added_tokens=True)
        if (first := core.token_to_id(SPECIAL_TOKENS["image_start"])) is not None and pad_to in (None, first):
            # The tokenizer of a Hugging Face folder: already padded, and with the special tokens behind.
            filler = core.token_to_id("|<EXTRA_TOKENS_0>|")
            size, pad_to = first if filler is None else filler, first
        if pad_to is not None and pad_to < size:
            raise OLMoConfigurationError(f"the tokenizer has {size} entries, more than the embedding's {pad_to}")
        self._core = core
        self.base_size = size
        """Entries of the underlying vocabulary."""
        self.pad_to = size if pad_to is None else pad_to
        """Id of the first special token (= rows of the language model's main embedding)."""
        self.eos_token_id = eos_id
        self.bos_token_id = eos_id if bos_id is None else bos_id
        self.fallback_for = fallback_for
        """Name of the tokenizer that this one stands in for, when the real one was not available."""
        self._special_ids = {text: self.pad_to + i for i, text in enumerate(SPECIAL_TOKENS.values())}
        self._special_text = {i: text for text, i in self._special_ids.items()}
        for name, text in SPECIAL_TOKENS.items():
            setattr(self, f"{name}_id", self._special_ids[text])

    # set in __init__ from SPECIAL_TOKENS; declared here for readers and type checkers
    image_start_id: int
    image_end_id: int
    image_patch_id: int
    image_col_id: int
    low_res_image_start_id: int
    image_prompt_id: int
    image_low_res_id: int
    frame_start_id: int
    frame_end_id: int
    video_prompt_id: int
    points_id: int
    token_index_id: int
    subpatch_index_id: int
    subpatch_loc_id: int

    @property
    def core(self):
        """The `tokenizers.Tokenizer` below."""
        return self._core

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.pad_to + len(SPECIAL_TOKENS)

    @property
    def special_ids(self) -> dict[str, int]:
        """Text of every visual special token -> id."""
        return dict(self._special_ids)

    def image_token_ids(self) -> frozenset[int]:
        """Ids of IMAGE_TOKENS."""
        return frozenset(self._special_ids[SPECIAL_TOKENS[n]] for n in IMAGE_TOKENS)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens written out in it become their ids, nothing is added."""
        ids: list[int] = []
        for piece in _SPECIAL.split(text):
            if piece in self._special_ids:
                ids.append(self._special_ids[piece])
            elif piece:
                ids += self._core.encode(piece, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], truncate_at_eos: bool = True) -> str:
        """Text of `ids`; by default up to the first end-of-sequence token (after a leading one that doubles as BOS)."""
        ids = [int(i) for i in ids]
        if truncate_at_eos:
            if ids and ids[0] == self.eos_token_id == self.bos_token_id:
                ids = ids[1:]
            if self.eos_token_id in ids:
                ids = ids[: ids.index(self.eos_token_id)]
        else:
            ids = [i for i in ids if i not in (self.bos_token_id, self.eos_token_id)]
        parts, plain = [], []
        for i in ids:
            if i < self.base_size:
                plain.append(i)
                continue
            parts += [
                self._core.decode(plain, skip_special_tokens=False),
                self._special_text.get(i, f"|<EXTRA_TOKENS_{i - self.base_size}>|"),
            ]
            plain = []
        return "".join([*parts, self._core.decode(plain, skip_special_tokens=False)])


def build_tokenizer(cfg: TokenizerConfig, pad_to: int | None = None, *, fallback_tiny: bool = False) -> Tokenizer:
    """Load the tokenizer of `cfg`, its special tokens starting at `pad_to` (the language model's embedding size).

    With `fallback_tiny` a tokenizer that is not on this machine is replaced by the tiny one padded to the same size (the
    network is not asked), and `Tokenizer.fallback_for` names what is missing. Dry runs use it; training and evaluation never do.
    """
    try:
        return _load(cfg.identifier, cfg.tokenizer_dir, pad_to, not fallback_tiny)
    except OLMoEnvironmentError:
        if not fallback_tiny:
            raise
    tiny = _load("tiny", None, pad_to)
    return Tokenizer(tiny._core, tiny.bos_token_id, tiny.eos_token_id, tiny.pad_to, fallback_for=cfg.identifier)


def tiny_tokenizer_dir() -> Path:
    """The folder of the tokenizer that comes with the project, in a checkout or in an installed package."""
    folder = config_dir() / "tiny_tokenizer"
    if not (folder / "tokenizer.json").is_file():
        raise OLMoEnvironmentError(f"the tiny tokenizer is missing from {folder}: run scripts/train_tiny_tokenizer.py or reinstall olmo")
    return folder


@lru_cache(maxsize=8)
def _load(identifier: str, tokenizer_dir: str | None, pad_to: int | None, may_download: bool = True) -> Tokenizer:
    for place in (tokenizer_dir, identifier):
        if place and (Path(place) / "tokenizer.json").is_file():
            return _from_folder(Path(place), pad_to)
    if identifier == "tiny":
        return _from_folder(tiny_tokenizer_dir(), pad_to)
    if Path(identifier).is_absolute() or identifier.startswith("."):
        raise OLMoEnvironmentError(f"the tokenizer folder {identifier} has no tokenizer.json")
    return _from_hub(identifier, tokenizer_dir, pad_to, may_download)


def _from_folder(folder: Path, pad_to: int | None) -> Tokenizer:
    try:
        from tokenizers import Tokenizer as Core

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it encodes short strings, in processes that fork
    except ImportError:
        raise OLMoEnvironmentError("reading a tokenizer needs the package 'tokenizers': pip install tokenizers") from None
    core = Core.from_file(str(folder / "tokenizer.json"))
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text()) if settings_file.is_file() else {}

    def token_id(name: str) -> int | None:
        token = settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        return None if token is None else core.token_to_id(token)

    eos = token_id("eos_token")
    if eos is None:
        raise OLMoConfigurationError(f"{settings_file} names no eos_token that the tokenizer knows")
    return Tokenizer(core, token_id("bos_token"), eos, pad_to)


def _from_hub(identifier: str, cache_dir: str | None, pad_to: int | None, may_download: bool) -> Tokenizer:
    """From the hub's cache on this machine, else by download."""
    unavailable = f"the tokenizer '{identifier}' is neither a folder nor in the Hugging Face cache of this machine"
    try:
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise OLMoEnvironmentError(f"the tokenizer '{identifier}' needs the package 'transformers': pip install transformers") from None
    try:
        cached = try_to_load_from_cache(identifier, "tokenizer.json", cache_dir=cache_dir)
    except HFValidationError:
        raise OLMoEnvironmentError(f"the tokenizer '{identifier}' is neither a folder with tokenizer.json nor a hub name") from None
    if isinstance(cached, str):
        return _from_folder(Path(cached).parent, pad_to)
    if not may_download or constants.HF_HUB_OFFLINE:
        raise OLMoEnvironmentError(unavailable)
    try:  # the hub client would retry for most of a minute
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as err:
        raise OLMoEnvironmentError(f"{unavailable}, and {constants.ENDPOINT} cannot be reached ({getattr(err, 'reason', err)})") from None
    from transformers import AutoTokenizer

    try:
        hub = AutoTokenizer.from_pretrained(identifier, cache_dir=cache_dir)
    except Exception as err:  # the hub raises anything from OSError to its own HTTP errors
        raise OLMoEnvironmentError(f"{unavailable}, and cannot be downloaded: {first_line(err)[:160]}") from None
    if not hub.is_fast:
        raise OLMoConfigurationError(f"the tokenizer '{identifier}' has no tokenizer.json (a 'fast' tokenizer is needed)")
    if hub.eos_token_id is None:
        raise OLMoConfigurationError(f"the tokenizer '{identifier}' has no end-of-sequence token")
    return Tokenizer(hub.backend_tokenizer, hub.bos_token_id, hub.eos_token_id, pad_to)
