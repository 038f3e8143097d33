"""What a benchmark finally asks: its raw example, worded as the released models are evaluated; and what it refuses."""

import numpy as np
import pytest

from olmo.exceptions import OLMoDataError
from olmo.preprocessing.formatter import DataFormatter, DataFormatterConfig
from olmo.preprocessing.prompts import load_templates
from tests.data.families.fixtures import SEED, example, open_split

FORMATTER = DataFormatter(
    DataFormatterConfig(
        prompt_templates="uber_model_v2", message_format="qwen3", system_prompt="demo_or_style_v2", pointing_format="html-v2"
    )
)
"""With the settings of the released models."""


def asked(name: str, split: str, index: int = 0, seed: int = SEED) -> str:
    """The text between the marks of the user's turn."""
    (text,), _ = _formatted(name, split, index, seed)
    head, tail = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert text.startswith(head) and text.endswith(tail)
    return text.removeprefix(head).removesuffix(tail)


def told(name: str, split: str, index: int = 0) -> dict:
    """What an evaluator is told about an example: its metadata and what the formatter adds."""
    return example(name, split, index)["metadata"] | _formatted(name, split, index, SEED)[1]


def _formatted(name: str, split: str, index: int, seed: int) -> tuple[list[str], dict]:
    return FORMATTER(example(name, split, index), np.random.default_rng(seed), is_training=False, for_inference=True)


def wordings(family: str, **slots: str) -> set[str]:
    """All texts that a family of request wordings can give for a video."""
    texts = set()
    for text in load_templates("prompts")[family]:
        for word in ("image", "picture", "photo"):
            text = text.replace(word, "video")
        for name, value in slots.items():
            text = text.replace("{" + name + "}", value)
        texts.add(text)
    return texts


def raises(sentence: str, name: str, split: str) -> None:
    """Opening the split fails with a sentence that begins with the name of the data set."""
    with pytest.raises(OLMoDataError, match=f"^{name}: .*{sentence}"):
        open_split(name, split)
