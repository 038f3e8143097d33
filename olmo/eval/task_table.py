"""Every task and every group of tasks by name: published names, default splits, longest answers and metrics.

A task stands here whether or not this version can read its data; what is missing is told when tasks are listed or run.
"""

from olmo.eval.task import Kind, Task


def _by_name(*tasks: Task) -> dict[str, Task]:
    return {task.name: task for task in tasks}


def _long(name: str, title: str, metric: str, split: str = "validation", tokens: int = 12, **more) -> Task:
    return Task(name, title, split, tokens, metric, long_video=True, **more)


def _temp_compass(form: str, title: str, **more) -> Task:
    return Task(f"temp_compass{form}", title, "validation", 192, "temp_compass", **more)


def _later(kind: Kind, split: str, tokens: dict[str, int], metric: str | None = None) -> tuple[Task, ...]:
    """Tasks known by name and length of answer only."""
    return tuple(Task(name, name, split, length, metric, kind=kind) for name, length in tokens.items())


_SHORT = (
    Task("nextqa_mc", "NeXTQA", "test", 12, "nextqa_mc"),
    Task("perception_test", "PerceptionTest", "validation", 12, "perception_test", unanswered=("test",)),
    Task("mvbench", "MVBench", "validation", 32, "mvbench"),
    Task("tomato", "TOMATO", "test", 32, "tomato"),
    Task("motionbench", "MotionBench", "validation", 12, "motionbench", unanswered=("test",)),
    _temp_compass("_multi-choice", "TempCompass"),
    _temp_compass("_internal", "TempCompass, without captions"),
    _temp_compass("_yes_no", "TempCompass, yes or no"),
    _temp_compass("_caption_matching", "TempCompass, caption matching"),
    _temp_compass("_captioning", "TempCompass, captions", judge=True),
    _temp_compass("", "TempCompass, all forms", judge=True),
    Task("ego_schema", "EgoSchema", "validation", 32, "ego_schema", unanswered=("test",)),
    Task("temporal_bench", "TemporalBench", "test", 32, "temporal_bench"),
    Task("temporal_bench_mc", "TemporalBench, options apart", "test", 32, "temporal_bench_mc"),
    Task("qv_highlights", "QVHighlights", "validation", 40, "qv_highlights"),
)
_LONG = (
    _long("video_mme", "VideoMME", "video_mme"),
    _long("video_mme_short", "VideoMME, short", "video_mme"),
    _long("video_mme_medium", "VideoMME, medium", "video_mme"),
    _long("video_mme_long", "VideoMME, long", "video_mme"),
    _long("video_mme_w_subtitle", "VideoMME + subtitles", "video_mme"),
    _long("long_video_bench_no_subtitle", "LongVideoBench", "long_video_bench", unanswered=("test",)),
    _long("long_video_bench_w_subtitle", "LongVideoBench + subtitles", "long_video_bench", unanswered=("test",)),
    _long("mlvu_mc", "MLVU", "mlvu_mc"),
    _long("mlvu_gen", "MLVU, free answers", "mlvu_gen", tokens=192, judge=True),
    _long("lvbench", "LVBench", "lvbench", "test"),
    _long("video_eval_pro_mc", "VideoEvalPro", "video_eval_pro_mc", "test", 32),
    _long("video_eval_pro_open", "VideoEvalPro, free answers", "judged_answer", "test", 192, judge=True),
    _long("molmo2_captions_eval", "Molmo2-CapEval", "captions", "test", 2048, judge=True),
)
_POINTS = (
    Task("molmo2_video_count_eval", "Molmo2-VideoCountEval", "val", 2048, "video_count", kind="count"),
    Task("molmo2_video_point_eval", "Molmo2-VideoPointEval", "val", 2048, "video_point", kind="point"),
)
_POINT_TRACKS = _later("track", "validation", {"mevis_point_track_per_frame_fps_6_sample_fps_1": 4096}, "track")
_TRACKS = _later(
    "track",
    "test",
    {f"{name}_track_eval_1fps": 4096 for name in ("mevis", "ref_yt_vos", "ref_davis17", "reasonvos", "molmo2_video")},
    "track",
)
_SEVERAL_IMAGES = (*_later("images", "test", {"muir_bench": 32, "mmiu": 32}), *_later("images", "validation", {"blink": 12}))
_IMAGE_POINTS = (
    *_later("image", "huggingface", {"countbench_qa": 192}),
    *_later("image", "validation", {"pixmo_count_counting": 192}),
    *_later("image", "test", {"pointing_eval_v2": 192, "point_bench": 256}),
)
_IMAGES = (
    *_later("image", "validation", {"coco_2014_vqa_8192": 12, "text_vqa": 12, "chart_qa": 12, "doc_qa": 12, "info_qa": 12}),
    *_later("image", "validation", {"ai2_diagram_v2_mix_transparent": 32, "mmmu_test": 64, "math_vista_v2": 32}),
    *_later("image", "test", {"real_world_qa_no_instruction": 12}),
)
_IMAGE_LOSSES = _later("image", "validation", {"pixmo_ask_model_anything": 384, "pixmo_cap": 12})
_IMAGES_OF_TESTS = _later("image", "validation", {"a_okvqa_mc": 32, "a_okvqa_da": 12, "coco_2014_vqa": 12})

