"""Data sets whose readers are still to come: what they are and where they come from, so that errors can say it."""

from dataclasses import dataclass

from olmo.data.records import EVAL_MC as S1
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

ROWS = _TRAIN
