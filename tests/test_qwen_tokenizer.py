"""What the released models read and write with Qwen's vocabulary: special tokens, chat turns, time stamps."""

import re

import numpy as np
import pytest

from olmo.preprocessing.formatter import DataFormatter, DataFormatterConfig
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.message_tree import MessageTreeBuilder, TextPreprocessorConfig
from olmo.preprocessing.video import VideoPreprocessor, VideoPreprocessorConfig
from tests import qwen_tokenizer
from tests.qwen_tokenizer import CHAT, QWEN3

IM_START, IM_END, USER, ASSISTANT, NEWLINE, SPACE = 151644, 151645, 872, 77091, 198, 220
MIXED = "It's 12.5 s:\r\n  naïve  größe 東京 \u0061\u0301 def f(x):\n\treturn x**2 🙂  "


def test_merges_follow_the_ranks():
    """Merging by rank alone, without any list of merges, is what defines the vocabulary. Seen to fail with merges sorted by
    spelling."""
    import unicodedata

    ranks, tok = qwen_tokenizer.ranks(), qwen_tokenizer.build()
    assert len(ranks) == 151643 and sorted(ranks.values()) == list(range(151643))
    assert len(qwen_tokenizer.vocabulary()[1]) == 151643 - 256
    words = [w.encode() for w in re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", MIXED))] + [b"unbelievably", b"Donaudampfschiff"]
    for word in words:
        assert tok.encode(word.decode()) == [ranks[t] for t in qwen_tokenizer.merge(word, ranks, len(ranks))], word


def test_known_ids():
    tok = qwen_tokenizer.build()
    assert tok.encode("Hello world") == [9707, 1879]
    assert tok.encode("<|im_start|>user\n") == [IM_START, USER, NEWLINE]
    assert tok.encode("<|im_start|>assistant\n") == [IM_START, ASSISTANT, NEWLINE]
    assert [tok.encode(text) for text in QWEN3] == [[i] for i in range(151643, 151669)]
    assert tok.decode(tok.encode(MIXED)) == MIXED.replace("\u0061\u0301", "\u00e1")


def test_transformers_agrees():
    """transformers' own class for this family, given the same vocabulary. Seen to fail with numbers in pieces of three digits."""
    from transformers import Qwen2Tokenizer

    vocabulary, merges = qwen_tokenizer.vocabulary()
    theirs = Qwen2Tokenizer(vocab=dict(vocabulary), merges=list(merges))
    for text in (MIXED, "2024-11-21", "  a\n\n b", "I'LL we'Ve", "<|endoftext|>"):
        mine = qwen_tokenizer.build(CHAT, "<|endoftext|>").encode(text)
        assert theirs.encode(text, add_special_tokens=False) == mine, text


@pytest.mark.parametrize(("added", "eos", "end_id"), [(QWEN3, "<|im_end|>", IM_END), (CHAT, "<|endoftext|>", 151643)])
def test_special_tokens(added, eos, end_id):
    """Ids right behind the embedding, whatever the vocabulary holds before; no beginning-of-sequence token of its own."""
    tok = qwen_tokenizer.build(added, eos)
    table = [
        ("image_start", "<im_start>", 151936),
        ("image_end", "<im_end>", 151937),
        ("image_patch", "<im_patch>", 151938),
        ("image_col", "<im_col>", 151939),
        ("low_res_image_start", "<low_res_im_start>", 151940),
        ("image_prompt", "<|image|>", 151941),
        ("image_low_res", "<im_low>", 151942),
        ("frame_start", "<frame_start>", 151943),
        ("frame_end", "<frame_end>", 151944),
        ("video_prompt", "<|video|>", 151945),
        ("points", "<|points|>", 151946),
        ("token_index", "<|token_index|>", 151947),
        ("subpatch_index", "<|vit_index|>", 151948),
        ("subpatch_loc", "<|vit_loc|>", 151949),
    ]
    assert list(tok.special_ids.items()) == [(text, i) for _, text, i in table]
    assert [getattr(tok, f"{name}_id") for name, _, _ in table] == [i for _, _, i in table]
    assert [tok.encode(f"a{text}b") for _, text, _ in table] == [[64, i, 65] for _, _, i in table]
    assert tok.eos_token_id == tok.bos_token_id == end_id and tok.pad_id == -1
    first = 151643 + len(added)
    assert tok.decode([first, 151935]) == f"|<EXTRA_TOKENS_0>||<EXTRA_TOKENS_{151935 - first}>|"
    assert tok.decode([end_id, 9707, end_id, 1879]) == "Hello"
    assert tok.decode([end_id, 9707, end_id, 151943, 1879], truncate_at_eos=False) == "Hello<frame_start> world"


TURNS = ["What moves?", "A red ball.", "Where to?", "Left", "Sure?"]


def chat_template(turns: list[str]) -> str:
    """What the released template writes for turns without system message and without the empty think block."""
    roles = ("user", "assistant")
    text = "".join(f"<|im_start|>{roles[i % 2]}\n{turn}<|im_end|>\n" for i, turn in enumerate(turns))
    return text + "<|im_start|>assistant\n" if len(turns) % 2 else text


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_chat_turns(count):
    """Messages in a row read as the template; an answered conversation stops before the template's last two tokens."""
    formatter = DataFormatter(DataFormatterConfig(message_format="qwen3", system_prompt="no_style"))
    example = {"messages": TURNS[:count], "style": "user_qa"}
    messages, _ = formatter(example, np.random.default_rng(0), for_inference=count % 2 == 1)
    expected = chat_template(TURNS[:count])
    text = "".join(messages)
    assert (text if count % 2 else text + "<|im_end|>\n") == expected

    tok = qwen_tokenizer.build()
    sequence = MessageTreeBuilder(TextPreprocessorConfig(), tok)(messages)
    assert sequence.input_tokens[:4].tolist() == [IM_END, IM_START, USER, NEWLINE]  # begins with the end token, having no other
    whole = [*sequence.input_tokens.tolist(), *([] if count % 2 else [tok.eos_token_id])]
    body = [t for i, t in enumerate(whole[1:]) if not (t == IM_END == whole[i])]  # training closes each earlier answer twice
    assert body == tok.encode(expected)[: len(body)]
    assert whole.count(IM_END) - body.count(IM_END) == 1 + (count - 1) // 2
    assert tok.encode(expected)[len(body) :] == ([] if count % 2 else [NEWLINE])


def video(**fields) -> VideoPreprocessor:
    return VideoPreprocessor(VideoPreprocessorConfig(**fields), PixelConfig((42, 42), 14), qwen_tokenizer.build())


@pytest.mark.parametrize(
    ("mode", "texts"),
    [
        ("per-frame-compact", ["0.0 ", " 1.2 ", " 63.5 "]),
        ("per-frame", ["time 0.00 ", " time 1.25 ", " time 63.46 "]),
        ("numbered-frames", ["1: ", " 2: ", " 3: "]),
        ("none", ["", "", ""]),
    ],
)
def test_time_before_each_frame(mode, texts):
    """Seen to fail with all stamps encoded in one piece: a space before a number merges differently there."""
    tok, frame = qwen_tokenizer.build(), [151943, 151938, 151944]
    expected = sum((tok.encode(text) + frame for text in texts), [])
    assert video(time_mode=mode).frame_tokens([0.0, 1.25, 63.456]).tolist() == expected


def test_digits_and_spaces_of_time_stamps():
    """One token per digit, and the space on either side is a token of its own, so stamps look the same everywhere."""
    digits = {str(d): 15 + d for d in range(10)}
    ids = video(per_frame_special_token=False).frame_tokens([0.0, 10.5])
    text = "0.0 ", " 10.5 "
    spelled = [[SPACE if c == " " else 13 if c == "." else digits[c] for c in t] for t in text]
    assert ids.tolist() == [151943, *spelled[0], 151938, *spelled[1], 151938, 151944]


@pytest.mark.parametrize("seed", range(4))
def test_times_in_questions(seed):
    """Half of the questions name a time in seconds, half on the clock; digit by digit either way."""
    config = DataFormatterConfig(prompt_templates="uber_model_v2", message_format="qwen3", system_prompt="demo_or_style_v2")
    example = {"style": "video_frame_caption_timestamp", "timestamp": 61.46, "text": "A ball."}
    messages, _ = DataFormatter(config)(example, np.random.default_rng(seed), is_training=True)
    expected = "61.5" if np.random.default_rng(seed).random() > 0.5 else "00:01:01.5"
    assert re.search(r"(?<![\d:.])[\d:.]*\d\.\d", messages[0])[0] == expected
    ids = qwen_tokenizer.build().encode(messages[0])
    spelled = [{":": 25, ".": 13}.get(c) or 15 + int(c) for c in expected]
    assert any(ids[i : i + len(spelled)] == spelled for i in range(len(ids)))
