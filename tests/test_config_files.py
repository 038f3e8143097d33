"""Every named config loads, is legal, describes the model it is named after, and says how it is used."""

import re
import shlex

import pytest
import torch

from olmo.config_files import config_names, find_config
from olmo.data.mixtures import mixture_by_name
from olmo.models.model import build_model_config
from olmo.train.config import TrainConfig
from olmo.train.pretrain import build_train_config, parse

# Parameters of the whole model: published inventories for the large ones, plus the scorer's 33,766,769.
PARAMETERS = {
    "molmo2_4b": 4_461_913_040,
    "molmo2_4b_long_context": 4_461_913_040,
    "molmo2_4b_pretrain": 4_461_913_040,
    "molmo2_8b": 8_661_703_120,
    "molmo2_o_7b": 7_760_786_896,
    "stts_30": 4_461_913_040 + 33_766_769,
    "stts_50": 4_461_913_040 + 33_766_769,
    "stts_50_long_context": 4_461_913_040 + 33_766_769,
    "stts_70": 4_461_913_040 + 33_766_769,
}


def test_the_names():
    assert config_names() == sorted([*PARAMETERS, "tiny", "tiny_molmo2"])


@pytest.mark.parametrize("name", config_names())
def test_loads_without_a_word_and_survives_a_round_trip(name, tmp_path, caplog):
    """No key without effect, nothing unknown, and the saved file means the same."""
    with caplog.at_level("INFO"):
        config = TrainConfig.load(find_config(name))
    assert not caplog.records
    config.validate(world_size=config.parallelism.context_parallel_config.degree)
    config.model.validate()
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", config_names())
def test_number_of_parameters(name):
    """Built on the meta device: nothing is allocated."""
    config = TrainConfig.load(find_config(name)).model
    count = sum(p.numel() for p in config.build_model("meta").parameters())
    if name in ("tiny", "tiny_molmo2"):
        assert 0.7e6 < count < 1.3e6
    else:
        assert count == PARAMETERS[name]


@pytest.mark.parametrize(("name", "topk"), [("stts_30", 0.3), ("stts_50", 0.5), ("stts_70", 0.7)])
def test_pruned_configs_differ_in_the_removed_fraction_only(name, topk):
    config, other = (TrainConfig.load(find_config(n)).asdict() for n in (name, "stts_50"))
    assert config["model"]["vision_backbone"]["vit"].pop("topk") == topk
    other["model"]["vision_backbone"]["vit"].pop("topk")
    for key in ("run_name", "save_folder"):
        config.pop(key), other.pop(key)
    assert config == other


def test_the_published_recipe():
    """What the published command leaves to the config."""
    config = TrainConfig.load(find_config("stts_50"))
    assert (config.max_duration, config.global_train_batch_size, config.data.sequence_length) == (6250, 64, 9686)
    optimizer, scheduler, vit = config.optimizer, config.scheduler, config.model.vision_backbone.vit
    rates = [optimizer.peak_learning_rate(group) for group in ("llm", "vit", "connector", "temporal_token_scorer")]
    assert rates == [1e-5, 5e-6, 5e-6, 1e-4]
    assert {scheduler.llm_t_warmup, scheduler.vit_t_warmup, scheduler.connector_t_warmup, scheduler.temporal_token_scorer_t_warmup} == {200}
    assert (scheduler.alpha_f, config.max_grad_norm, config.softmax_auxiliary_loss_scale) == (0.1, 1.0, 1e-4)
    assert (vit.prune_at, str(vit.prune_method), vit.sim_reg_loss_coefficient) == (3, "scorer", 0.5)
    assert config.model.mm_preprocessor.video.max_frames == 64
    assert config.model.llm.rope_theta == 1e6 and config.model.llm.tokenizer.identifier == "Qwen/Qwen3-4B"


