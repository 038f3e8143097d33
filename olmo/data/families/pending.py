"""Data sets whose readers are still to come: what they are and where they come from, so that errors can say it."""

from dataclasses import dataclass

from olmo.data.records import EVAL_MC as S1
from olmo.data.records import EVAL_MC_SUBTITLE as S2
from olmo.data.records import MC, OE


@dataclass(frozen=True)
class PendingRow:
    """One data set without a reader."""

    name: str
    title: str
    folder: str
    source: str
    style: str
    splits: tuple[str, ...] = ("train",)


_TRAIN = tuple(
    PendingRow(*row)
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
        (
            "cinepile_with_sub",
            "CinePile with subtitles",
            "cinepile",
            "huggingface.co/datasets/allenai/Molmo2-cinepile",
            f"{MC}_w_subtitle",
            ("train", "test"),
        ),
        ("funqa", "FunQA", "FunQA", "huggingface.co/datasets/fesvhtr/FunQA", f"{OE}+{MC}", ("train", "val", "test")),
        (
            "moments_in_time_qa",
            "Moments in Time",
            "MomentsInTime",
            "moments.csail.mit.edu",
            "moments_in_time_label",
            ("train", "validation"),
        ),
        ("kinetics_qa", "Kinetics-710", "kinetics710", "github.com/cvdfoundation/kinetics-dataset", "kinetics_label", ("train", "val")),
        (
            "epic_kitchens_qa",
            "EPIC-KITCHENS-100",
            "epic_kitchens",
            "epic-kitchens.github.io",
            "epic_kitchens_label",
            ("train", "validation"),
        ),
    )
)

_EVAL = tuple(
    PendingRow(*row)
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

ROWS = (*_TRAIN, *_EVAL)
