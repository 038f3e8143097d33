"""Opens a mixture of three million examples and says what that took: run as a process of its own by `test_index_scale.py`."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from olmo.data import catalogue
from olmo.data.examples import ExampleSource, Limits
from olmo.data.mixtures import KwargsMixture, WeightedDataset, build_mixture
from olmo.data.moving_shapes import MovingShapesConfig
from olmo.data.records import DatasetRow, Record
from olmo.data.sources import ByHand

SETS, EXAMPLES = 34, 3_000_000
DRAWS = 2000


def records(folder: Path, split: str) -> Iterator[Record]:
    for i in range(EXAMPLES // SETS):
        yield {"video": f"{i}.mp4", "questions": [{"question": f"What happens in part {n} of {i}?", "answer": "a lot"} for n in range(3)]}


def example(record: Record, rng: np.random.Generator) -> dict:
    return {"video": record["video"], "message_list": record["questions"]}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(names: list[str]) -> None:
    for name in names:
        catalogue.ROWS[name] = DatasetRow(name, name, name, (ByHand("nowhere"),), "", records, example, lambda split: ["annotations.json"])
    before, start = peak_megabytes(), time.perf_counter()
    members = build_mixture([KwargsMixture(1.0, [WeightedDataset(n) for n in names])], "train", MovingShapesConfig())
    source = ExampleSource(members, None, Limits(), seed=0, shuffle=True)
    for place in range(DRAWS):
        draw = source.stream.draw(place)
        members[draw.dataset].dataset.get(draw.index, np.random.default_rng(0))
    seconds, megabytes = time.perf_counter() - start, peak_megabytes() - before
    print(json.dumps({"examples": sum(len(m.dataset) for m in members), "seconds": seconds, "megabytes": megabytes}))


if __name__ == "__main__":
    main(sys.argv[1:])
