"""Long tests of memory, open files and threads count their own: what earlier tests left to be collected would come and go among it."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Result = TypeVar("Result")


def in_own_process(function: Callable[..., Result], *arguments) -> Result:
    """`function(*arguments)` in a fresh interpreter, which inherits nothing but the environment; what it raises is raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
