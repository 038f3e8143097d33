"""The published mixtures as tables: groups with their rates, and the members of each.

A member is `name[=size][*rate][@weight]`: an assumed size (or a factor on the real one below 1), a factor on the share that follows
from it, and the loss weight of its answers. The published settings that a member's reader would need besides (no root scaling of
that weight, crops of pointing images) are not told here.
"""

import re
from collections.abc import Iterable

Group = tuple[str, float, str]
"""Name, rate, members."""

MEMBER = re.compile(r"(?P<name>[^=*@]+)(=(?P<size>[\d.]+))?(\*(?P<rate>[\d.]+))?(@(?P<weight>[\d.]+))?")

VIDEO_ACADEMIC = """
    tgif=60000 tvqa_with_sub=60000 paxion=60000 llava_video_mc_academic llava_video_oe_academic perception_test nextqa_mc
    news_video_qa_filtered how2qa sutd_trafficqa social_iq2 sportsqa_oe cinepile_with_sub clevrer funqa star intent_qa
    video_localized_narratives road_text_vqa countix_oe camerabench_qa motionbench_train moments_in_time_qa=60000
    kinetics_qa=60000 charades_sta_all_qa coin_all_qa youcook2_all_qa activitynet_all_qa ego4d_all epic_kitchens_qa
    video_localized_narratives_caption qv_highlights vixmo_syn_video_capqa_v2 vixmo_syn_video_capqa_with_sub_v2
"""

IMAGE_ACADEMIC = """
    coco_2014_vqa_multi text_vqa okvqa chart_qa_weighted doc_qa info_qa ai2_diagram_v2_mix_transparent a_okvqa_mc a_okvqa_da
    science_qa_img tabwmp_da st_qa tally_qa mantis_instruct_llava_665k_multi_multi_only mantis_instruct_nlvr2_multi_only
    mantis_instruct_spot-the-diff_multi_only dv_qa=10000 figure_qa=10000 plot_qa=20000 cosyn_chart_exp cosyn_chemical_exp
    cosyn_diagram_exp cosyn_math_exp cosyn_music_exp cosyn_table_exp cosyn_document cosyn_multidoc_chart_exp
    cosyn_multidoc_chemical_exp cosyn_multidoc_diagram_exp cosyn_multidoc_doc_exp cosyn_multidoc_music_exp cosyn_multidoc_table_exp
"""

_DEMO = "pixmo_ask_model_anything pixmo_cap=100000 pixmo_cap_qa_as_user_qa vixmo3_top_level_captions_min_3*1.5@0.1"
_DEMO_MOLMO2 = f"{_DEMO} pixmo_multi_image_qa_multi_only_max5 molmo2_human_qa"
_DEMO_POINT = f"{_DEMO} correction_qa_multi_only_max5 vixmo_human_qa"

_VIDEO_POINTING_MOLMO2 = """
    vixmo_points_minmax_0_5=1*0.4@0.2 vixmo_points_minmax_6_25=1*0.3@0.2 vixmo_points_minmax_26_60=1*0.1@0.2
    academic_points_clip_63s_2fps=1*0.2@0.2
"""
_ACADEMIC_POINTS = "academic_points_clip_63s_2fps=1*0.2@0.2"

_POINTS = "pixmo_points_train pixmo_count_train pixmo_points_high_freq_train cosyn_point"
_IMAGE_POINTING = " ".join(f"{name}@0.2" for name in ("pixmo_multi_points=200000", *_POINTS.split()))

