"""The training commands: the published one word for word, every way to name a start, every kind of mistake."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from olmo.checkpoints import load_config, load_model, model_tensors, select_checkpoint
from olmo.config_files import config_names
from olmo.data_commands import download
from olmo.models.model import build_model_config
from olmo.train.config import TrainConfig
from olmo.train.saving.folder import save_checkpoint, save_unsharded
from olmo.train.sft import build_train_config, parse
from tests.train.command import CONFIG, launch, records
from tests.train.conftest import _log_settings, shapes, shapes_folder  # noqa: F401
from tests.train.ranks import ALONE

REPO = Path(__file__).resolve().parents[1]

PUBLISHED = """
--wandb.allow_resume=False --global_batch_size 64 --device_batch_size=2 --max_duration=6250 --seq_len 9686 --packing
--model.mm_preprocessor.max_frames=64 --model.mm_preprocessor.max_subtitle_tokens=null
--model.mm_preprocessor.use_frame_special_tokens=True --model.vision_backbone.vit.sdpa_backend=efficient
--model.vision_backbone.compile_vit=null --model.vision_backbone.compile_connector=null --data.num_workers=4
--save_folder={save_folder} --use_temporal_video_olmo --model.mm_preprocessor.topk=0.5 --model.vision_backbone.vit.topk=0.5
--model.vision_backbone.vit.prune_at=3 --model.vision_backbone.vit.prune_method=scorer
"""
"""The published flags, all of them, in their order."""

SCALED = {
    "--global_batch_size 64": "--global_batch_size 4",
    "--max_duration=6250": "--max_duration=3",
    "--seq_len 9686": "--seq_len 512",
    "max_frames=64": "max_frames=8",
    "num_workers=4": "num_workers=1",
}


def published(save_folder, scaled: bool = False) -> list[str]:
    text = PUBLISHED.format(save_folder=save_folder)
    for full, small in SCALED.items() if scaled else ():
        assert full in text
        text = text.replace(full, small)
    return shlex.split(text)


@pytest.fixture(scope="module")
def molmo2(tmp_path_factory) -> Path:
    """A plain Molmo2 checkpoint folder of six ViT blocks, as a training run leaves it."""
    folder = tmp_path_factory.mktemp("molmo2")
    config = build_model_config(yaml.safe_load(CONFIG.read_text())["model"])
    torch.manual_seed(1)
    model = config.build_model("cpu")
    model.reset_parameters()
    save_checkpoint(TrainConfig(save_folder=str(folder), model=config), 7, model, None, {"step": 7}, ALONE)
    return folder


def config_of(*words) -> TrainConfig:
    return build_train_config(*parse([str(w) for w in words]))


# ---------------------------------------------------------------------------------------------- the published command


def test_published_command_means_what_it_says(molmo2, tmp_path):
    cfg = config_of(molmo2, "all-v5-video-academic-only", *published(tmp_path))
    vit, video = cfg.model.vision_backbone.vit, cfg.model.mm_preprocessor.video
    assert cfg.model.model_name == "temporal_video_olmo"
    assert (vit.topk, vit.prune_at, str(vit.prune_method), str(vit.sdpa_backend)) == (0.5, 3, "scorer", "efficient")
    assert (video.topk, video.max_frames, video.max_subtitle_tokens, video.use_frame_special_tokens) == (0.5, 64, None, True)
    assert (cfg.model.vision_backbone.compile_vit, cfg.model.vision_backbone.compile_connector) == (None, None)
    assert (cfg.global_train_batch_size, cfg.device_train_microbatch_size, cfg.max_steps) == (64, 2, 6250)
    assert (cfg.data.dataset, cfg.data.sequence_length, cfg.data.num_workers) == ("all-v5-video-academic-only", 9686, 4)
    assert (cfg.data.packing.buffer_size, cfg.data.packing.image_weight, cfg.data.packing.shortcut_max_len_images) == (48, 30, False)
    assert cfg.save_folder == str(tmp_path)
    assert cfg.initial_model_checkpoint == str(molmo2 / "step7")
    assert cfg.wandb is not None and cfg.wandb.allow_resume is False
    # the published launcher's own settings
    o, s = cfg.optimizer, cfg.scheduler
    rates = o.llm_learning_rate, o.vit_learning_rate, o.connector_learning_rate, o.temporal_token_scorer_learning_rate
    assert rates == (1e-5, 5e-6, 5e-6, 1e-4)
    assert (s.llm_t_warmup, s.temporal_token_scorer_t_warmup, s.alpha_f, s.warmup_min_lr) == (200, 200, 0.1, 0.0)
    assert (cfg.softmax_auxiliary_loss, cfg.max_grad_norm, str(cfg.precision)) == (True, 1.0, "amp_bf16")
    assert (cfg.model.llm.residual_dropout, cfg.model.data_formatter.prompt_templates) == (0.1, "uber_model_v2")
    cfg.validate(world_size=8)


def test_published_command_print_config(molmo2, tmp_path, capsys):
    """The printed YAML is the config: read back it means the same run."""
    assert launch(molmo2, "all-v5-video-academic-only", *published(tmp_path), "--print_config") == 0
    text = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(text)
    assert TrainConfig.load(tmp_path / "printed.yaml") == config_of(molmo2, "all-v5-video-academic-only", *published(tmp_path))


def test_published_command_dry_run(molmo2, tmp_path, capsys, monkeypatch):
    """The data are absent: a synthetic batch takes their place, in one line; 64 frames, half of the cells gone."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert launch(molmo2, "all-v5-video-academic-only", *published(tmp_path), "--dry_run") == 0
    out = capsys.readouterr().out
    assert len(re.findall("a synthetic batch of the configured shapes stands in for the data: 34 of the 34 data sets", out)) == 1
    assert re.search(r"temporal_token_scorer\W+9,745", out)
    row = next([c.strip().replace(",", "") for c in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│   0 "))
    _, frames, cells, kept, tokens, after, _ = map(int, row)
    assert (frames, cells, kept) == (2 * 64, frames * 4, frames * 2), "a row full of frames (twice those of a video), half of each gone"
    assert tokens - after == cells - kept and after <= 9686
    assert "llm attention" in out and "ideal speed-up" in out
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


@pytest.mark.parametrize("name", config_names())
def test_dry_run_of_every_named_config(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    tiny = name.startswith("tiny")
    mixture = "moving_shapes" if tiny else "all-v5-video-academic-only"
    words = (f"--save_folder={tmp_path}", "--model.mm_preprocessor.max_frames=8", "--dry_run", "--fake_world=8")
    assert launch(name, mixture, *words) == 0
    out = capsys.readouterr().out
    assert "plan for 8 ranks" in out
    assert "dry run: nothing was trained" in out
    assert ("the tokenizer Qwen/" in out or "the tokenizer allenai/" in out) is not tiny
    assert not list(tmp_path.iterdir())


def test_dry_run_takes_real_data_where_they_are(shapes, tmp_path, capsys):  # noqa: F811
    assert launch(CONFIG, "moving_shapes", f"--save_folder={tmp_path}", "--dry_run") == 0
    out = capsys.readouterr().out
    assert "synthetic" not in out and "data: moving_shapes, 8 examples" in out


def test_dry_run_generates_nothing(shapes, tmp_path, capsys):  # noqa: F811
    """Fewer videos are there than asked for. Fails (makes the rest) when only the marker is looked for."""
    words = ("--data.moving_shapes.num_train=9", f"--save_folder={tmp_path}", "--dry_run")
    assert launch(CONFIG, "moving_shapes", *words) == 0
    assert "a synthetic batch of the configured shapes stands in for the data: moving_shapes has not" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "seen", "left"), [("tome", 5, 45 - 22), ("fewer_frames", 2, 18), ("lower_resolution", 5, 20)])
def test_every_baseline_trains(method, seen, left, shapes, tmp_path, capsys, monkeypatch):  # noqa: F811
    """Two steps, on videos of five frames of nine cells, of which pruning leaves 23; the dry run says the same before."""
    monkeypatch.setenv("COLUMNS", "200")
    words = ("tiny", "moving_shapes", f"--save_folder={tmp_path}", f"--model.vision_backbone.vit.prune_method={method}")
    words += ("--global_batch_size=4", "--device_batch_size=2", "--max_duration=2", "--data.num_workers=0", "--data.prefetch_factor=null")
    words += tuple(f"--data.moving_shapes.{key}" for key in ("num_train=8", "num_test=2", "seconds=2.0", "size=96"))
    assert launch(*words, "--dry_run") == 0
    out = capsys.readouterr().out
    row = next([c.strip().replace(",", "") for c in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│   0 "))
    _, frames, cells, kept, tokens, after, _ = map(int, row)
    assert (frames, cells, kept) == (seen, 45, left) and tokens - after == cells - kept
    assert "ideal speed-up" in out
    assert launch(*words) == 0
    assert [r["train/kept_fraction"] for r in records(tmp_path)] == pytest.approx([left / 45] * 2)
    assert all(r["train/AuxLoss"] == 0 for r in records(tmp_path))
    assert not any("temporal_token_scorer" in name for name in load_model(select_checkpoint(tmp_path)).state_dict())


def torchrun(count: int, *words, env: dict[str, str]) -> subprocess.Popen:
    run = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"} | env
    command = [*run, "--nproc-per-node", str(count), *map(str, words)]
    return subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_torchrun(count: int, *words, env: dict[str, str]) -> subprocess.CompletedProcess:
    with torchrun(count, *words, env=env) as process:
        out, err = process.communicate(timeout=280)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.slow
def test_published_command_trains(molmo2, shapes_folder, tmp_path):  # noqa: F811
    """Two ranks, every flag of the published command with scaled values, from a plain Molmo2 checkpoint folder."""
    env = {"MOLMO_DATA_DIR": str(shapes_folder)}
    videos = [f"--data.moving_shapes.{key}" for key in ("num_train=8", "num_test=2", "seconds=2.0", "size=96")]
    script = "launch_scripts/train_image_video_sft.py"
    done = run_torchrun(2, script, molmo2, "moving_shapes", *published(tmp_path, scaled=True), *videos, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("has no temporal_token_scorer: its 14 tensors start from random values, all others are loaded") == 1
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3]
    assert all(r["train/kept_fraction"] == 0.5 for r in records(tmp_path))
    assert select_checkpoint(tmp_path).name == "step3"
    assert sorted(p.name for p in (tmp_path / "step3/train").iterdir()) == ["rank0.pt", "rank1.pt"]
    assert load_config(select_checkpoint(tmp_path)).vision_backbone.vit.prune_at == 3
    before, after = model_tensors(load_model(select_checkpoint(molmo2))), model_tensors(load_model(select_checkpoint(tmp_path)))
    assert after.keys() > before.keys()
    assert not torch.equal(before["transformer.blocks.0.ff_out.weight"], after["transformer.blocks.0.ff_out.weight"])
    again = run_torchrun(2, script, molmo2, "moving_shapes", *published(tmp_path, scaled=True), *videos, env=env)
    assert again.returncode == 0 and "nothing to do: the run is at step 3 of 3 already" in again.stdout


@pytest.mark.slow
def test_two_ranks_of_the_command_equal_one(shapes_folder, tmp_path):  # noqa: F811
    """Without packing a global batch holds the same examples for any number of ranks: same losses step by step.

    Seen to fail with the loss divided by the weight of the rank, without the factor for the averaged gradients, and with every
    rank reading the same examples.
    """
    env = {"MOLMO_DATA_DIR": str(shapes_folder)}
    words = (CONFIG, "moving_shapes", "--use_temporal_video_olmo", "--device_batch_size=1", "--max_duration=3")
    for count in (1, 2):
        done = run_torchrun(count, "launch_scripts/train_image_video_sft.py", *words, f"--save_folder={tmp_path / str(count)}", env=env)
        assert done.returncode == 0, done.stderr
    for a, b in zip(records(tmp_path / "1"), records(tmp_path / "2"), strict=True):
        for key in ("train/CrossEntropyLoss", "train/AuxLoss", "train/Accuracy", "optim/llm_grad_norm", "batch/loss_tokens"):
            assert a[key] == pytest.approx(b[key], rel=1e-4), (a["step"], key)


@pytest.mark.slow
def test_preemption_of_all_processes_saves(shapes_folder, tmp_path):  # noqa: F811
    """torchrun hands SIGTERM to ranks and their data workers alike: the step is finished, saved, and whole.

    Fails (seen) when the workers die of it: a rank then ends in the middle of a collective.
    """
    words = (CONFIG, "moving_shapes", "--max_duration=5000", "--save_interval=null", "--data.num_workers=1", f"--save_folder={tmp_path}")
    with torchrun(2, "launch_scripts/train_image_video_sft.py", *words, env={"MOLMO_DATA_DIR": str(shapes_folder)}) as process:
        metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 1):
            time.sleep(0.2)
        process.terminate()
        out, err = process.communicate(timeout=120)
    stopped = re.search(r"stopped by SIGTERM at step (\d+) of 5000", out)
    assert stopped, err
    assert select_checkpoint(tmp_path) == tmp_path / f"step{stopped[1]}"
    assert [r["step"] for r in records(tmp_path)] == list(range(1, int(stopped[1]) + 1))


@pytest.mark.slow
def test_an_error_in_ranks_is_one_sentence(tmp_path):
    done = run_torchrun(2, "launch_scripts/sft.py", "tiny", "moving_shapes", f"--save_folder={tmp_path}", "--global_batch_size=3", env={})
    assert done.returncode != 0
    assert done.stderr.count("error: global_train_batch_size=3 must be a multiple of the number of ranks, 2") == 1
    assert "olmo/train" not in done.stderr, "no traceback of ours"


# ---------------------------------------------------------------------------------------------- ways to say it


def test_starts(molmo2, tmp_path):
    """A checkpoint folder gives its model, a YAML file or a name everything in it."""
    assert config_of(molmo2 / "step7", "moving_shapes").initial_model_checkpoint == str(molmo2 / "step7")
    assert config_of(molmo2, "moving_shapes").max_steps == 300_000
    cfg = config_of(CONFIG, "moving_shapes")
    assert (cfg.initial_model_checkpoint, cfg.max_steps, cfg.data.sequence_length) == (None, 6, 512)
    assert config_of("tiny", "moving_shapes").run_name == "tiny"


def test_unsharded_folder(molmo2, tmp_path):
    model = load_model(select_checkpoint(molmo2))
    save_unsharded(TrainConfig(save_folder=str(tmp_path), model=model.config), 7, model, ALONE)
    assert config_of(tmp_path / "step7-unsharded", "moving_shapes").initial_model_checkpoint == str(tmp_path / "step7-unsharded")


def test_both_spellings_of_video_keys(molmo2):
    key = "--model.mm_preprocessor"
    flat = config_of(CONFIG, "moving_shapes", f"{key}.max_frames=4", f"{key}.max_subtitle_tokens", "9")
    nested = config_of(CONFIG, "moving_shapes", f"{key}.video.max_frames", "4", f"{key}.video.max_subtitle_tokens=9")
    assert flat == nested and flat.model.mm_preprocessor.video.max_frames == 4


def test_words_with_spaces_before_the_positionals():
    """A value after an unknown key is never taken for the checkpoint."""
    words = "--max_duration 9 --save_num_checkpoints_to_keep -1 tiny --run_name x moving_shapes --seq_len 300"
    cfg = config_of(*words.split())
    assert (cfg.max_steps, cfg.save_num_checkpoints_to_keep, cfg.run_name, cfg.data.sequence_length) == (9, -1, "x", 300)


def test_packing_and_workers():
    assert config_of("tiny", "moving_shapes").data.packing is None
    assert config_of("stts_50", "moving_shapes").data.packing is not None
    cfg = config_of("tiny", "moving_shapes", "--packing", "--num_workers=0")
    assert cfg.data.packing.buffer_size == 48 and cfg.data.prefetch_factor is None


def test_the_molmo2_launcher_always_packs(capsys):
    done = subprocess.run(
        [sys.executable, REPO / "launch_scripts/sft.py", "tiny", "moving_shapes", "--print_config"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPO)}, timeout=120,
    )  # fmt: skip
    assert yaml.safe_load(done.stdout)["data"]["packing"]["buffer_size"] == 48, done.stderr


@pytest.mark.parametrize("script", ["train_image_video_sft.py", "sft.py"])
def test_help_is_quick_and_needs_no_torch(script):
    """Seen to fail when the launcher imports torch before it reads its words."""
    code = (
        "import sys, runpy; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, REPO / "launch_scripts" / script],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPO)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for flag in ("CHECKPOINT", "--global_batch_size", "--use_temporal_video_olmo", "--dry_run"):
        assert flag.lower() in done.stdout.lower()


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tiny",), "the following arguments are required: mixture"),
        (("nowhere", "moving_shapes"), "'nowhere' is neither a checkpoint folder, nor a YAML file, nor the name of a config"),
        (("missing.yaml", "moving_shapes"), "there is no config file missing.yaml"),
        (("tiny", "moving_shape"), "unknown mixture or data set 'moving_shape'; did you mean 'moving_shapes'?"),
        (("tiny", "moving_shapes", "--model.llm.d_modle=3"), "unknown config key 'model.llm.d_modle'; did you mean 'model.llm.d_model'?"),
        (("tiny", "moving_shapes", "--max_duration=ten"), "max_duration=ten: must be a number of optimiser steps"),
        (("tiny", "moving_shapes", "--seed=x"), "--seed=x"),
        (("tiny", "moving_shapes", "--global_batch=8"), "unknown config key 'global_batch'; did you mean 'global_train_batch_size'?"),
        (("tiny", "moving_shapes", "--global_batch_size=eight"), "argument --global_batch_size: invalid int value: 'eight'"),
        (("tiny", "moving_shapes", "stray"), "stray word 'stray' on the command line"),
        (("tiny", "moving_shapes", "--device_batch_size=0"), "device_train_microbatch_size=0: must be at least 1"),
        (("tiny", "moving_shapes", "--model.mm_preprocessor.topk=0.3"), "0.3"),
        (("tiny", "moving_shapes", "--model.vision_backbone.vit.topk=1.0"), "topk"),
        (("tiny", "moving_shapes", "--model.vision_backbone.vit.topk=-0.1"), "vit.topk = -0.1 must lie in [0, 1)"),
        (("tiny", "moving_shapes", "--model.vision_backbone.vit.topk=.nan"), "vit.topk = nan must lie in [0, 1)"),
        (("tiny", "moving_shapes", "--model.vision_backbone.vit.merge=true"), "merge"),
        (("tiny", "moving_shapes", "--model.vision_backbone.vit.prune_at=9"), "prune_at"),
        (("tiny", "moving_shapes", "--model.vision_backbone.vit.prune_method=magic"), "prune_method"),
        (("tiny", "moving_shapes", "--cp_degree=2"), "context_parallel_config.degree=2 ranks per sequence"),
        (("tiny", "moving_shapes", "--batch_divisor=device_batch"), "batch_divisor=device_batch is not offered, only global_batch"),
        (("tiny", "moving_shapes", "--data.num_workers=0", "--data.prefetch_factor=2"), "data.prefetch_factor needs data.num_workers"),
        (("tiny", "moving_shapes", "--seq_len=64"), "leaves no room for text in seq_len 64"),
        (("tiny", "moving_shapes", "--seq_len=4096"), "data.sequence_length 4096 is more than model.llm.max_sequence_length 1024"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(words, message, tmp_path, capsys, monkeypatch):
    """Exit status 1, one line that names the word, no traceback, and no run was started."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    save = tmp_path / "run"
    assert launch(*words, *([] if len(words) == 1 else [f"--save_folder={save}"])) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert not list(save.rglob("*")) if save.exists() else True


def test_debug_shows_the_traceback(capsys):
    assert launch("nowhere", "moving_shapes", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mixture", "count", "readable"), [("all-v5-video-academic-only", 34, 34), ("molmo2", 118, 36), ("pretrain", 6, 0)]
)
def test_absent_sets_of_a_mixture_are_a_list(mixture, count, readable, tmp_path, capsys, monkeypatch):
    """A line for each of them with its source, and the command that fetches those that can be read."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    assert launch("tiny", mixture, f"--save_folder={tmp_path / 'run'}") == 1
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"error: {count} of the {count} data sets of the mixture cannot be read:"
    sets, advice = lines[:count], lines[count:]
    assert sum("download from" in line for line in sets) == readable
    assert sum("not available yet" in line for line in sets) == count - readable
    if readable:
        words = shlex.split(advice.pop(0).partition("fetch what can be fetched: ")[2])
        assert words[:2] == ["python", "scripts/download_datasets.py"]
        assert len(download.parse(words[2:])[1]) == readable, "every name is one that the command knows"
    assert [line.split()[0] for line in advice] == ([] if readable == count else [str(count - readable)])
    assert not list((tmp_path / "run").rglob("*")), "no run was started"


def test_absent_data_say_what_to_download(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    assert launch("tiny", "nextqa_mc", f"--save_folder={tmp_path / 'run'}") == 1
    err = capsys.readouterr().err
    assert "nextqa_mc: not found in" in err and "download from" in err


def test_published_config_file_is_read(tmp_path, caplog):
    """Keys of published files without effect here are named in one line; one that would change the run is refused."""
    raw = yaml.safe_load(CONFIG.read_text())
    raw |= {
        "parallelism": {"context_parallel_config": {"degree": 1, "attention_type": "ulysses"}}, "evaluators": [], "eval_interval": -1,
        "strict_initialization": True, "canceled_check_interval": 50, "batch_divisor": "global_batch", "compile_loss": True,
        "runtime_data": {"args": "x", "beaker_experiment_id": None},
    }  # fmt: skip
    raw["optimizer"] |= {"learning_rate": 1e-4, "betas": [0.9, 0.95], "metrics_log_interval": -1}
    raw["fsdp"] = {"fsdp2": True, "precision": "pure", "use_orig_params": True}
    with caplog.at_level("INFO"):
        assert TrainConfig.from_dict(raw).global_train_batch_size == 4
    assert len(caplog.records) == 1 and "compile_loss" in caplog.text and "fsdp.fsdp2" in caplog.text
    raw["parallelism"]["context_parallel_config"]["attention_type"] = "ring"
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(Exception, match="attention_type=ring is not offered, only ulysses"):
        TrainConfig.load(path)


def test_flags_parse_alone():
    args, overrides = parse(["c", "m", "--packing", "--a.b", "1", "--flag"])
    assert isinstance(args, argparse.Namespace) and args.packing
    assert overrides == ["a.b=1", "flag=True"]
