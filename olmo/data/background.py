"""Doing work ahead of time in a thread."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class _Failed:
    """An exception on its way out of the background thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def in_background(items: Generator[T], depth: int = 2) -> Iterator[T]:
    """The same items, made ahead of time in a thread: packing and padding overlap with the training step."""
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as err:  # shown where the items are used
            put(_Failed(err))
        finally:
            items.close()

    thread = threading.Thread(target=run, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join(timeout=5)
