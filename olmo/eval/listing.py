"""What tasks there are and which of them can be run here: told without opening their data."""

from collections.abc import Sequence

from olmo.data.catalogue import ROWS, GeneratedRow
from olmo.data.paths import is_data_file, video_root
from olmo.eval.task import Task
from olmo.eval.task_table import GROUPS, TASKS

READY, MISSING, NO_READER, NO_SPLIT = "ready", "data missing", "no reader yet", "no such split"
NEEDS_JUDGE, ONLY_PREDICTIONS = "needs judge", "predictions only"


def data_state(task: Task) -> str:
    """ready; data missing (annotation files are not there); no such split; no reader yet."""
    if is_data_file(task.source):
        return READY
    row = ROWS.get(task.source)
    if row is None:
        return NO_READER
    if task.split not in row.splits:
        return NO_SPLIT
    if isinstance(row, GeneratedRow):
        return READY
    folder = video_root() / row.folder
    return READY if all(any(folder.glob(pattern)) for pattern in row.files(task.split)) else MISSING


def status(task: Task) -> str:
    """Whether the task can be run, and what becomes of its answers where that is not a score at once."""
    state = data_state(task)
    if state in (NO_READER, NO_SPLIT):
        return state
    scored_how = NEEDS_JUDGE if task.judge else ONLY_PREDICTIONS if task.metric is None else None
    if scored_how is None:
        return state
    return scored_how if state == READY else f"{state}, {scored_how}"


def expected_questions(task: Task) -> str:
    """How many questions its publisher states, `?` where none does."""
    row = ROWS.get(task.source)
    counts = {} if row is None or isinstance(row, GeneratedRow) else row.counts
    return str(counts.get(task.split, "?"))


def describe(tasks: Sequence[Task]) -> str:
    """One line per task: name, split, number of questions, metric and status."""
    cells = [(t.name, t.split, expected_questions(t), t.metric or "-", status(t)) for t in tasks]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = []
    for name, split, n, metric, state in cells:
        left = f"{name:<{widths[0]}}  {split:<{widths[1]}}  {n:>{widths[2]}}"
        lines.append(f"{left}  {metric:<{widths[3]}}  {state}")
    return "\n".join(lines)


def describe_everything() -> str:
    """All groups with their members, then all tasks."""
    groups = (f"{name}: {', '.join(members)}" for name, members in GROUPS.items())
    return "\n".join([*groups, "", describe(list(TASKS.values()))])
