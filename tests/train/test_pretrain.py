"""The pre-training command: published flags and values, ways to name what is trained, mistakes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from olmo.launch import run_command
from olmo.train.config import TrainConfig
from olmo.train.pretrain import build_train_config, main, parse
from tests.train.command import CONFIG, records
from tests.train.conftest import _log_settings, shapes, shapes_folder  # noqa: F401

REPO = Path(__file__).resolve().parents[2]


def pretrain(*words) -> int:
    return run_command(lambda argv: main(argv, "pretrain.py"), [str(w) for w in words])


def config_of(*words) -> TrainConfig:
    return build_train_config(*parse([str(w) for w in words]))


def test_published_values():
    cfg = config_of("qwen3_4b_instruct")
    o, s, llm, image = cfg.optimizer, cfg.scheduler, cfg.model.llm, cfg.model.mm_preprocessor.image
    assert (o.connector_learning_rate, o.vit_learning_rate, o.llm_learning_rate) == (2e-4, 6e-6, 2e-5)
    assert (s.connector_t_warmup, s.vit_t_warmup, s.llm_t_warmup, s.alpha_f) == (200, 2000, 2000, 0.1)
    assert (cfg.max_steps, cfg.global_train_batch_size, cfg.device_train_microbatch_size) == (31000, 128, 4)
    assert (cfg.data.sequence_length, cfg.data.seed, cfg.data.num_workers, cfg.data.dataset) == (2536, 95818, 2, "pretrain")
    assert (cfg.data.packing.buffer_size, cfg.data.packing.image_weight) == (48, 1)
    assert (str(cfg.fsdp.precision), cfg.save_interval, cfg.save_num_checkpoints_to_keep) == ("float", 4000, 1)
    assert (llm.residual_dropout, llm.response_residual_dropout, llm.tokenizer.identifier) == (0, 0.1, "Qwen/Qwen3-4B-Instruct-2507")
    assert (image.crop_mode, image.max_crops, list(image.overlap_margins)) == ("overlap-and-resize-c2", 8, [4, 4])
    assert cfg.model.vision_backbone.vit_layers == [-3, -9] and cfg.model.mm_preprocessor.video.max_frames == 16
    assert "qwen3-4b-instruct.pt" in llm.init_path and cfg.model.bi_directional_attn == "image_tokens"
    cfg.validate(8)


def test_flags():
    words = "--vision_backbone=openai --vit_layers -2 -5 --global_batch_size 64 --warmup_factor=2 --pointing=0.2 --nlp=0.3 --seq_len=2600"
    cfg = config_of("olmo3_7b_instruct", *words.split(), "--max_duration=5")
    assert cfg.model.mm_preprocessor.image.max_crops == 12 and cfg.model.vision_backbone.vit_layers == [-2, -5]
    assert (cfg.scheduler.connector_t_warmup, cfg.scheduler.vit_t_warmup, cfg.scheduler.llm_t_warmup) == (100, 1000, 1000)
    assert (cfg.global_train_batch_size, cfg.data.sequence_length, cfg.max_steps) == (64, 2600, 5)
    assert [(g.name, g.rate) for g in cfg.data.groups()] == [("captions", 0.5), ("pointing", 0.2), ("nlp", 0.3)]
    alone = config_of("debug", "--nlp=0", "--seq_len=2000", "--max_duration=7")
    assert alone.data.packing is None and [g.name for g in alone.data.groups()] == ["captions", "pointing"]
    assert (alone.save_folder, alone.global_train_batch_size, alone.wandb, alone.model.llm.n_layers) == ("debug_run", 8, None, 3)
    evaluated = config_of("debug", "--n_eval_examples=9", "--device_eval_batch_size=2").evaluation
    assert (evaluated.max_examples, evaluated.device_batch_size) == (9, 2)


def test_a_config_of_its_own():
    """Everything in the file stays, and the published values fill what it does not say."""
    cfg = config_of(CONFIG, "--mixture=moving_shapes_all", "--num_workers=0")
    assert (cfg.max_steps, cfg.data.sequence_length, cfg.data.seed) == (6, 512, 95818)
    assert cfg.data.dataset == "moving_shapes_all" and cfg.data.prefetch_factor is None and cfg.optimizer.llm_learning_rate == 1e-3


def test_print_config_is_the_config(tmp_path, capsys):
    assert pretrain("qwen3_8b", "--print_config") == 0
    (tmp_path / "x.yaml").write_text(capsys.readouterr().out)
    assert TrainConfig.load(tmp_path / "x.yaml") == config_of("qwen3_8b")


def test_dry_run_of_the_published_mixture(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    assert pretrain("debug", "--dry_run", "--fake_world=4") == 0
    out = capsys.readouterr().out
    assert "plan for 4 ranks" in out and "6 of the 6 data sets of the mixture cannot be read" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: llm"),
        (("qwen3_5b",), "nor a language model (debug, qwen3_4b, "),
        (("debug", "--vision_backbone=vgg"), "--vision_backbone=vgg: choose one of openai, siglip"),
        (("tiny", "--vision_backbone=siglip"), "--vision_backbone is for a model that is put together here"),
        (("debug", "--seq_len=2304"), "data.sequence_length=2304 must be more than 2304"),
        (("debug", "--nlp=0"), "--max_duration is needed"),
        (("debug", "--nlp=0.8"), "--pointing=0.3 and --nlp=0.8 must not be negative"),
        (("debug", "--mixture=moving_shapes", "--nlp=0.1"), "give them or --mixture"),
        (("debug", "--warmup_factor=0"), "--warmup_factor=0: must be above 0"),
        (("debug", "--fake_world=2"), "needs --dry_run"),
        (("debug",), "6 of the 6 data sets of the mixture cannot be read:"),
        (("debug",), "'cosyn_point' is a image data set: not available yet (published at huggingface.co/datasets/allenai/CoSyn-400K)"),
    ],
)
def test_mistakes(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    tokenizer = ("--model.llm.tokenizer.identifier=tiny",) if words == ("debug",) else ()
    assert pretrain(*words, *tokenizer) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err


def test_a_checkpoint_is_refused(tmp_path, capsys):
    (tmp_path / "step3").mkdir()
    (tmp_path / "step3/config.yaml").write_text(yaml.safe_dump({"model": {"model_name": "video_olmo"}}))
    (tmp_path / "step3/model.pt").touch()
    assert pretrain(tmp_path / "step3", "--mixture=moving_shapes") == 1
    assert "go on with it by launch_scripts/sft.py" in capsys.readouterr().err


def test_it_trains(shapes, tmp_path):  # noqa: F811
    words = ("--mixture=moving_shapes_all", "--max_duration=1", "--data.packing={buffer_size: 4}", f"--save_folder={tmp_path}")
    assert pretrain(CONFIG, *words, "--model.mm_preprocessor.image.max_images=3") == 0
    (record,) = records(tmp_path)
    assert record["step"] == 1 and record["train/CrossEntropyLoss"] > 0


def test_help_is_quick_and_names_the_published_flags():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", REPO / "launch_scripts/pretrain.py", "--help"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPO)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and not re.search(r"\btorch$", done.stderr, re.M)
    for flag in ("n_eval_examples", "device_eval_batch_size", "warmup_factor", "vit_layers", "vision_backbone", "nlp", "pointing"):
        assert f"--{flag}" in done.stdout
