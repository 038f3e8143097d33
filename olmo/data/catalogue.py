"""Every data set by its name: what it is, where it comes from, where it lies, and how it is opened.

The rows stand in the families (`olmo/data/families/`), each beside its reader. Names, aliases and sources are those of the
published data.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from olmo.data.dataset import Dataset
from olmo.data.families import (
    actions,
    benchmarks,
    clips_qa,
    general_qa,
    grounding,
    long_benchmarks,
    molmo2_benchmarks,
    molmo2_sets,
    motion_qa,
    reasoning_qa,
    segments,
    subtitle_benchmarks,
    television_qa,
    temp_compass,
)
from olmo.data.index import open_indexed
from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig
from olmo.data.moving_shapes_more import (
    CAPTION_STYLE,
    IMAGE_STYLE,
    TEXT_STYLE,
    MovingShapesCaptions,
    moving_shapes_image,
    moving_shapes_multi_image,
    moving_shapes_text,
)
from olmo.data.paths import is_data_file
from olmo.data.records import OE, DatasetRow
from olmo.data.without_readers import kind_and_source
from olmo.exceptions import OLMoConfigurationError, OLMoDataError

FAMILIES = (
    clips_qa,
    television_qa,
    general_qa,
    reasoning_qa,
    motion_qa,
    actions,
    segments,
    grounding,
    molmo2_sets,
    benchmarks,
    temp_compass,
    molmo2_benchmarks,
    subtitle_benchmarks,
    long_benchmarks,
)


@dataclass(frozen=True)
class GeneratedRow:
    """A data set that is made on first use."""

    name: str
    title: str
    open: Callable[[str, MovingShapesConfig], Dataset]
    splits: tuple[str, ...] = ("train", "test")
    style: str = OE
    source: str = "generated on first use"
    videos: bool = True
    """Whether it writes videos."""


def _few_moving_shapes(split: str, config: MovingShapesConfig) -> Dataset:
    return MovingShapes(replace(config, num_train=min(64, config.num_train), num_test=min(16, config.num_test)), split)


def _drawn(make: Callable[[MovingShapesConfig, str], Dataset]) -> Callable[[str, MovingShapesConfig], Dataset]:
    return lambda split, config: make(config, split)


_GENERATED = (
    GeneratedRow("moving_shapes", "Moving shapes", lambda split, config: MovingShapes(config, split)),
    GeneratedRow("moving_shapes_debug", "64 moving shapes", _few_moving_shapes),
    GeneratedRow(
        "moving_shapes_captions", "Moving shapes, described", lambda split, config: MovingShapesCaptions(config, split), style=CAPTION_STYLE
    ),
    GeneratedRow("moving_shapes_image", "Shapes in a picture", _drawn(moving_shapes_image), style=IMAGE_STYLE, videos=False),
    GeneratedRow("moving_shapes_multi_image", "Shapes in pictures", _drawn(moving_shapes_multi_image), style=IMAGE_STYLE, videos=False),
    GeneratedRow("moving_shapes_text", "Shapes in words", _drawn(moving_shapes_text), style=TEXT_STYLE, videos=False),
)

Row = DatasetRow | GeneratedRow

ROWS: dict[str, Row] = {row.name: row for row in (*_GENERATED, *(row for family in FAMILIES for row in family.ROWS))}

ALIASES: dict[str, str] = {
    "vixmo_syn_video_capqa_v2": "molmo2_syn_captions_qa",
    "vixmo_syn_video_capqa_with_sub_v2": "molmo2_syn_captions_subtitle_qa",
    "vixmo_human_qa": "molmo2_human_qa",
    "vixmo3_top_level_captions": "molmo2_captions",
    "vixmo3_top_level_captions_min_3": "molmo2_captions",
    "molmo2_cap": "molmo2_captions",
    "motionbench_caption": "motionbench_train",
    "temp_compass_all": "temp_compass",
    "temp_compass_multi_choice": "temp_compass_multi-choice",
    "long_video_bench": "long_video_bench_no_subtitle",
    "mlvu": "mlvu_mc",
    "video_eval_pro": "video_eval_pro_mc",
    "nextqa": "nextqa_mc",
    "vixmo_caps_eval2": "molmo2_captions_eval:test",
    "vixmo_points_count": "molmo2_video_count_eval:val",
    "vixmo_points_count_clip_63s": "molmo2_video_count_eval:val",
    "vixmo_points_point_eval": "molmo2_video_point_eval:val",
    "ego_schema_test": "ego_schema:test",
    "motionbench_test": "motionbench:test",
    "mlvu_mc_test": "mlvu_mc:test",
    "perception_test_test": "perception_test:test",
    "long_video_bench_w_subtitle_test": "long_video_bench_w_subtitle:test",
}
"""Other names of data sets; a target may name the split that the alias stands for."""


def is_known(name: str) -> bool:
    """Whether the name means a data set at all (it may be one that is not available yet)."""
    name = name.partition(":")[0]
    return is_data_file(name) or name in ROWS or name in ALIASES or kind_and_source(name) is not None


def has_reader(name: str) -> bool:
    """Whether a known data set can be read, once its files are there."""
    name = name.partition(":")[0]
    return is_data_file(name) or name in ROWS or name in ALIASES


def writes_videos(name: str) -> bool:
    """Whether opening the data set generates videos, where they are not there yet."""
    row = ROWS.get(name.partition(":")[0])
    return isinstance(row, GeneratedRow) and row.videos


def check_name(name: str) -> tuple[Row, str | None]:
    """The row of a `name[:split]` or alias, and the split that it stands for; explains what is wrong with other names."""
    base, _, split = name.partition(":")
    if is_data_file(base):
        raise OLMoConfigurationError(f"'{name}': a data file has no splits; name another file instead")
    target, _, alias_split = ALIASES.get(base, base).partition(":")
    if target in ROWS:
        return ROWS[target], split or alias_split or None
    if found := kind_and_source(name):
        kind, source = found
        raise OLMoDataError(f"'{name}' is a {kind} data set: not available yet" + (f" (published at {source})" if source else ""))
    near = difflib.get_close_matches(name, [*ROWS, *ALIASES], n=1, cutoff=0.5)
    raise OLMoConfigurationError(f"unknown data set '{name}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(ROWS)}"))


def get_dataset(name: str, split: str | None = None, *, moving_shapes: MovingShapesConfig | None = None) -> Dataset:
    """Open a split of a data set; without a split the one that its alias names, or else its first.

    The path of a .jsonl file names that file, whose lines are all in every split.
    """
    if is_data_file(name):
        from olmo.data.own_data import open_own  # it checks lines with the tokenizer, which needs torch

        return open_own(name)
    row, alias_split = check_name(name)
    split = alias_split or split or row.splits[0]
    if split not in row.splits:
        raise OLMoDataError(f"{name} has no split '{split}'; it has {', '.join(row.splits)}")
    if isinstance(row, GeneratedRow):
        return row.open(split, moving_shapes or MovingShapesConfig())
    return open_indexed(row, split, name.partition(":")[0])
