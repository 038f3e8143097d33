"""Python's garbage collection at the same steps on all ranks: one rank that collects makes all others wait for it."""

import gc

from olmo.train.callbacks.base import Callback


class GarbageCollector(Callback):
    """Switches automatic collection off while training and collects the young generations every `interval` steps."""

    def __init__(self, interval: int):
        self.interval = interval
        self.was_on = gc.isenabled()

    def on_start(self, trainer) -> None:
        gc.disable()

    def on_step(self, trainer, result, metrics) -> None:
        if trainer.state.step % self.interval == 0:
            gc.collect(1)

    def on_end(self, trainer, status) -> None:
        if self.was_on:
            gc.enable()
