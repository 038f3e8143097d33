"""Every data set by its name: what it is, where it comes from, where it lies, and the reader that opens it.

One declarative row per data set; a reader is a function, not a class hierarchy. Names, aliases and sources are those of
the published data; rows whose reader does not exist in this version say so when their files are there, and what to
download when they are not.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from olmo.data.dataset import Dataset
from olmo.data.moving_shapes import MovingShapes, MovingShapesConfig
from olmo.data.paths import video_root
from olmo.exceptions import OLMoConfigurationError, OLMoDataError


@dataclass(frozen=True)
class DatasetRow:
    """One data set."""

    name: str
    title: str
    folder: str
    """Below the folder of video data sets (MOLMO_DATA_DIR/video_datasets)."""
    source: str
    """Where it is downloaded from."""
    style: str
    """Style of its messages (an example may mix several, joined by +)."""
    splits: tuple[str, ...] = ("train",)
    reader: Callable[["DatasetRow", str, MovingShapesConfig], Dataset] | None = None
    """Opens a split; None = this version cannot read its format yet."""


def _read_moving_shapes(row: DatasetRow, split: str, config: MovingShapesConfig) -> Dataset:
    return MovingShapes(config, split)


def _read_few_moving_shapes(row: DatasetRow, split: str, config: MovingShapesConfig) -> Dataset:
    return MovingShapes(replace(config, num_train=min(64, config.num_train), num_test=min(16, config.num_test)), split)


MC, OE = "video_multiple_choice", "video_short_answer"
S1, S2 = "video_eval_multiple_choice", "video_eval_multiple_choice_w_subtitle"

_GENERATED = (
    DatasetRow("moving_shapes", "Moving shapes", "", "generated on first use", OE, ("train", "test"), _read_moving_shapes),
    DatasetRow("moving_shapes_debug", "64 moving shapes", "", "generated on first use", OE, ("train", "test"), _read_few_moving_shapes),
)

_TRAIN = tuple(
    DatasetRow(*row)
    for row in (
        ("tgif", "TGIF-QA", "TGIF", "huggingface.co/datasets/allenai/Molmo2-TGIF", f"{MC}+{OE}", ("train", "test")),
        (
            "tvqa_with_sub",
            "TVQA with subtitles",
            "TVQA",
            "huggingface.co/datasets/allenai/Molmo2-TVQA",
            f"{MC}_w_subtitle",
            ("train", "val", "test"),
        ),
        ("paxion", "Paxion", "Paxion", "huggingface.co/datasets/allenai/Molmo2-Paxion", MC, ("train", "val", "test")),
        (
            "llava_video_mc_academic",
            "LLaVA-Video-178K, multiple choice",
            "LLaVA-Video-178K",
            "huggingface.co/datasets/lmms-lab/LLaVA-Video-178K",
            MC,
        ),
        ("llava_video_oe_academic", "LLaVA-Video-178K, open", "LLaVA-Video-178K", "huggingface.co/datasets/lmms-lab/LLaVA-Video-178K", OE),
        (
            "perception_test",
            "PerceptionTest",
            "perception_test",
            "github.com/google-deepmind/perception_test",
            f"{MC} (train), {S1} (eval)",
            ("train", "validation", "test"),
        ),
        ("nextqa_mc", "NExT-QA", "NeXTQA", "github.com/doc-doc/NExT-QA", f"{MC} (train), {S1} (eval)", ("train", "val", "test")),
        (
            "news_video_qa_filtered",
            "NewsVideoQA",
            "NewsVideoQA",
            "huggingface.co/datasets/allenai/Molmo2-NewsVideoQA",
            OE,
            ("train", "val"),
        ),
        ("how2qa", "How2QA", "how2QA", "github.com/ych133/How2R-and-How2QA", MC, ("train", "val")),
        ("sutd_trafficqa", "SUTD-TrafficQA", "SUTD-TrafficQA", "sutdcv.github.io/SUTD-TrafficQA (manual download)", MC, ("train", "test")),
        ("social_iq2", "Social-IQ 2.0", "Social-IQ", "huggingface.co/datasets/PediaMedAI/Social-IQ-Video", MC, ("train", "val", "test")),
        ("sportsqa_oe", "Sports-QA", "SportsQA", "the Sports-QA release on figshare", OE, ("train", "val", "test")),
        (
            "cinepile_with_sub",
            "CinePile with subtitles",
            "cinepile",
            "huggingface.co/datasets/allenai/Molmo2-cinepile",
            f"{MC}_w_subtitle",
            ("train", "test"),
        ),
        ("clevrer", "CLEVRER", "clevrer", "clevrer.csail.mit.edu", f"{OE}+{MC}", ("train", "validation", "test")),
        ("funqa", "FunQA", "FunQA", "huggingface.co/datasets/fesvhtr/FunQA", f"{OE}+{MC}", ("train", "val", "test")),
        ("star", "STAR", "STAR", "bobbywu.com/STAR and the Charades videos", f"{OE}+{MC}", ("train", "validation", "test")),
        ("intent_qa", "IntentQA", "IntentQA", "github.com/JoseponLee/IntentQA", f"{OE}+{MC}", ("train", "val", "test")),
        (
            "video_localized_narratives",
            "Video Localized Narratives QA",
            "oops",
            "google.github.io/video-localized-narratives",
            OE,
            ("train", "val"),
        ),
        ("road_text_vqa", "RoadTextVQA", "RoadTextVQA", "cvit.iiit.ac.in (RoadTextVQA)", OE, ("train", "val", "test")),
        ("countix_oe", "Countix", "Countix", "huggingface.co/datasets/allenai/Molmo2-Countix and the Kinetics-700 videos", OE),
        ("camerabench_qa", "CameraBench", "CameraBench", "huggingface.co/datasets/allenai/Molmo2-CameraBenchTrain", MC),
        ("motionbench_train", "MotionBench captions", "MotionBench", "huggingface.co/datasets/zai-org/MotionBench", "video_motion_caption"),
        (
            "moments_in_time_qa",
            "Moments in Time",
            "MomentsInTime",
            "moments.csail.mit.edu",
            "moments_in_time_label",
            ("train", "validation"),
        ),
        ("kinetics_qa", "Kinetics-710", "kinetics710", "github.com/cvdfoundation/kinetics-dataset", "kinetics_label", ("train", "val")),
        ("charades_sta_all_qa", "Charades-STA", "CharadesSTA", "github.com/jiyanggao/TALL and the Charades videos", "charades_sta"),
        ("coin_all_qa", "COIN", "COIN", "coin-dataset.github.io", "coin_label", ("train", "test")),
        (
            "youcook2_all_qa",
            "YouCook2",
            "youcook2",
            "youcook2.eecs.umich.edu",
            "youcook2_label+video_clip_short_caption_start_end",
            ("train", "validation", "test"),
        ),
        ("activitynet_all_qa", "ActivityNet", "ActivityNet", "activity-net.org", f"activitynet_label+{OE}", ("train", "validation")),
        (
            "ego4d_all",
            "Ego4D clips",
            "ego4d",
            "ego4d-data.org (licence needed)",
            "ego4d_mq_label_clip+ego4d_mq_label_start_end+ego4d_mq_temporal_grounding+ego4d_nlq_temporal_grounding",
            ("train", "val", "test"),
        ),
        (
            "epic_kitchens_qa",
            "EPIC-KITCHENS-100",
            "epic_kitchens",
            "epic-kitchens.github.io",
            "epic_kitchens_label",
            ("train", "validation"),
        ),
        (
            "video_localized_narratives_caption",
            "Video Localized Narratives captions",
            "VideoLocalizedNarratives",
            "huggingface.co/datasets/allenai/Molmo2-VideoLocalizedNarrativesCaptionHf",
            "video_object_caption",
        ),
        ("qv_highlights", "QVHighlights", "QVHighlights", "github.com/jayleicn/moment_detr", OE, ("train", "validation")),
        ("molmo2_syn_captions_qa", "Molmo2 synthetic caption QA", "youtube-cc", "huggingface.co/datasets/allenai/Molmo2-VideoCapQA", MC),
        (
            "molmo2_syn_captions_subtitle_qa",
            "Molmo2 synthetic subtitle QA",
            "youtube-cc",
            "huggingface.co/datasets/allenai/Molmo2-VideoSubtitleQA",
            MC,
        ),
    )
)

_EVAL = tuple(
    DatasetRow(*row)
    for row in (
        ("mvbench", "MVBench", "MVBench", "huggingface.co/datasets/OpenGVLab/MVBench", S1, ("validation",)),
        ("tomato", "TOMATO", "TOMATO", "github.com/yale-nlp/TOMATO", MC, ("test",)),
        ("motionbench", "MotionBench", "MotionBench", "huggingface.co/datasets/zai-org/MotionBench", S1, ("validation", "test")),
        ("temp_compass", "TempCompass", "TempCompass", "huggingface.co/datasets/lmms-lab/TempCompass", f"{S1}+{OE}", ("validation",)),
        ("video_mme", "VideoMME", "Video-MME", "huggingface.co/datasets/lmms-lab/Video-MME", S1, ("validation",)),
        (
            "video_mme_w_subtitle",
            "VideoMME with subtitles",
            "Video-MME",
            "huggingface.co/datasets/lmms-lab/Video-MME and allenai/Molmo2-VideoMME",
            S2,
            ("validation",),
        ),
        (
            "long_video_bench_no_subtitle",
            "LongVideoBench",
            "LongVideoBench",
            "huggingface.co/datasets/longvideobench/LongVideoBench (gated)",
            S1,
            ("validation", "test"),
        ),
        (
            "long_video_bench_w_subtitle",
            "LongVideoBench with subtitles",
            "LongVideoBench",
            "huggingface.co/datasets/longvideobench/LongVideoBench (gated)",
            S2,
            ("validation", "test"),
        ),
        ("mlvu_mc", "MLVU", "MVLU", "huggingface.co/datasets/MLVU/MVLU (gated)", S1, ("validation", "test")),
        ("lvbench", "LVBench", "LVBench", "huggingface.co/datasets/zai-org/LVBench (videos by hand)", S1, ("test",)),
        ("video_eval_pro_mc", "VideoEvalPro", "VideoEvalPro", "huggingface.co/datasets/TIGER-Lab/VideoEval-Pro", S1, ("test",)),
    )
)

ROWS: dict[str, DatasetRow] = {row.name: row for row in (*_GENERATED, *_TRAIN, *_EVAL)}

ALIASES: dict[str, str] = {
    "vixmo_syn_video_capqa_v2": "molmo2_syn_captions_qa",
    "vixmo_syn_video_capqa_with_sub_v2": "molmo2_syn_captions_subtitle_qa",
    "motionbench_caption": "motionbench_train",
    "temp_compass_internal": "temp_compass",
    "long_video_bench": "long_video_bench_no_subtitle",
    "mlvu": "mlvu_mc",
    "video_eval_pro": "video_eval_pro_mc",
    "nextqa": "nextqa_mc",
    "motionbench_test": "motionbench:test",
    "mlvu_mc_test": "mlvu_mc:test",
    "perception_test_test": "perception_test:test",
    "long_video_bench_w_subtitle_test": "long_video_bench_w_subtitle:test",
}
"""Other names of data sets; a target may name the split that the alias stands for."""

_LATER_PREFIXES = {
    "image": (
        "coco_2014_vqa text_vqa info_qa doc_qa ai2_diagram plot_qa figure_qa dv_qa okvqa a_okvqa mmmu math_vista chart_qa science_qa_img "
        "real_world_qa st_qa tabwmp tally_qa screen_spot os_worldg muir_bench blink mmiu mantis_instruct cosyn_ pixmo_ "
        "pointing_eval point_bench countbench_qa correction_qa"
    ),
    "video pointing": "vixmo_points molmo2_video_point molmo2_video_count academic_video_points academic_points molmo2_syn_point",
    "tracking": (
        "mevis ref_yt_vos lv_vis vicas revos molmo2_video_track molmo2_video_single_point_track molmo_point_track "
        "burst ref_davis17 yt_vis moca reasonvos webuav got10k vasttrack trackingnet lvosv1 lvosv2 lasot uwcot webuot latot tnl2k tnllt"
    ),
    "text": "tulu4 molmo2_hardcodes",
    "further video": (
        "molmo2_human_qa vixmo_human_qa molmo2_cap vixmo3_top_level_captions vixmo_caps_eval ego_schema mlvu_gen temporal_bench dream1k "
        "vsi_bench mme_videoocr ego4d_ star_mc countix_mc nextqa_mc_ tvqa cinepile news_video_qa charades_sta coin youcook2_ "
        "activitynet_ epic_kitchens moments_in_time kinetics perception_test_ video_mme_"
    ),
}
"""Published names that this version has no rows for, by kind; matched by prefix."""


def is_known(name: str) -> bool:
    """Whether the name means a data set at all (its reader may be missing)."""
    name = name.partition(":")[0]
    return name in ROWS or name in ALIASES or _later_kind(name) is not None


def _later_kind(name: str) -> str | None:
    for kind, prefixes in _LATER_PREFIXES.items():
        if any(name.startswith(p) for p in prefixes.split()):
            return kind
    return None


def check_name(name: str) -> tuple[DatasetRow, str | None]:
    """The row of a `name[:split]` or alias, and the split that it stands for; explains what is wrong with other names."""
    base, _, split = name.partition(":")
    target, _, alias_split = ALIASES.get(base, base).partition(":")
    if target in ROWS:
        return ROWS[target], split or alias_split or None
    if kind := _later_kind(name):
        raise OLMoDataError(f"'{name}' is a {kind} data set: not available yet")
    near = difflib.get_close_matches(name, [*ROWS, *ALIASES], n=1, cutoff=0.5)
    raise OLMoConfigurationError(f"unknown data set '{name}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(ROWS)}"))


def get_dataset(name: str, split: str | None = None, *, moving_shapes: MovingShapesConfig | None = None) -> Dataset:
    """Open a split of a data set; without a split the one that its alias names, or else its first."""
    row, alias_split = check_name(name)
    split = alias_split or split or row.splits[0]
    if split not in row.splits:
        raise OLMoDataError(f"{name} has no split '{split}'; it has {', '.join(row.splits)}")
    if row.reader is not None:
        return row.reader(row, split, moving_shapes or MovingShapesConfig())
    folder = video_root() / row.folder
    if not folder.is_dir():
        raise OLMoDataError(f"{name}: not found in {folder}; download from {row.source} (MOLMO_DATA_DIR says where data lies)")
    raise OLMoDataError(f"{name}: its folder {folder} is there, but this version has no reader for it yet")
