"""Train three tiny models for 100 steps and write down every loss: `tests/train/golden_losses.json`, which a test repeats.

    python scripts/golden_losses.py

dense: the plain Molmo2, videos and packing. stts_50: half of the cells pruned by the scorer. image_only: the same
model on still images, whole and in several crops.

A run is repeated in a process of its own whose arithmetic is pinned, because the last bits of a sum depend on which
instructions a library chooses for the processor: one thread, AVX2 where there is more, and the one mode of MKL that gives
equal results on every processor. So the numbers should be the same, bit for bit, wherever the version of torch and the
instruction set are. The videos are stored without loss and in the size that the model sees: no decoder has a choice.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo.exceptions import OLMoCliError
from olmo.launch import CommandParser, run_command

if TYPE_CHECKING:
    from olmo.batch import Batch
    from olmo.data.loader import TrainLoader

REPO = Path(__file__).resolve().parents[1]
FILE = REPO / "tests" / "train" / "golden_losses.json"
CONFIG = REPO / "tests" / "train" / "six_blocks.yaml"
STEPS = 100
SIDE = 126
"""Frames are as large as the model's input, so that nothing is resized; nine cells each, so that half of them is no whole number."""
EXAMPLES = 12

LOUD = (
    *("--model.llm.init_std=0.09", "--model.llm.initializer_range=0.09", "--model.llm.new_embedding_init_range=0.1"),
    *("--model.vision_backbone.vit.initializer_range=0.125", "--model.vision_backbone.vit.patch_embedding_init_std=0.1"),
    "--model.vision_backbone.vit.positional_embedding_init_std=1.0",
)
"""At this width the published scales are so small that the loss would hardly notice what the model sees."""
COMMON = (
    *LOUD,
    *("--model.vision_backbone.vit.image_default_input_size=[126, 126]", "--model.vision_backbone.vit.image_num_pos=81"),
    *("--global_batch_size=2", "--device_batch_size=1", "--seq_len=400", "--max_grad_norm=1.0", "--data.isolate_decoding=false"),
    *("--activation_checkpointing=false", "--data.pad=null", "--model.mm_preprocessor.video.loading_method=pyav"),
    *("--save_num_checkpoints_to_keep=0", "--save_folder=run"),
)
PACKED = ("--packing", "--data.packing.buffer_size=3", "--data.packing.max_frames=12")
PRUNED = (
    *("--use_temporal_video_olmo", "--model.vision_backbone.vit.topk=0.5"),
    "--optimizer.temporal_token_scorer_learning_rate=1.0e-3",  # at ten times that all scores are soon zero, and stay there
)
CROPPED = (
    *("--model.mm_preprocessor.image.crop_mode=overlap-and-resize-c2", "--model.mm_preprocessor.image.max_crops=4"),
    *("--model.mm_preprocessor.image.overlap_margins=[1, 1]", "--model.mm_preprocessor.image.max_images=2"),
)
RUNS: dict[str, tuple[str, ...]] = {
    "dense": ("videos.jsonl", *COMMON, *PACKED),
    "stts_50": ("videos.jsonl", *COMMON, *PACKED, *PRUNED),
    "image_only": ("images.jsonl", *COMMON, *CROPPED, *PRUNED),
}
"""Words of the training command, after the config and before the number of steps. Names of data files are part of the data's
order, so they are relative to a folder that `write_data` fills."""


