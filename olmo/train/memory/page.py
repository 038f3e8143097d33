"""The table of `docs/memory.md`: how many frames the released models can be trained on, by GPU."""

from pathlib import Path

from olmo.config import read_yaml
from olmo.config_files import find_config
from olmo.exceptions import OLMoConfigurationError
from olmo.train.build import meta_model
from olmo.train.config import TrainConfig
from olmo.train.memory.command import DEVICES
from olmo.train.memory.estimate import estimate, shape_of

BEGIN, END = "<!-- memory table: begin -->", "<!-- memory table: end -->"
FRAMES = (*range(8, 128, 8), *range(128, 385, 16))
"""Numbers of frames that are tried; 384 are those of long-context training."""
MODELS = {"4B": "molmo2_4b", "8B": "molmo2_8b"}
TRAINED = {
    "all": (),
    "adapters on the decoder, connector": ("lora={targets: [llm], train_whole: [connector]}",),
}
SETTINGS = ("compile=null", "device_train_microbatch_size=1", "model.llm.max_sequence_length=36864")
GPUS = (1, 8, 64)


def table() -> str:
    """Markdown: one row per model, what is trained, number of GPUs and pruning."""
    head = ["model", "trained", "GPUs", "cells removed", "needed for 64 frames", *(f"{gb} GB" for gb in DEVICES)]
    rows = [head, ["---"] * len(head)]
    for name, config in MODELS.items():
        for trained, words in TRAINED.items():
            for gpus in GPUS:
                for topk in (0.0, 0.5):
                    rows.append([name, trained, str(gpus), f"{topk:.0%}", *cells(training(config, topk, words), gpus)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def training(config: str, topk: float, words: tuple[str, ...]) -> TrainConfig:
    """The named config with one row on a device at a time, with or without pruning."""
    from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig

    cfg = TrainConfig.from_dict(read_yaml(find_config(config)))
    if topk:
        cfg.model = TemporalVideoOlmoConfig.from_molmo2(cfg.model).with_overrides([f"vision_backbone.vit.topk={topk}"])
    return cfg.with_overrides([*SETTINGS, *words])


def cells(cfg: TrainConfig, gpus: int) -> list[str]:
    """Gigabytes for 64 frames, then the most frames on each of DEVICES."""
    model = meta_model(cfg)
    needed = {frames: estimate(cfg, gpus, shape_of(cfg, frames), model=model).needed for frames in FRAMES}
    most = [max((n for n in FRAMES if needed[n] <= gb * 1e9), default=None) for gb in DEVICES]
    return [f"{needed[64] / 1e9:.0f} GB", *("–" if n is None else f"{n}{'+' if n == FRAMES[-1] else ''}" for n in most)]


def write_page(page: Path) -> None:
    """Put the table between its marks."""
    text = page.read_text() if page.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise OLMoConfigurationError(f"{page} has no place for the table: a line {BEGIN} and a line {END}")
    page.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")