_TRACKED = {
    "track": "mevis_track ref_yt_vos_track lv_vis_track vicas_track=30000 revos_track molmo2_video_track",
    "track, rare": "burst_track ref_davis17_track yt_vis_track moca_track",
    "ground": "mevis_ground lv_vis_ground vicas_ground=30000 revos_ground molmo2_video_track_ground",
    "ground, rare": "burst_ground moca_ground",
    "single point": """
        mevis_single_point_track lv_vis_single_point_track vicas_single_point_track=30000 revos_single_point_track
        molmo2_video_single_point_track
    """,
    "single object": "webuav got10k vasttrack trackingnet",
    "single object, rare": "burst_single_point_track lvosv1 lvosv2 lasot uwcot webuot latot tnl2k tnllt",
}
_TRACKED_POINT = _TRACKED | {"track": f"{_TRACKED['track']} molmo_point_track_any molmo_point_track_syn=10000"}
_WEIGHTS_MOLMO2 = (0.4, 0.05, 0.2, 0.01, 0.15, 0.2, 0.1)
_WEIGHTS_POINT = (0.45, 0.07, 0.2, 0.01, 0.15, 0.2, 0.1)


def _weighted(members: str, rate: float | None = None) -> str:
    """Members with the loss weight of tracking, and a rate that each of them gets."""
    return " ".join(f"{m}@0.2" if rate is None else f"{m}*{rate:.6f}@0.2" for m in members.split())


def _tracking(groups: dict[str, str], weights: Iterable[float]) -> str:
    """One group: every member has the rate of its kind of tracking, however many there are of that kind."""
    weights = list(weights)
    return " ".join(_weighted(members, weight / sum(weights)) for members, weight in zip(groups.values(), weights, strict=True))


def _molmo_point(oversampled: str) -> list[Group]:
    return [
        ("demo", 0.15, _DEMO_POINT),
        ("video_academic", 0.20, VIDEO_ACADEMIC),
        ("image_academic", 0.25, IMAGE_ACADEMIC),
        ("tracking", 0.12, _tracking(_TRACKED_POINT, _WEIGHTS_POINT)),
        ("video_pointing", 0.11, f"{oversampled}=1*0.8@0.2 {_ACADEMIC_POINTS}"),
        ("image_pointing", 0.07, _IMAGE_POINTING),
        *_TEXT,
    ]


_TEXT: list[Group] = [("nlp", 0.0995, "tulu4"), ("hardcodes", 0.0005, "molmo2_hardcodes")]


def pretraining(pointing: float, nlp: float) -> list[Group]:
    """Captions, and these shares of pointing and text; groups without a share are left out."""
    captions = round(1 - pointing - nlp, 6)
    groups = [("captions", captions, "pixmo_cap_with_transcripts"), ("pointing", pointing, _POINTS), ("nlp", nlp, "tulu4_max_2304")]
    return [group for group in groups if group[1] > 0]


PUBLISHED: dict[str, list[Group]] = {
    "all-v5-video-academic-only": [("video_academic", 1.0, VIDEO_ACADEMIC)],
    "pretrain": pretraining(0.3, 0.1),
    "molmo2": [
        ("demo", 0.15, _DEMO_MOLMO2),
        ("video_academic", 0.20, VIDEO_ACADEMIC),
        ("image_academic", 0.25, IMAGE_ACADEMIC),
        ("tracking", 0.15, _tracking(_TRACKED, _WEIGHTS_MOLMO2)),
        ("video_pointing", 0.15, _VIDEO_POINTING_MOLMO2),
        ("image_pointing", 0.10, _IMAGE_POINTING),
        *_TEXT,
    ],
    "molmo_point": _molmo_point("vixmo_points_oversample"),
    "molmo_point_long_context": _molmo_point("vixmo_points_oversample_no_clip"),
    "tracking": [(kind, w, _weighted(members)) for (kind, members), w in zip(_TRACKED.items(), _WEIGHTS_MOLMO2, strict=True)],
    "debug": [
        ("demo", 0.10, _DEMO_MOLMO2),
        ("video_academic", 0.20, "llava_video_mc_academic"),
        ("image_academic", 0.25, "chart_qa_weighted"),
        ("tracking", 0.10, "mevis_track@0.2"),
        ("nlp", 0.099, "tulu4"),
        ("hardcodes", 0.001, "molmo2_hardcodes"),
    ],
}
"""Mixture -> its groups. `pretrain` has no published name: it is what the pre-training command builds."""
