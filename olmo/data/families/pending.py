"""Data sets whose readers are still to come: what they are and where they come from, so that errors can say it."""

from dataclasses import dataclass

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
        ("sportsqa_oe", "Sports-QA", "SportsQA", "the Sports-QA release on figshare", OE, ("train", "val", "test")),
        ("clevrer", "CLEVRER", "clevrer", "clevrer.csail.mit.edu", f"{OE}+{MC}", ("train", "validation", "test")),
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