def test_the_published_stages():
    """Steps, sequences, tokens, frames, micro-batch, workers and peak rates of connector, ViT and language model, stage by stage."""
    found = {}
    for name in ("molmo2_4b_pretrain", "molmo2_4b", "molmo2_4b_long_context"):
        cfg = TrainConfig.load(find_config(name))
        rates = [cfg.optimizer.peak_learning_rate(group) for group in ("connector", "vit", "llm")]
        shape = (cfg.max_duration, cfg.global_train_batch_size, cfg.data.sequence_length, cfg.model.mm_preprocessor.video.max_frames)
        found[name] = (*shape, cfg.device_train_microbatch_size, cfg.data.num_workers, *rates)
        assert cfg.model.llm.max_sequence_length >= cfg.data.sequence_length
    assert found["molmo2_4b_pretrain"] == (31_000, 128, 2_536, 16, 4, 2, 2e-4, 6e-6, 2e-5)
    assert found["molmo2_4b"] == (30_000, 128, 16_384, 128, 2, 6, 5e-6, 5e-6, 1e-5)
    assert found["molmo2_4b_long_context"] == (2_000, 128, 36_864, 384, 1, 4, 5e-6, 5e-6, 1e-5)


LONG = {"model.llm.max_sequence_length", "model.mm_preprocessor.video.max_frames", "data.sequence_length", "data.num_workers", "compile"}
LONG |= {
    "parallelism.context_parallel_config.degree",
    "run_name",
    "save_folder",
    "max_duration",
    "device_train_microbatch_size",
    "global_train_batch_size",
}


def differing(a: dict, b: dict, path: str = "") -> set[str]:
    """Dotted keys whose values differ."""
    found = set()
    for key in a:
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            found |= differing(a[key], b[key], f"{path}{key}.")
        elif a[key] != b[key]:
            found.add(f"{path}{key}")
    return found


@pytest.mark.parametrize(("name", "before"), [("molmo2_4b_long_context", "molmo2_4b"), ("stts_50_long_context", "stts_50")])
def test_the_long_context_stage_changes_lengths_only(name, before):
    config, other = (TrainConfig.load(find_config(n)).asdict() for n in (name, before))
    assert differing(config, other) <= LONG
    assert config["data"]["sequence_length"] == 36_864 and config["model"]["mm_preprocessor"]["video"]["max_frames"] == 384


def test_the_pretraining_file_is_what_the_command_builds():
    """From the name of the language model, and from that of the file."""
    built, named = (build_train_config(*parse([name])).asdict() for name in ("qwen3_4b_instruct", "molmo2_4b_pretrain"))
    assert differing(built, named) == {"run_name", "save_folder"}


@pytest.mark.parametrize("name", config_names())
def test_the_header_says_what_for_how_and_what_comes_out(name):
    text = find_config(name).read_text()
    header = [line.removeprefix("#").strip() for line in text[: text.index("\n\n")].splitlines()]
    assert len(header[0]) > 40
    command = " ".join(header).replace("\\ ", "")
    script, mixture = re.search(rf"launch_scripts/(\w+)\.py {name} (\S+)", command).groups()
    if script == "pretrain":
        mixture = mixture.partition("--mixture=")[2] or TrainConfig.load(find_config(name)).data.dataset
    assert mixture_by_name(mixture)
    assert "Expected time" in command and "Expected result" in command.replace("Expected (published)", "Expected result").replace(
        "Expected: ", "Expected result: "
    )
    for word in shlex.split(command.replace("'", "")):
        if word.startswith("--") and "=" in word and not word.startswith(("--initial", "--save_folder", "--mixture")):
            key, _, value = word.removeprefix("--").partition("=")
            TrainConfig.load(find_config(name), [f"{key}={value}"])


def test_configs_fit_the_model_block_of_a_checkpoint():
    """The block `model` alone, as `config.yaml` of a checkpoint folder gives it."""
    config = TrainConfig.load(find_config("tiny"))
    assert build_model_config(config.model.asdict()) == config.model
    with torch.device("meta"):
        assert config.model.build_model("meta").parameter_groups()["temporal_token_scorer"]
