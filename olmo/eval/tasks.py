"""What can be evaluated: one declarative record per task, and the groups by which tasks are asked for together."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from olmo.data.paths import is_data_file
from olmo.exceptions import OLMoCliError

BATCH_PRESETS = ("4b-default", "8b-default")


@dataclass(frozen=True)
class Task:
    """One evaluation: which questions, how long the answers may be, and how they are scored."""

    name: str
    """Name on the command line."""
    title: str
    """Name in tables."""
    split: str
    """Split taken when none is asked for."""
    max_new_tokens: int
    """Longest answer, in tokens."""
    metric: str | None
    """Key of `olmo.eval.metrics.METRICS`; None = named here, but this version cannot read its data yet."""
    long_video: bool = False
    """Long videos take smaller batches in the presets."""
    dataset: str | None = None
    """What the questions come from, where it is not called as the task: the path of a data file."""

    @property
    def source(self) -> str:
        """What the catalogue opens."""
        return self.dataset or self.name

    @property
    def label(self) -> str:
        return f"{self.name}:{self.split}"

    def batch_size(self, preset: str | int) -> int:
        """Rows per device: a number, or a preset named after the model it suits on an 80 GB device."""
        if isinstance(preset, int):
            return preset
        return 1 if preset == "8b-default" and self.long_video else 2


_SHORT = (
    Task("nextqa_mc", "NeXTQA", "test", 12, None),
    Task("perception_test", "PerceptionTest", "validation", 12, None),
    Task("mvbench", "MVBench", "validation", 32, None),
    Task("tomato", "TOMATO", "test", 32, None),
    Task("motionbench", "MotionBench", "validation", 12, None),
    Task("temp_compass_internal", "TempCompass", "validation", 192, None),
)
_LONG = (
    Task("video_mme", "VideoMME", "validation", 12, None, long_video=True),
    Task("video_mme_w_subtitle", "VideoMME + subtitles", "validation", 12, None, long_video=True),
    Task("long_video_bench_no_subtitle", "LongVideoBench", "validation", 12, None, long_video=True),
    Task("long_video_bench_w_subtitle", "LongVideoBench + subtitles", "validation", 12, None, long_video=True),
    Task("mlvu_mc", "MLVU", "validation", 12, None, long_video=True),
    Task("lvbench", "LVBench", "test", 12, None, long_video=True),
    Task("video_eval_pro_mc", "VideoEvalPro", "test", 32, None, long_video=True),
)
TASKS = {t.name: t for t in (Task("moving_shapes", "Moving shapes", "test", 8, "short_answer"), *_SHORT, *_LONG)}
"""Every task by its name."""

GROUPS = {
    "short_video": tuple(t.name for t in _SHORT),
    "long_video": tuple(t.name for t in _LONG),
    "video": tuple(t.name for t in (*_SHORT, *_LONG)),
}
"""Name on the command line -> tasks. `video` is the set of 13 that the STTS results are averaged over."""


def own_task(path: str) -> Task:
    """The lines of a data file as a task: lines with options are scored by the option, the others by the exact answer."""
    return Task(Path(path).stem, Path(path).name, "all", 64, "option_or_answer", dataset=path)


def resolve_tasks(spec: str | Sequence[str]) -> list[Task]:
    """Turn `video,moving_shapes:train,my_val.jsonl` into task records, in order and without repetition."""
    words = spec.split(",") if isinstance(spec, str) else list(spec)
    tasks: dict[str, Task] = {}
    for word in (w.strip() for w in words):
        name, _, split = word.partition(":")
        if name in GROUPS and not split:
            found = [TASKS[n] for n in GROUPS[name]]
        elif is_data_file(word):
            found = [own_task(word)]
        elif name in TASKS:
            found = [replace(TASKS[name], split=split) if split else TASKS[name]]
        else:
            known = [*GROUPS, *TASKS]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}, or a .jsonl file"
            reason = f"'{name}' is a group, and a group takes no split" if name in GROUPS else f"unknown task '{word}'; {hint}"
            raise OLMoCliError(f"--tasks: {reason}")
        for task in found:
            if task.label in tasks and tasks[task.label].source != task.source:
                raise OLMoCliError(f"--tasks: {tasks[task.label].source} and {task.source} have the same name; evaluate them one at a time")
            tasks[task.label] = task
    return list(tasks.values())


def parse_batch_size(text: str) -> str | int:
    """The value of `--device_batch_size`: a positive number or the name of a preset."""
    if text in BATCH_PRESETS:
        return text
    if not text.isdigit() or int(text) < 1:
        raise OLMoCliError(f"--device_batch_size={text}: must be a positive number or one of {', '.join(BATCH_PRESETS)}")
    return int(text)
