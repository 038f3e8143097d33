"""The documentation does not lie: every command is checked, every link leads somewhere, every documented default is the default.

A command of a `bash` block must match a row of `CHECKS`. Fast checks parse it with the program's own parser; the slow test
runs the commands that a stranger with one CPU can run, in order, in an empty folder. How the commands of the large models
are run (dry, and with real steps on a small model) is in `tests/train`.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
DOCS = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]


def commands(path: Path, language: str = "bash") -> list[str]:
    """The commands of the fenced blocks of one language, continuation lines joined."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)
    if language != "bash":
        return blocks
    return [" ".join(line.split()) for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


COMMANDS = [(path.name, command) for path in DOCS for command in commands(path)]


def program_words(command: str) -> tuple[str, list[str]]:
    """(program, its words) of a command run by python or torchrun."""
    words = shlex.split(command)
    start = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return words[start], words[start + 1 :]


def check_make(command: str, tmp_path: Path) -> None:
    """The target exists and its recipe expands."""
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    done = subprocess.run(
        ["make", "-n", f"VENV={tmp_path}/venv", *shlex.split(command)[1:]], cwd=REPO, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def check_train(command: str, tmp_path: Path) -> None:
    """Words parse, keys exist, and the config is legal; a stand-in checkpoint gives the model block of Molmo2-4B."""
    from olmo.config import read_yaml
    from olmo.config_files import find_config
    from olmo.models.model import build_model_config
    from olmo.train import sft

    checkpoint = tmp_path / "pretrained"
    checkpoint.mkdir()
    build_model_config(read_yaml(find_config("molmo2_4b"))["model"]).save(checkpoint / "model.yaml")
    text = (checkpoint / "model.yaml").read_text()
    (checkpoint / "config.yaml").write_text("model:\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    (checkpoint / "model.pt").touch()
    _, words = program_words(re.sub(r"/path/to/pretrained/model|(?<=\.py )runs/\S+", str(checkpoint), command))
    args, overrides = sft.parse(words)
    config = sft.build_train_config(args, overrides)
    config.validate(args.fake_world or ranks_of(command))
    config.model.validate()
    if "--use_temporal_video_olmo" in words and "9686" in words:
        vit = config.model.vision_backbone.vit
        assert (vit.topk, vit.prune_at, str(vit.prune_method)) == (0.5, 3, "scorer")
        assert config.data.packing is not None and config.data.sequence_length == 9686
        assert (config.global_train_batch_size, config.device_train_microbatch_size, config.max_steps) == (64, 2, 6250)


def ranks_of(command: str) -> int:
    """How many ranks a command starts."""
    found = re.match(r"torchrun (?:--nnodes (\d+) )?--nproc-per-node (\d+)|sbatch --nodes (\d+)", command)
    if found is None:
        return 1
    nodes, here, under_slurm = found.groups()
    return 8 * int(under_slurm) if under_slurm else int(nodes or 1) * int(here)


def check_pretrain(command: str, tmp_path: Path) -> None:
    """Words parse and the config is legal for as many ranks as are started."""
    from olmo.train import pretrain

    args, overrides = pretrain.parse(program_words(command)[1])
    pretrain.build_train_config(args, overrides).validate(args.fake_world or ranks_of(command))


def check_eval(command: str, tmp_path: Path) -> None:
    from olmo.eval.command import parse

    args, _, _ = parse(program_words(command)[1])
    assert args.list_tasks or (args.checkpoint and args.tasks)


def check_ask(command: str, tmp_path: Path) -> None:
    from olmo.config import read_yaml
    from olmo.config_files import find_config
    from olmo.models.model import build_model_config
    from scripts.ask import parse

    video, *words = program_words(command)[1]
    (tmp_path / video).touch()
    args, overrides = parse([str(tmp_path / video), *words])
    assert args.question
    build_model_config(read_yaml(find_config("tiny"))["model"], overrides).validate()


def check_picture(command: str, tmp_path: Path) -> None:
    from scripts.readme_picture import build_parser

    assert build_parser().parse_args(program_words(command)[1]).out == "docs/kept_cells.png"


def check_generator(command: str, tmp_path: Path) -> None:
    from olmo.config import parse_overrides
    from olmo.data.moving_shapes import MovingShapesConfig

    MovingShapesConfig().with_overrides(parse_overrides(program_words(command)[1]))


def check_visualize(command: str, tmp_path: Path) -> None:
    """Words parse, and without a checkpoint (which a stranger does not have yet) the training config that they describe is legal."""
    from olmo.visualize.command import parse, training_config

    args, overrides = parse(program_words(command)[1])
    if args.checkpoint is None:
        assert training_config(args, overrides, None).data.dataset == args.name


def check_numerics(command: str, tmp_path: Path) -> None:
    from scripts.compare_numerics import parse

    assert parse(program_words(command)[1]).size == "4b"


def check_saving(command: str, tmp_path: Path) -> None:
    from scripts.measure_saving import build_parser, main

    assert build_parser().parse_args(program_words(command)[1]).parameters == 1e8
    assert main(["--parameters=0", "--saves=2", f"--folder={tmp_path}"]) == 0


def check_restart(command: str, tmp_path: Path) -> None:
    """The words of the training that it starts are legal; the slow test in `tests/scripts` runs it."""
    from olmo.train import sft
    from scripts.measure_restart import build_parser, training_words

    args = build_parser().parse_args(program_words(command)[1])
    sft.build_train_config(*sft.parse(training_words(int(args.parameters), tmp_path))).validate(world_size=1)


def check_golden(command: str, tmp_path: Path) -> None:
    """What it writes without words is the file that `tests/train/test_golden_losses.py` reads."""
    from scripts.golden_losses import FILE, STEPS, build_parser

    args = build_parser().parse_args(program_words(command)[1])
    assert (args.names, args.steps, args.out) == ([], STEPS, FILE) and FILE.is_file()


def check_checkpoint(command: str, tmp_path: Path) -> None:
    from olmo.convert.command import build_parser

    name, *words = program_words(command)[1]
    build_parser(name).parse_args(words)


def check_prepare(command: str, tmp_path: Path) -> None:
    from olmo.convert.pretrained import SOURCES
    from scripts.prepare_pretrained_model import build_parser

    args = build_parser().parse_args(program_words(command)[1])
    assert args.name in SOURCES or args.out is not None


def check_benchmark(command: str, tmp_path: Path) -> None:
    from olmo.benchmark.cases import cases_of
    from olmo.benchmark.command import build_parser

    args = build_parser().parse_args(program_words(command)[1])
    assert args.part == "page" or [c for c in cases_of(args.profile, args.part) if any(text in c.key for text in args.only)]


def check_memory(command: str, tmp_path: Path) -> None:
    """The words make a legal training whose memory can be told."""
    from olmo.train.memory.command import parse, training_config
    from olmo.train.memory.estimate import shape_of

    args, words = parse(program_words(command)[1])
    assert args.page == "docs/memory.md" or shape_of(training_config(args, words), args.frames).rows


def check_replay(command: str, tmp_path: Path) -> None:
    from olmo.train.bad_batches.replay import parse

    assert parse(program_words(command)[1])[0].dump.endswith(".pt")


def check_gpu(command: str, tmp_path: Path) -> None:
    from scripts.gpu_check import PARTS, build_parser

    assert set(build_parser().parse_args(program_words(command)[1]).parts) <= set(PARTS)


def check_download(command: str, tmp_path: Path) -> None:
    """Flags and names are known."""
    from olmo.data_commands.download import parse

    assert parse(program_words(command)[1])[1]


def check_doctor(command: str, tmp_path: Path) -> None:
    """Flags, config, keys and data are known."""
    from olmo.data_commands.doctor import parse
    from olmo.train import sft

    args, overrides = parse(program_words(command)[1])
    assert sft.build_train_config(sft.parse([args.config, args.data])[0], overrides).data.groups()


def check_comparison(command: str, tmp_path: Path) -> None:
    from olmo.eval.compare_text import build_parser

    build_parser().parse_args(program_words(command)[1])


def check_eval_report(command: str, tmp_path: Path) -> None:
    from olmo.eval.report.command import build_parser

    build_parser().parse_args(program_words(command)[1])


def check_plot_run(command: str, tmp_path: Path) -> None:
    """Words parse; the page goes into the folder of a run that a command of the documents makes."""
    from olmo.visualize.run_command import parse

    words = program_words(command)[1]
    runs = [word for word in words if word.startswith("runs/")]
    assert runs and all(any(f"--save_folder={run}" in other.split() for _, other in COMMANDS) for run in runs)
    for run in runs:
        (tmp_path / run).mkdir(parents=True)
    parse([str(tmp_path / word) if word in runs else word for word in words])


def check_sweep(command: str, tmp_path: Path) -> None:
    from olmo.eval.sweep.command import parse

    parse(program_words(command)[1])


def check_judge(command: str, tmp_path: Path) -> None:
    from olmo.eval.judges.command import parse

    parse(program_words(command)[1])


def check_lmms(command: str, tmp_path: Path) -> None:
    """The model takes these arguments; lmms-eval itself runs in `tests/plugins`."""
    import inspect

    from olmo.plugins import MODEL_NAME
    from olmo.plugins.lmms_eval import CheckpointModel

    words = shlex.split(command)
    given = {word.partition("=")[0] for word in words[words.index("--model_args") + 1].split(",")}
    assert words[words.index("--model") + 1] == MODEL_NAME and given <= set(inspect.signature(CheckpointModel).parameters)


def check_copy(command: str, tmp_path: Path) -> None:
    """`cp GENERATED FILE`; the slow test of docs/own_data.md runs it."""
    source, target = shlex.split(command)[1:]
    assert source.startswith("data/moving_shapes/") and Path(source).suffix == Path(target).suffix == ".mp4"


def check_file(command: str, tmp_path: Path) -> None:
    """`python -m pytest FILE`: the file is there."""
    assert (REPO / shlex.split(command)[-1]).is_file()


LAUNCH = (
    r"(python|torchrun (--nnodes \d+ )?--nproc-per-node \d+( --rdzv-(backend c10d|id \w+|endpoint \w+:\d+))*"
    r"|sbatch --nodes \d+ scripts/slurm/train\.sbatch)"
)
"""Ways to start a training."""

CHECKS = [
    (r"make [\w-]+( (TORCH_INDEX|DEMO_ARGS)=\S+)?", check_make),
    (rf"{LAUNCH} launch_scripts/(train_image_video_sft|sft)\.py .*", check_train),
    (rf"{LAUNCH} launch_scripts/pretrain\.py .*", check_pretrain),
    (r"(torchrun --nproc-per-node \d+|python) launch_scripts/eval_molmo2\.py .*", check_eval),
    (r"python scripts/ask\.py .*", check_ask),
    (r"python scripts/readme_picture\.py .*", check_picture),
    (r"python scripts/compare_numerics\.py .*", check_numerics),
    (r"python scripts/checkpoint\.py .*", check_checkpoint),
    (r"python scripts/measure_saving\.py .*", check_saving),
    (r"python scripts/measure_restart\.py .*", check_restart),
    (r"python scripts/golden_losses\.py", check_golden),
    (r"python scripts/prepare_pretrained_model\.py .*", check_prepare),
    (r"python scripts/benchmark\.py .*", check_benchmark),
    (r"python scripts/estimate_memory\.py .*", check_memory),
    (r"python scripts/gpu_check\.py.*", check_gpu),
    (r"python scripts/replay_batch\.py .*", check_replay),
    (r"python scripts/make_moving_shapes\.py .*", check_generator),
    (r"python scripts/download_datasets\.py .*", check_download),
    (r"python scripts/data_doctor\.py .*", check_doctor),
    (r"python scripts/compare_evals\.py .*", check_comparison),
    (r"python scripts/eval_report\.py .*", check_eval_report),
    (r"python scripts/plot_run\.py .*", check_plot_run),
    (r"python scripts/sweep\.py .*", check_sweep),
    (r"python scripts/judge\.py .*", check_judge),
    (r"python -m lmms_eval .*", check_lmms),
    (r"cp \S+ \S+", check_copy),
    (r"python scripts/dataset_visualize\.py .*", check_visualize),
    (r"\.venv/bin/python -m pytest \S+", check_file),
]


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(COMMANDS)])
def test_every_command_is_checked(document, command, tmp_path):
    checks = [check for pattern, check in CHECKS if re.fullmatch(pattern, command)]
    assert len(checks) == 1, f"{document}: no check for the command: {command}"
    checks[0](command, tmp_path)


def test_no_check_is_left_over():
    unused = [pattern for pattern, _ in CHECKS if not any(re.fullmatch(pattern, command) for _, command in COMMANDS)]
    assert not unused


def test_the_published_commands_are_in_the_readme_word_for_word():
    readme = (REPO / "README.md").read_text()
    for line in PUBLISHED.strip().splitlines():
        assert line in readme.splitlines()


PUBLISHED = r"""
launch_scripts/train_image_video_sft.py /path/to/pretrained/model all-v5-video-academic-only \
--wandb.allow_resume=False \
--global_batch_size 64 \
--device_batch_size=2 \
--max_duration=6250 \
--seq_len 9686 \
--packing \
--model.mm_preprocessor.max_frames=64 \
--model.mm_preprocessor.max_subtitle_tokens=null \
--model.mm_preprocessor.use_frame_special_tokens=True \
--model.vision_backbone.vit.sdpa_backend=efficient \
--model.vision_backbone.compile_vit=null \
--model.vision_backbone.compile_connector=null \
--data.num_workers=4 \
--save_folder=/path/to/save/folder \
--use_temporal_video_olmo \
--model.mm_preprocessor.topk=0.5 \
--model.vision_backbone.vit.topk=0.5 \
--model.vision_backbone.vit.prune_at=3 \
--model.vision_backbone.vit.prune_method=scorer
torchrun --nproc-per-node 8 launch_scripts/eval_molmo2.py /path/to/save/folder \
--device_batch_size=2 \
--mode=video
"""


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_and_named_files_exist(path):
    text = path.read_text()
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert not [link for link in targets if not (path.parent / link).exists()]
    named = re.findall(r"\b(?:olmo|tests|configs|scripts|launch_scripts|docs)/[\w/]+\.(?:py|yaml|md)\b", text)
    assert not [name for name in named if not (REPO / name).is_file()]


def test_documented_defaults_are_the_defaults():
    """The pruning table of docs/usage.md against the config class."""
    from olmo.nn.temporal_image_vit import TemporalVitConfig

    table = (REPO / "docs" / "usage.md").read_text().partition("## Pruning")[2].partition("## Training")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", table, re.M)
    assert len(rows) >= 7
    defaults = TemporalVitConfig().asdict()
    assert {key: str(defaults[key]).lower() for key, _ in rows} == {key: value.lower() for key, value in rows}


def test_the_override_table_is_true():
    """Every spelling in the table of docs/usage.md is accepted by the training config."""
    from olmo.config import parse_overrides
    from olmo.config_files import find_config
    from olmo.train.config import TrainConfig

    table = (REPO / "docs" / "usage.md").read_text().partition("| written | means |")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    words = [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]
    assert len(words) >= 9
    config = TrainConfig.load(find_config("tiny"))
    for word in words:
        config.with_overrides(parse_overrides(shlex.split(word)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stranger_follows_the_documents(tmp_path):
    """The CPU commands in their order with sizes scaled down: make videos, describe, train, evaluate, ask, call from Python."""
    for folder in ("launch_scripts", "scripts"):
        (tmp_path / folder).symlink_to(REPO / folder)
    env = {**os.environ, "PYTHONPATH": str(REPO), "MOLMO_DATA_DIR": str(tmp_path / "data")}
    small = ["--data.moving_shapes.num_train=24", "--data.moving_shapes.num_test=8", "--max_duration=3", "--console_log_interval=1"]

    def follow(document: str, start: str, *more: str) -> str:
        command = next(c for c in commands(REPO / document) if c.startswith(start))
        run = {"python": [sys.executable], "torchrun": [sys.executable, "-m", "torch.distributed.run"]}
        words = [part for word in shlex.split(command) for part in run.get(word, [word])]
        done = subprocess.run([*words, *more], cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    follow("docs/usage.md", "python scripts/make_moving_shapes.py", "--num_train=24", "--num_test=8")
    follow("README.md", "python launch_scripts/train_image_video_sft.py tiny", *small)
    assert (tmp_path / "runs/tiny/metrics.jsonl").is_file() and (tmp_path / "runs/tiny/step3/config.yaml").is_file()
    follow("docs/usage.md", "torchrun --nproc-per-node 2", *small)
    assert (tmp_path / "runs/two/step3/train/rank1.pt").is_file()
    page = follow("docs/watching.md", "python scripts/plot_run.py runs/tiny runs/two")
    assert "tiny up to step 3, two up to step 3" in page and "http-equiv" not in (tmp_path / "compared.html").read_text()
    (tmp_path / "runs/demo").mkdir()
    (tmp_path / "runs/demo/stts").symlink_to(tmp_path / "runs/tiny")
    follow("README.md", "python launch_scripts/eval_molmo2.py runs/demo/stts", "--data.moving_shapes.num_test=8", "--num_workers=0")
    follow("docs/usage.md", "python launch_scripts/eval_molmo2.py --list_tasks")
    assert follow("docs/evaluation.md", "python launch_scripts/eval_molmo2.py --list_tasks").count("\n") == 13
    for topk in ("", " --topk=0"):
        start = f"python launch_scripts/eval_molmo2.py runs/demo/stts --mode=moving_shapes{topk} --save_dir"
        follow("docs/evaluation.md", start, "--data.moving_shapes.num_test=8", "--num_workers=0")
    assert "B - A" in follow("docs/evaluation.md", "python scripts/compare_evals.py")
    follow("docs/evaluation.md", "python scripts/eval_report.py")
    assert 'class="kept"' in (tmp_path / "runs/scores/report.html").read_text()
    clip = next((tmp_path / "data").rglob("*.mp4"))
    (tmp_path / "clip.mp4").symlink_to(clip)
    assert "before pruning" in follow("README.md", "python scripts/ask.py")
    assert "<html" in (tmp_path / "kept.html").read_text()
    follow("docs/usage.md", "python scripts/ask.py")
    few = ["--data.moving_shapes.num_train=24", "--data.packing.buffer_size=4", "--packing_map=6", "--examples=2"]
    follow("docs/usage.md", "python scripts/dataset_visualize.py moving_shapes --config", "--packing", *few)
    follow("docs/usage.md", "python scripts/dataset_visualize.py moving_shapes --checkpoint", *few)
    assert (tmp_path / "page.html").read_text().count('<svg class="tree"') == 2 and 'class="kept"' in (
        tmp_path / "kept_page.html"
    ).read_text()
    follow("CONTRIBUTING.md", "python scripts/readme_picture.py", "--out=kept.png")
    assert (tmp_path / "kept.png").read_bytes().startswith(b"\x89PNG")
    assert "tgif" in follow("docs/data.md", "python scripts/download_datasets.py --list")
    assert "all is well" in follow("docs/data.md", "python scripts/data_doctor.py moving_shapes_debug")
    follow("docs/usage.md", "python launch_scripts/train_image_video_sft.py tiny moving_shapes --save_folder=runs/adapted", *small)
    for command in ("merge_lora", "ema"):
        assert "unsharded" in follow("docs/usage.md", f"python scripts/checkpoint.py {command}")
    assert "peak" in follow("docs/memory.md", "python scripts/estimate_memory.py tiny")
    (program,) = commands(REPO / "README.md", "python")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "total" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("option", ["--print_config", "--dry_run"])
def test_describing_a_large_run(option, tmp_path):
    """The two describing commands of docs/usage.md run as they stand, without data, weights or the real tokenizer."""
    command = next(c for c in commands(REPO / "docs" / "usage.md") if c.endswith(option))
    env = {**os.environ, "PYTHONPATH": str(REPO), "MOLMO_DATA_DIR": str(tmp_path)}
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert ("topk: 0.5" if option == "--print_config" else "FLOP") in done.stdout
