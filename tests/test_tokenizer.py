"""The tokenizer: ids of the special tokens, round trips, and errors that help."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError, OLMoEnvironmentError
from olmo.tokenizer import SPECIAL_TOKENS, TokenizerConfig, build_tokenizer, tiny_tokenizer_dir


def tiny(pad_to=1024):
    return build_tokenizer(TokenizerConfig("tiny"), pad_to)


def test_special_tokens_follow_the_embedding():
    tok = tiny()
    assert list(tok.special_ids.values()) == list(range(1024, 1024 + len(SPECIAL_TOKENS)))
    assert (tok.image_start_id, tok.image_patch_id, tok.frame_start_id, tok.frame_end_id) == (1024, 1026, 1031, 1032)
    assert tok.vocab_size == 1038
    assert tok.base_size == 1000 and (tok.bos_token_id, tok.eos_token_id, tok.pad_id) == (0, 0, -1)
    assert tok.image_token_ids() == {1024, 1025, 1026, 1027, 1028, 1030, 1031, 1032}


def test_special_text_is_encoded_as_its_id_and_back():
    tok = tiny()
    text = "0.5 <frame_start><im_patch><im_patch><frame_end> red<|image|>"
    ids = tok.encode(text)
    assert ids.count(tok.image_patch_id) == 2 and tok.image_prompt_id in ids
    assert tok.decode(ids) == text
    assert tok.encode("<|im_start|>user") == [1, *tok.encode("user")]


@given(st.text(max_size=60))
def test_round_trip(text):
    """Byte-level: any text that its Unicode normal form leaves alone comes back. Seen to fail when decode dropped the last piece."""
    import unicodedata

    tok = tiny()
    if unicodedata.normalize("NFC", text) == text and "<|endoftext|>" not in text:
        assert tok.decode(tok.encode(text)) == text


def test_decode_stops_at_the_end_of_the_sequence():
    tok = tiny()
    red, blue = tok.encode(" red"), tok.encode(" blue")
    ids = [tok.bos_token_id, *red, tok.eos_token_id, *blue]
    assert tok.decode(ids) == " red"
    assert tok.decode(ids, truncate_at_eos=False) == " red blue"
    assert tok.decode([]) == ""


@pytest.mark.parametrize("word", "red orange yellow green blue purple left right up down one two three circle square triangle star".split())
def test_words_of_the_demo_are_single_tokens(word):
    tok = tiny()
    assert len(tok.encode(word)) == 1 and len(tok.encode(f" {word}")) == 1


def test_digits_are_split_as_in_the_large_tokenizers():
    assert len(tiny().encode(" 12.5 ")) == 6  # space, 1, 2, ., 5, space


def test_the_script_reproduces_the_committed_files(tmp_path, repo):
    spec = importlib.util.spec_from_file_location("train_tiny_tokenizer", repo / "scripts" / "train_tiny_tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.save(module.train(1000), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((tiny_tokenizer_dir() / name).read_text())


def test_embedding_smaller_than_the_vocabulary_is_refused():
    with pytest.raises(OLMoConfigurationError, match="1000 entries, more than the embedding's 512"):
        tiny(512)


def test_missing_tokenizers_are_named(tmp_path: Path):
    with pytest.raises(OLMoEnvironmentError, match="no tokenizer.json"):
        build_tokenizer(TokenizerConfig(str(tmp_path)))
    with pytest.raises(OLMoEnvironmentError, match="'nobody/nothing'") as err:
        build_tokenizer(TokenizerConfig("nobody/nothing"), 2048)
    assert "\n" not in str(err.value)


def test_fallback_is_padded_and_flagged():
    tok = build_tokenizer(TokenizerConfig("nobody/nothing"), 151936, fallback_tiny=True)
    assert tok.fallback_for == "nobody/nothing" and tok.image_patch_id == 151938
    assert tiny().fallback_for is None
    assert build_tokenizer(TokenizerConfig("tiny"), 1024, fallback_tiny=True).fallback_for is None


def test_folder_wins_over_identifier():
    tok = build_tokenizer(TokenizerConfig("nobody/nothing", str(tiny_tokenizer_dir())), 1024)
    assert tok.encode("red") == tiny().encode("red")


@pytest.mark.slow
def test_transformers_reads_the_same_ids():
    """The Hugging Face loader is the oracle of ours (slow to import)."""
    from transformers import AutoTokenizer

    hub = AutoTokenizer.from_pretrained(tiny_tokenizer_dir())
    text = "<|im_start|>user\nWhich colour appears first? 12.5<|im_end|>\n"
    assert hub.encode(text, add_special_tokens=False) == tiny().encode(text)
