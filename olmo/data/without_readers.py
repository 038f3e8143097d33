"""Published data sets that have no reader here: what kind they are, and where they are published.

Names are matched by prefix, the first row that fits; a family's names differ by task, subset and split.
"""

_HUB = "huggingface.co/datasets/"

_ROWS = (
    ("image", "coco_2014_vqa", f"{_HUB}allenai/molmo2-vqa2-2014"),
    ("image", "text_vqa", f"{_HUB}allenai/molmo2-text-vqa"),
    ("image", "tally_qa", f"{_HUB}allenai/molmo2-tally-qa"),
    ("image", "okvqa", f"{_HUB}allenai/molmo2-okvqa"),
    ("image", "a_okvqa", f"{_HUB}allenai/molmo2-a-ok-vqa"),
    ("image", "info_qa doc_qa st_qa", "rrc.cvc.uab.es (by hand)"),
    ("image", "chart_qa", f"{_HUB}HuggingFaceM4/ChartQA"),
    ("image", "science_qa_img", f"{_HUB}derek-thomas/ScienceQA"),
    ("image", "cosyn_multidoc", f"{_HUB}allenai/SynMultiImageQA"),
    ("image", "cosyn_", f"{_HUB}allenai/CoSyn-400K"),
    ("image", "pixmo_multi_image_qa correction_qa", f"{_HUB}allenai/Molmo2-MultiImageQA"),
    ("image", "pixmo_cap_qa", f"{_HUB}allenai/pixmo-cap-qa"),
    ("image", "pixmo_cap", f"{_HUB}allenai/pixmo-cap"),
    ("image", "pixmo_ask_model_anything", f"{_HUB}allenai/pixmo-ask-model-anything"),
    ("image", "pixmo_count", f"{_HUB}allenai/pixmo-count"),
    ("image", "pixmo_points", f"{_HUB}allenai/pixmo-points"),
    ("image", "pixmo_", "huggingface.co/allenai, data sets pixmo-*"),
    ("image", "mantis_instruct", "huggingface.co/allenai, data sets molmo2-mantis-instruct-*"),
    (
        "image",
        "ai2_diagram plot_qa figure_qa dv_qa mmmu math_vista real_world_qa tabwmp screen_spot os_worldg muir_bench blink mmiu "
        "pointing_eval point_bench countbench_qa",
        "",
    ),
    ("video pointing", "academic_video_points academic_points", f"{_HUB}allenai/molmo2-academic-video-points"),
    ("video pointing", "vixmo_points molmo2_video_point molmo2_video_count", f"{_HUB}allenai/Molmo2-VideoPoint"),
    ("video pointing", "molmo2_syn_point", ""),
    (
        "tracking",
        "webuav got10k vasttrack trackingnet lvosv1 lvosv2 lasot uwcot webuot latot tnl2k tnllt",
        f"{_HUB}allenai/molmo2-single-object-track",
    ),
    ("tracking", "mevis", f"{_HUB}allenai/molmo2-mevis"),
    ("tracking", "ref_yt_vos", f"{_HUB}allenai/molmo2-ref-yt-vos"),
    ("tracking", "lv_vis", f"{_HUB}allenai/molmo2-lv-vis"),
    ("tracking", "vicas", f"{_HUB}allenai/molmo2-vicas"),
    ("tracking", "revos", f"{_HUB}allenai/molmo2-revos"),
    ("tracking", "burst", f"{_HUB}allenai/molmo2-burst"),
    ("tracking", "ref_davis17", f"{_HUB}allenai/molmo2-ref-davis17"),
    ("tracking", "yt_vis", f"{_HUB}allenai/molmo2-yt-vis"),
    ("tracking", "moca", f"{_HUB}allenai/molmo2-moca"),
    ("tracking", "reasonvos", f"{_HUB}allenai/molmo2-reasonvos"),
    ("tracking", "molmo2_video_track molmo2_video_single_point_track", f"{_HUB}allenai/molmo2-track-instruction"),
    ("tracking", "molmo_point_track", ""),
    ("text", "tulu4", f"{_HUB}allenai/molmo2-tulu4-classified"),
    ("text", "molmo2_hardcodes", f"{_HUB}allenai/molmo2-hardcodes"),
    (
        "further video",
        "vixmo_caps_eval dream1k vsi_bench mme_videoocr ego4d_ star_mc countix_mc nextqa_mc_ tvqa cinepile news_video_qa charades_sta coin "
        "youcook2_ activitynet_ epic_kitchens moments_in_time kinetics perception_test_",
        "",
    ),
)


def kind_and_source(name: str) -> tuple[str, str] | None:
    """(kind, where it is published; empty = not noted here) of a published name without a reader, or None."""
    for kind, prefixes, source in _ROWS:
        if any(name.startswith(prefix) for prefix in prefixes.split()):
            return kind, source
    return None
