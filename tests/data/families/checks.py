"""What tests of all families ask: which error a file gives, and which texts the formatter of the fine-tuning makes of an example."""

import numpy as np
import pytest

from olmo.data.dataset import Example
from olmo.exceptions import OLMoDataError
from olmo.preprocessing.formatter import DataFormatter, DataFormatterConfig
from tests.data.families.fixtures import open_split

SFT = {"prompt_templates": "uber_model_v2", "message_format": "qwen3", "system_prompt": "demo_or_style_v2", "pointing_format": "html-v2"}
START, END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def said(example: Example, seed: int = 0) -> list[tuple[str, str]]:
    """(request, answer) of every branch, without the marks of the chat."""
    messages, _ = DataFormatter(DataFormatterConfig(**SFT))(example, np.random.default_rng(seed), is_training=True)
    branches = messages if isinstance(messages[0], list) else [messages]
    assert all(len(b) == 2 and b[0].startswith(START) and b[0].endswith(END) for b in branches)
    return [(b[0].removeprefix(START).removesuffix(END), b[1]) for b in branches]


def refused(name: str, sentence: str, split: str = "train") -> None:
    """Opening the split is an error of this data set that says `sentence`."""
    with pytest.raises(OLMoDataError) as err:
        open_split(name, split)
    assert str(err.value).startswith(f"{name}: ") and sentence in str(err.value), str(err.value)
