"""The mean of several checkpoints of one model, such as the last steps of a run."""

from collections.abc import Sequence

import torch
from torch import Tensor

from olmo.checkpoints.fit import compare_shapes
from olmo.exceptions import OLMoCheckpointError
from olmo.weights import WeightSource


class AverageWeights(WeightSource):
    """Every tensor is the mean over the sources, taken in fp32 (fp64 for fp64) and kept in the first source's dtype."""

    format = "average"

    def __init__(self, sources: Sequence[WeightSource]) -> None:
        if len(sources) < 2:
            raise OLMoCheckpointError("an average needs at least two checkpoints")
        first = sources[0]
        for other in sources[1:]:
            for a, b in ((other, first), (first, other)):  # one of them may have a scorer that the other lacks
                compare_shapes(f"the checkpoint {a.folder}, beside {b.folder},", a.shapes, b.shapes, set())
        self.sources, self.folder = sources, first.folder
        self.shapes, self.dtypes = first.shapes, first.dtypes

    def read(self, name: str) -> Tensor:
        dtype = self.dtypes[name]
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        total = torch.zeros(self.shapes[name], dtype=wide)
        for source in self.sources:
            total += source.read(name)
        return total.div_(len(self.sources)).to(dtype)
