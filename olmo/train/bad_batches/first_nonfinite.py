"""Where in a forward and backward pass the first value appears that is no finite number."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from olmo.batch import Batch
from olmo.checkpoints import model_tensors


def float_tensors(value: Any) -> Iterator[torch.Tensor]:
    """All floating-point tensors inside what a module takes or returns, outside of autograd (which would keep what looking makes)."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value.detach()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for f in dataclasses.fields(value):
            yield from float_tensors(getattr(value, f.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from float_tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from float_tensors(item)


def finite(value: Any) -> bool:
    return all(bool(t.isfinite().all()) for t in float_tensors(value))


def how_much(value: Any) -> str:
    """How many of the numbers are which kind."""
    tensors = list(float_tensors(value))
    nan, inf = (sum(int(test(t).sum()) for t in tensors) for test in (torch.isnan, torch.isinf))
    parts = [f"{count:,} {word}" for count, word in ((nan, "nan"), (inf, "inf")) if count]
    return f"{' and '.join(parts)} among {sum(t.numel() for t in tensors):,}"


class FirstNonFinite:
    """Watches a model; `findings` are sentences in the order in which the values came to be."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.findings: list[str] = []
        self.part = ""
        """What is running, for the sentences."""
        self._forward = False
        self._found_output = self._found_gradient = False

    def look_at_weights(self) -> None:
        for name, p in model_tensors(self.model).items():
            if not finite(p.detach()):
                self.findings.append(f"weights: {name} holds {how_much(p.detach())}")

    def look_at_batch(self, batch: Batch, ids: list[list[str]]) -> None:
        """Rows whose own numbers are not finite."""
        for name in Batch.TENSORS:
            tensor = getattr(batch, name)
            for row, values in enumerate([] if tensor is None else tensor):
                if not finite(values):
                    self.findings.append(f"batch: {name} of row {row} (examples {', '.join(ids[row])}) holds {how_much(values)}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every module's output and every parameter's gradient while this is open."""
        handles: list[RemovableHandle] = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_hook(self._output_hook(name or "the model"), with_kwargs=True))
        for name, p in model_tensors(self.model).items():
            if p.requires_grad:
                handles.append(p.register_post_accumulate_grad_hook(self._gradient_hook(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def forward(self, part: str) -> Iterator[None]:
        """The forward pass of `part`; modules that run again in the backward pass are not looked at."""
        self.part, self._forward = part, True
        try:
            yield
        finally:
            self._forward = False

    def _output_hook(self, name: str):
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if not self._forward or self._found_output or finite(output):
                return
            self._found_output = True
            bad = [n for n, p in module.named_parameters() if not finite(p.detach())]
            if bad:
                why = f"its {bad[0]} is not finite"
            elif finite((args, kwargs)):
                why = "what it was given is finite"
            else:
                why = "what it was given is not finite either, so the values come from between the modules or from the batch"
            self.findings.append(f"{self.part}, forward: {name} ({type(module).__name__}) returned {how_much(output)}; {why}")

        return hook

    def _gradient_hook(self, name: str):
        def hook(param: torch.Tensor) -> None:
            if not self._found_gradient and not finite(param.grad):
                self._found_gradient = True
                self.findings.append(f"{self.part}, backward: the gradient of {name} holds {how_much(param.grad)}")

        return hook