def build_parser() -> CommandParser:
    parser = CommandParser("golden_losses.py", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which runs ({', '.join(RUNS)})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimiser steps of each; the schedule is that of {STEPS} ({STEPS})")
    parser.add_argument("--out", type=Path, default=FILE, help=f"file to write ({FILE.relative_to(REPO)})")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    if unknown := set(args.names) - set(RUNS):
        raise OLMoCliError(f"unknown run {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    if not 1 <= args.steps <= STEPS:
        raise OLMoCliError(f"--steps={args.steps}: must be 1 to {STEPS}")
    pin_arithmetic()
    content = environment() | {"runs": {}}
    with tempfile.TemporaryDirectory(prefix="golden_losses_") as folder, chdir(folder):
        os.environ["MOLMO_DATA_DIR"] = folder  # the index of the data goes there too
        write_data(Path(folder))
        for name in args.names or list(RUNS):
            content["runs"][name] = run(RUNS[name], args.steps)
            print(f"{name}: loss {content['runs'][name]['steps'][-1][0]:.6f} after {args.steps} steps", flush=True)
    args.out.write_text(as_text(content) + "\n")
    print(args.out)
    return 0


# ---------------------------------------------------------------------------------------------- arithmetic


def pin_arithmetic() -> None:
    """One way to compute on every processor that has AVX2; must happen before torch is imported."""
    assert "torch" not in sys.modules
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2", "CUDA_VISIBLE_DEVICES": ""}
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and " avx2 " in flags.read_text():
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    import torch

    torch.set_num_threads(1)


def environment() -> dict[str, Any]:
    """The first three decide whether the numbers must be the same; the others are told when they are not."""
    import torch

    from olmo.benchmark.results import current_commit
    from olmo.benchmark.results import environment as surroundings

    around = surroundings(torch.device("cpu"))
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processor": around["device"],
        "python": around["python"],
        "packages": around["packages"],
        "commit": current_commit(),
    }


# ---------------------------------------------------------------------------------------------- data


def write_data(folder: Path) -> None:
    """`videos.jsonl` and `images.jsonl` with their media: scenes of `moving_shapes`, of several lengths and sizes, without loss."""
    from PIL import Image

    from olmo.data.moving_shapes_scene import all_questions, draw_scene, render, scene_rng

    videos, images = [], []
    for i in range(EXAMPLES):
        rng = scene_rng(0, "train", i)
        scene = draw_scene(rng, SIDE, seconds=2.0 + 0.5 * (i % 4))
        frames = render(scene, fps=4)
        questions = all_questions(scene, rng)
        write_lossless(frames, 4, folder / f"{i}.mkv")
        Image.fromarray(frames[-1][: SIDE - 20 * (i % 3)]).save(folder / f"{i}.png")
        asked = [{"question": q.question, "answer": q.answer} for q in questions]
        videos.append({"video": f"{i}.mkv", "conversations": asked[:5]})
        still = [q for q in asked if "move" not in q["question"] and "appears" not in q["question"]]
        media = {"image": f"{i}.png"} if i % 3 else {"images": [f"{i}.png", f"{max(0, i - 1)}.png"]}
        images.append(media | {"conversations": still[:4]})
    for name, lines in (("videos", videos), ("images", images)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_lossless(frames: Any, fps: int, path: Path) -> None:
    """Frames [F, H, W, 3] uint8 as FFV1 in RGB: what is decoded is what was drawn, whatever the library."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


# ---------------------------------------------------------------------------------------------- training


def run(words: Sequence[str], steps: int) -> dict[str, Any]:
    """Train on the data of `write_data` in this folder: the words, the numbers of every step, digests of what the model was given."""
    import torch
    from rich.console import Console

    from olmo.distributed import World
    from olmo.train.callbacks.base import Callback
    from olmo.train.data import build_loader
    from olmo.train.run import build_trainer
    from olmo.train.sft import build_train_config, parse
    from olmo.train.start import Start

    class Recorder(Callback):
        """The numbers of every step as they are (`metrics.jsonl` rounds them)."""

        def __init__(self) -> None:
            self.records: list[dict[str, float]] = []

        def on_step(self, trainer, result, metrics) -> None:
            self.records.append(dict(result.metrics))

    cfg = build_train_config(*parse([str(CONFIG), *words, f"--max_duration={STEPS}", f"--stop_at={steps}"]))
    Path(cfg.save_folder).mkdir(exist_ok=True)
    world = World(0, 0, 1, torch.device("cpu"))
    cfg.validate(world.size)
    loader, recorder = Watched(build_loader(cfg, world)), Recorder()
    trainer = build_trainer(cfg, world, Console(quiet=True), loader, Start())
    trainer.callbacks.append(recorder)
    trainer.fit()
    columns = [k for k in recorder.records[0] if k.startswith("train/") or k.endswith("_grad_norm")]
    return {
        "words": [CONFIG.relative_to(REPO).as_posix(), *words, f"--max_duration={STEPS}"],
        "columns": columns,
        "steps": [[record[k] for k in columns] for record in recorder.records],
        "tokens": loader.tokens,
        "pixels": loader.pixels,
    }


class Watched:
    """A loader that takes a digest of every batch: it says whether other losses come from other data."""

    def __init__(self, loader: "TrainLoader") -> None:
        self.loader = loader
        self.tokens: list[str] = []
        """Of ids and labels, one for each step."""
        self.pixels: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator["Batch"]:
        for batch in self.loader:
            self.tokens.append(digest(batch.input_ids, batch.labels))
            self.pixels.append(digest(batch.images))
            yield batch


def digest(*tensors: Any) -> str:
    parts = b"".join(t.contiguous().numpy().tobytes() for t in tensors)
    return hashlib.sha256(parts).hexdigest()[:8]


def as_text(value: Any, depth: int = 0) -> str:
    """JSON with one line for each step, so that a difference can be read."""
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(v, dict | list) for v in inner):
        return json.dumps(value)
    keys = [f"{json.dumps(k)}: " for k in value] if isinstance(value, dict) else [""] * len(value)
    lines = ",\n".join(" " * (depth + 1) + key + as_text(v, depth + 1) for key, v in zip(keys, inner, strict=True))
    left, right = "{}" if isinstance(value, dict) else "[]"
    return f"{left}\n{lines}\n{' ' * depth}{right}"


if __name__ == "__main__":
    sys.exit(run_command(main))