TASKS = _by_name(
    Task("moving_shapes", "Moving shapes", "test", 8, "short_answer"),
    *_SHORT,
    *_LONG,
    *_POINTS,
    *_POINT_TRACKS,
    *_TRACKS,
    *_SEVERAL_IMAGES,
    *_IMAGE_POINTS,
    *_IMAGES,
    *_IMAGE_LOSSES,
    *_IMAGES_OF_TESTS,
)
"""Every task by its name."""

_STTS_SHORT = ("nextqa_mc", "perception_test", "mvbench", "tomato", "motionbench", "temp_compass_multi-choice")
_STTS_LONG = (
    *("video_mme", "video_mme_w_subtitle", "long_video_bench_no_subtitle", "long_video_bench_w_subtitle"),
    *("mlvu_mc", "lvbench", "video_eval_pro_mc"),
)
_MOLMO2_SHORT = ("mvbench", "tomato", "motionbench", "temp_compass_internal", "perception_test", "ego_schema", "nextqa_mc")
_SUBTITLES = ("video_mme_w_subtitle", "long_video_bench_w_subtitle", "lvbench")
_NO_SUBTITLES = ("mlvu_mc", "video_mme", "long_video_bench_no_subtitle", "molmo2_captions_eval", "video_eval_pro_mc")


def _names(*tasks: Task) -> tuple[str, ...]:
    return tuple(task.name for task in tasks)


GROUPS: dict[str, tuple[str, ...]] = {
    "video": (*_STTS_SHORT, *_STTS_LONG),
    "video_molmo2": (*_MOLMO2_SHORT, *_SUBTITLES, *_NO_SUBTITLES),
    "short_video": _MOLMO2_SHORT,
    "long_video": (*_SUBTITLES, *_NO_SUBTITLES),
    "video_subtitle": _SUBTITLES,
    "video_no_subtitle": (*_MOLMO2_SHORT, *_NO_SUBTITLES),
    "test_video": ("mlvu_mc:test", "perception_test:test", "ego_schema:test", "motionbench:test", "long_video_bench_w_subtitle:test"),
    "video_pointing": _names(*_POINTS, *_POINT_TRACKS),
    "tracking": _names(*_TRACKS),
    "multi_image": _names(*_SEVERAL_IMAGES),
    "image_pointing": _names(*_IMAGE_POINTS),
    "single_image": _names(*_IMAGES, *_IMAGE_POINTS, *_IMAGE_LOSSES),
    "single_image_test": (
        *("info_qa:test", "doc_qa:test", "chart_qa:test", "ai2_diagram_v2_mix_transparent:test", "real_world_qa_no_instruction:test"),
        *("a_okvqa_mc:test", "a_okvqa_da:test", "pixmo_count_counting:test", "text_vqa", "math_vista_v2"),
        *("a_okvqa_mc", "a_okvqa_da", "mmmu_test", "countbench_qa:huggingface", "coco_2014_vqa:test"),
    ),
}
"""Name on the command line -> `task[:split]`. `video` is the set of 13 that the STTS results are averaged over, `video_molmo2` the 15
of Molmo2."""

AVERAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "video": {"short": _STTS_SHORT, "long": _STTS_LONG, "overall": (*_STTS_SHORT, *_STTS_LONG)},
}
"""Group -> means over tasks that are reported for it."""
