"""From the words of a command line to task records."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from olmo.data.catalogue import ALIASES
from olmo.data.paths import is_data_file
from olmo.eval.task import Task
from olmo.eval.task_table import GROUPS, TASKS
from olmo.exceptions import OLMoCliError


def own_task(path: str) -> Task:
    """The lines of a data file as a task: lines with options are scored by the option, the others by the exact answer."""
    return Task(Path(path).stem, Path(path).name, "all", 64, "option_or_answer", dataset=path)


def resolve_tasks(spec: str | Sequence[str]) -> list[Task]:
    """Turn `video,moving_shapes:train,my_val.jsonl` into task records, in order and without repetition."""
    words = spec.split(",") if isinstance(spec, str) else list(spec)
    tasks: dict[str, Task] = {}
    for word in words:
        for task in _resolve(word.strip()):
            if task.label in tasks and tasks[task.label].source != task.source:
                raise OLMoCliError(f"--tasks: {tasks[task.label].source} and {task.source} have the same name; evaluate them one at a time")
            tasks[task.label] = task
    return list(tasks.values())


def _resolve(word: str) -> Iterator[Task]:
    """The tasks of one word: a group, a data file, or a task or one of its other names, with or without a split."""
    name, _, split = word.partition(":")
    if name in GROUPS:
        if split:
            raise OLMoCliError(f"--tasks: '{name}' is a group, and a group takes no split")
        for member in GROUPS[name]:
            yield from _resolve(member)
        return
    if is_data_file(word):
        yield own_task(word)
        return
    target, _, alias_split = ALIASES.get(name, name).partition(":")
    if target not in TASKS:
        known = [*GROUPS, *TASKS, *(alias for alias, of in ALIASES.items() if of.partition(":")[0] in TASKS)]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}, or a .jsonl file"
        raise OLMoCliError(f"--tasks: unknown task '{word}'; {hint}")
    task = TASKS[target]
    wanted = split or alias_split
    yield task.on(wanted) if wanted else task
