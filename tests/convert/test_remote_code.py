"""Exported folders of pruned models: their own code in transformers gives our logits and answers, and nothing else reads them.

Seen to fail with the features of dropped cells left in the sequence, with pictures handed to the next row, and with a cache
that forgets its last block of tokens.
"""

import json
import re
import sys
from dataclasses import replace
from functools import cache

import pytest
import torch

from olmo.checkpoints import load_config, open_weights
from olmo.convert.remote_code.generate import remote_modules
from olmo.exceptions import OLMoConfigurationError
from olmo.inference.generation import SamplingConfig, generate
from tests.checkpoints.formats import weights_of
from tests.convert.hf_export import ask_in_fresh_process, export
from tests.oracles import check_close
from tests.oracles.molmo2 import EXAMPLES, VIT, batch, build, hf_inputs, raw_config

CODE = {"trust_remote_code": True}


@cache
def pruned_model(variant: str = "qwen3_untied", **changes):
    raw = raw_config(variant, model_name="temporal_video_olmo")
    vit = VIT | {"topk": 0.5, "prune_at": 1} | changes
    return build(raw | {"vision_backbone": raw["vision_backbone"] | {"vit": vit}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(pruned_model(), tmp_path_factory.mktemp("pruned") / "exported")


@pytest.fixture(scope="module")
def theirs(folder, tmp_path_factory):
    """The folder's model in this process; its code goes to a cache of this test."""
    from transformers import AutoModelForImageTextToText, dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", list(sys.path))
        return AutoModelForImageTextToText.from_pretrained(folder, **CODE).eval()


def test_the_code_is_ours_and_stands_alone(folder):
    modules = remote_modules()
    assert {"olmo.nn.temporal_image_vit", "olmo.models.temporal_video_olmo.compaction", "olmo.nn.llm"} <= modules.keys()
    foreign = re.compile(r"^\s*(?:from|import) (?!torch|transformers|numpy)(\w+)", re.MULTILINE)
    imported = {name for text in modules.values() for name in foreign.findall(text)}
    assert imported - {"flash_attn"} <= sys.stdlib_module_names
    assert len(list(folder.glob("*.py"))) == len(modules)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "molmo2_stts"


@pytest.mark.parametrize("example", EXAMPLES)
def test_logits(theirs, example):
    ours = pruned_model()
    inputs = batch(ours, EXAMPLES[example])
    with torch.no_grad():
        expected = ours(inputs, logits="all")
        actual = theirs(**hf_inputs(ours, inputs))
    assert torch.equal(actual.logits[0], expected.logits)
    tokens = inputs.input_ids.shape[1]
    assert actual.kept_tokens.shape == (1, tokens) and actual.kept_tokens.sum() == expected.tokens_after[0]
    assert ("video" in example) == (expected.tokens_after[0] < tokens)


@pytest.mark.parametrize("examples", [("image", "two images"), ("long video", "video"), ("video", "text")])
def test_logits_of_rows_of_different_length(theirs, examples):
    ours = pruned_model()
    inputs = batch(ours, *(EXAMPLES[e] for e in examples))
    with torch.no_grad():
        expected = ours(inputs, logits="all")
        actual = theirs(**hf_inputs(ours, inputs))
    lengths = expected.tokens_after
    rows = [row[-n:] for row, n in zip(actual.logits, lengths, strict=True)]
    check_close(torch.cat(rows), expected.logits, 1e-6, f"exported pruned model, batch of {' and '.join(examples)}")
    assert actual.kept_tokens.sum(1).tolist() == list(lengths)


@pytest.mark.parametrize("examples", [("text",), ("video",), ("image",), ("long video", "video"), ("video", "text")])
def test_greedy_generation(theirs, examples):
    ours = pruned_model()
    inputs = batch(ours, *(EXAMPLES[e] for e in examples))
    given = hf_inputs(ours, inputs)
    answer = theirs.generate(**given, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert answer[:, given["input_ids"].shape[1] :].tolist() == generate(ours, inputs, 12).token_ids


def test_long_answers_outgrow_the_cache(theirs, monkeypatch):
    monkeypatch.setitem(sys.modules[type(theirs).__module__].__dict__, "ROOM", 5)
    ours = pruned_model()
    inputs = batch(ours, EXAMPLES["long video"], EXAMPLES["video"])
    given = hf_inputs(ours, inputs)
    answer = theirs.generate(**given, max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert answer[:, given["input_ids"].shape[1] :].tolist() == generate(ours, inputs, 30).token_ids


def test_sampled_generation(theirs):
    ours = pruned_model()
    inputs = batch(ours, EXAMPLES["video"])
    given = hf_inputs(ours, inputs)
    torch.manual_seed(3)
    answer = theirs.generate(**given, max_new_tokens=12, do_sample=True, top_k=30, temperature=0.9, eos_token_id=None, pad_token_id=0)
    expected = generate(ours, inputs, 12, sampling=SamplingConfig(temperature=0.9, top_k=30), generator=torch.Generator().manual_seed(3))
    assert answer[:, given["input_ids"].shape[1] :].tolist() == expected.token_ids


@pytest.mark.parametrize("wrong", ["fewer pictures", "more pictures", "beams"])
def test_calls_that_make_no_sense(theirs, wrong):
    ours = pruned_model()
    given = hf_inputs(ours, batch(ours, EXAMPLES["video"], EXAMPLES["long video"]))
    if wrong == "beams":
        with pytest.raises(ValueError, match="num_beams above 1"):
            theirs.generate(**given, num_beams=2, max_new_tokens=2)
        return
    rows = slice(0, 1) if wrong == "more pictures" else slice(None)
    cut = {"video_grids": given["video_grids"][:1]} if wrong == "fewer pictures" else {}
    message = "have no place in the text" if wrong == "more pictures" else "prepared together"
    with pytest.raises(ValueError, match=message):
        theirs(**given | {"input_ids": given["input_ids"][rows], "attention_mask": given["attention_mask"][rows]} | cut)


def test_import_is_the_inverse(folder):
    source, expected = open_weights(folder), weights_of(pruned_model())
    assert source.shapes.keys() == expected.keys() and all(torch.equal(source.read(n), t) for n, t in expected.items())
    config = load_config(folder)
    config.llm.tokenizer.tokenizer_dir = None
    assert config == pruned_model().config


def test_without_its_code_it_is_an_error(folder, monkeypatch):
    from transformers import AutoModelForImageTextToText

    monkeypatch.setattr("builtins.input", lambda *args: "n")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoModelForImageTextToText.from_pretrained(folder)


def test_the_class_of_unpruned_models_refuses_it(folder):
    """It would go on from a warning about the model type, and build itself from its defaults."""
    from transformers import Molmo2ForConditionalGeneration

    with pytest.raises(Exception, match="this model drops visual tokens: load it with .* and trust_remote_code=True"):
        Molmo2ForConditionalGeneration.from_pretrained(folder)


def test_saving_it_again_keeps_the_code_and_the_refusal(theirs, folder, tmp_path):
    theirs.save_pretrained(tmp_path)
    first, again = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path))
    assert all(again[key] == first[key] for key in ("model_type", "auto_map", "text_config", "olmo"))
    assert {f.name for f in folder.glob("*.py")} == {f.name for f in tmp_path.glob("*.py")}


@pytest.mark.slow
def test_a_fresh_process_computes_the_same(folder):
    ours = pruned_model()
    answers = ask_in_fresh_process(folder, tuple(EXAMPLES), "--trust_remote_code")
    assert answers["class"] == "Molmo2SttsForConditionalGeneration"
    for name, theirs in answers["answers"].items():
        inputs = batch(ours, EXAMPLES[name])
        assert torch.equal(theirs["inputs"]["input_ids"], inputs.input_ids)
        pixels = next((v for k, v in theirs["inputs"].items() if k.startswith("pixel_values")), None)
        if pixels is not None:
            inputs = replace(inputs, images=pixels[None])
        with torch.no_grad():
            assert torch.equal(ours(inputs, logits="all").logits, theirs["logits"][0])
        assert generate(ours, inputs, 12).token_ids[0] == theirs["generated"].tolist()


def test_fast_frames_are_no_part_of_an_export(tmp_path):
    model = pruned_model()
    model.config.mm_preprocessor.video.slow_fast.mode = "periodic"
    with pytest.raises(OLMoConfigurationError, match="slow_fast.mode must be null"):
        export(model, tmp_path / "out")


@pytest.mark.parametrize("method", ["fewer_frames", "lower_resolution"])
def test_models_that_see_less(tmp_path, method):
    """Their weights are those of an unpruned model, but an exported processor would show it everything."""
    model = pruned_model(prune_method=method)
    with pytest.raises(OLMoConfigurationError, match=f"prune_method is {method}.*set vit.prune to false"):
        export(model, tmp_path / "out")
