"""How long training stands still for a checkpoint, saved at once and in the background.

    python scripts/measure_saving.py [--parameters=1e8] [--saves=5] [--folder=/tmp]

A model of about that many parameters with Adam's two moments is saved several times. `pause` is the time until training may go
on, `written` the time until the checkpoint is whole, both the median without the first save, which also allocates the copy.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence

from olmo.launch import CommandParser, run_command


def build_parser() -> CommandParser:
    parser = CommandParser("measure_saving.py", __doc__)
    parser.add_argument("--parameters", type=float, default=1e8, help="about this many (1e8); 0 = the tiny model")
    parser.add_argument("--saves", type=int, default=5, help="how often (5)")
    parser.add_argument("--folder", help="where to write the checkpoints (a temporary folder)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(argv)
    model, optimizer, config = build(int(args.parameters))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {next(model.parameters()).device}")
    for background in (False, True):
        pauses, written, size = measure(model, optimizer, config, background, args.saves, args.folder)
        pause, whole = (statistics.median(values[1:] or values) for values in (pauses, written))
        print(
            f"{'in the background' if background else 'at once':<18} {size / 1e6:>9.1f} MB   first pause {1e3 * pauses[0]:>8.1f} ms"
            f"   pause {1e3 * pause:>8.1f} ms   written {whole:>6.2f} s",
            flush=True,
        )
    return 0


def build(parameters: int):
    """A model with random weights, and an optimiser that has made one step."""
    import torch

    from olmo.benchmark.sized import sized_config
    from olmo.config import read_yaml
    from olmo.config_files import find_config
    from olmo.models.model import build_model_config
    from olmo.train.optim import OptimizerConfig, build_optimizer

    config = sized_config(parameters) if parameters else build_model_config(read_yaml(find_config("tiny"))["model"])
    model = config.build_model("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = build_optimizer(OptimizerConfig(), model)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer, config


def measure(model, optimizer, config, background: bool, saves: int, folder: str | None) -> tuple[list[float], list[float], int]:
    """(seconds of each pause, seconds until each checkpoint was whole, bytes)."""
    import torch

    from olmo.checkpoints.stores import Store
    from olmo.distributed import World
    from olmo.train.config import TrainConfig
    from olmo.train.saving.snapshot import Snapshots
    from olmo.train.saving.writer import Writer
    from olmo.train.saving.writing import delete, write_checkpoint

    device = next(model.parameters()).device
    world, snapshots, writer = World(0, 0, 1, device), Snapshots(), Writer(background)
    pauses, written = [], []
    with tempfile.TemporaryDirectory(dir=folder, prefix="measure_saving_") as root:
        store, cfg = Store(root), TrainConfig(model=config, save_folder=root)
        for step in range(1, saves + 1):
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            snap = snapshots.take(cfg, step, model, optimizer, {"step": step}, copy=background)
            writer.start(lambda snap=snap: write_checkpoint(store, snap, world))
            pauses.append(time.perf_counter() - began)
            outcome = writer.finish()
            if outcome.error is not None:
                raise outcome.error
            written.append(time.perf_counter() - began)
            delete(store, f"step{step}")
    return pauses, written, snap.bytes


if __name__ == "__main__":
    raise SystemExit(run_command(main))
