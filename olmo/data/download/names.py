"""Which data sets a word of the command line means: a name, an alias, a mixture (or its file), or one of three groups."""

from collections.abc import Sequence

from olmo.data.catalogue import ROWS, Row, check_name, has_reader
from olmo.data.mixtures import MIXTURES, mixture_by_name
from olmo.data.paths import is_data_file
from olmo.exceptions import OLMoDataError

TRAIN_MIXTURE = "all-v5-video-academic-only"
GROUPS = {
    "train": f"all of {TRAIN_MIXTURE}",
    "eval": "the benchmarks",
    "all": "everything",
}


def is_benchmark(row: Row) -> bool:
    """Whether a data set is asked in the way of an evaluation, or has nothing to train on."""
    return "video_eval_" in row.style or "train" not in row.splits


def rows_of(words: Sequence[str]) -> list[tuple[Row, list[str] | None]]:
    """Each data set once, in the order of the words, with the splits asked for (None = all)."""
    found: dict[str, tuple[Row, set[str] | None]] = {}
    for word in words:
        for name, split in _names_of(word):
            row, own = check_name(name)
            split = own or split
            if split is not None and split not in row.splits:
                raise OLMoDataError(f"{row.name} has no split '{split}'; it has {', '.join(row.splits)}")
            before = found.get(row.name, (row, set()))[1]
            found[row.name] = (row, None if split is None or before is None else before | {split})
    return [(row, None if splits is None else [s for s in row.splits if s in splits]) for row, splits in found.values()]


def _names_of(word: str) -> list[tuple[str, str | None]]:
    """(name, split) of every data set that a word means."""
    if word == "all":
        return [(name, None) for name in ROWS]
    if word == "eval":
        return [(name, split) for name, row in ROWS.items() if is_benchmark(row) for split in row.splits if split != "train"]
    if is_data_file(word):
        raise OLMoDataError(f"{word} is a file of your own: there is nothing to fetch; scripts/data_doctor.py checks it")
    mixture = TRAIN_MIXTURE if word == "train" else word
    if mixture in MIXTURES or mixture.endswith((".yaml", ".yml")):
        members = [entry.dataset_name for group in mixture_by_name(mixture) for entry in group.datasets]
        return [(name, "train") for name in members if not is_data_file(name) and has_reader(name)]
    return [(word, None)]
