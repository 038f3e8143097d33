"""Reference numbers of the published code, and the one place that finds them.

A set `GOLDENS` that is no folder is an error; the default folder may be absent, as in a checkout without its
neighbours, and then each test that needs it is skipped by name.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("GOLDENS", Path(__file__).resolve().parents[3] / "shared" / "goldens"))


def or_absent(parameters: list, what: str) -> list:
    """These parameters, or in place of none a skipped one that names what is absent."""
    if parameters:
        return parameters
    if "GOLDENS" in os.environ and not FOLDER.is_dir():
        raise pytest.UsageError(f"GOLDENS is set to {FOLDER}, which is no folder")
    absent = f"reference numbers are absent: no {what} in {FOLDER} (set GOLDENS to their folder)"
    return [pytest.param(None, id="absent", marks=pytest.mark.skip(absent))]  # data of their own, not part of a checkout
