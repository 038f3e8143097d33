"""What a page calls the runs that it compares."""

from collections.abc import Sequence
from pathlib import Path

from olmo.exceptions import OLMoCliError


def run_names(paths: Sequence[str], given: Sequence[str] | None) -> list[str]:
    """The names given on the command line, or the last parts of the paths. Errors: not as many as runs, or two alike."""
    names = list(given or short_names(paths))
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise OLMoCliError(f"--names: {len(paths)} runs need as many different names, not {', '.join(names)}")
    return names


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [Path(p).absolute().parts for p in paths]
    depth = next((d for d in range(1, max(map(len, parts)) + 1) if len({p[-d:] for p in parts}) == len(parts)), 1)
    return ["/".join(p[-depth:]) for p in parts]
