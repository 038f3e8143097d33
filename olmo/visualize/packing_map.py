"""How the examples of the stream fill rows: lengths of the rows that the real loader makes, drawn as bars."""

from dataclasses import dataclass, field

from olmo.batch import ExampleLayout, RowLayout, VisualSegment
from olmo.data.loader import TrainLoader
from olmo.preprocessing.example import dropped_cells


@dataclass(frozen=True)
class PackedExample:
    """One example of a row, as the budgets count it."""

    name: str
    number: int
    """How many examples came out of the packer before it."""
    tokens: int
    """After pruning."""
    frames: int
    tokens_before: int

    @property
    def hue(self) -> int:
        """A colour that neighbours do not share: steps of the golden angle."""
        return round(self.number * 137.508) % 360


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch."""

    examples: list[PackedExample]

    @property
    def tokens(self) -> int:
        return sum(e.tokens for e in self.examples)

    @property
    def frames(self) -> int:
        return sum(e.frames for e in self.examples)


@dataclass
class PackingMap:
    """Rows in the order in which training gets them, and the two budgets of each."""

    packed: bool
    """False: every example has a row to itself."""
    max_tokens: int | None
    """Tokens of a row after pruning; None = no limit."""
    max_frames: int
    """Frames of a row."""
    buffer_size: int = 0
    rows: list[PackedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was read but is in no row."""

    @property
    def examples(self) -> int:
        return sum(len(r.examples) for r in self.rows)

    @property
    def token_scale(self) -> int:
        """Tokens of a full bar."""
        return max([self.max_tokens or 0, *(r.tokens for r in self.rows)])

    @property
    def frame_scale(self) -> int:
        """Frames of a full bar."""
        return max([self.max_frames, *(r.frames for r in self.rows)])

    @property
    def token_fill(self) -> float:
        return sum(r.tokens for r in self.rows) / (len(self.rows) * self.token_scale)

    @property
    def frame_fill(self) -> float:
        return sum(r.frames for r in self.rows) / (len(self.rows) * self.frame_scale)


def read_packing_map(loader: TrainLoader, examples: int) -> PackingMap:
    """Take rows from the loader until they hold so many examples (the packer then still holds back some that it has read)."""
    packing = loader.cfg.packing
    max_frames = loader.max_frames or loader.source.preprocessor.max_frames
    found = PackingMap(packing is not None, loader.cfg.sequence_length, max_frames, packing.buffer_size if packing else 0)
    for batch in loader:
        for row, metadata in zip(batch.layout, batch.metadata, strict=True):
            names = metadata["examples"] if found.packed else [metadata]
            found.rows.append(_packed_row(row, names, found.examples, loader))
        if found.examples >= examples:
            break
    failures = loader.failures
    found.notes += [f"{n} could not be read ({cause})" for cause, n in sorted(failures.by_cause.items()) if n]
    found.notes += [f"{n} fit no row ({reason.replace('_', ' ')})" for reason, n in sorted(loader.rejected.items())]
    return found


def _packed_row(row: RowLayout, metadata: list[dict], start: int, loader: TrainLoader) -> PackedRow:
    segments = list(row.segments)
    found = []
    for example, about in zip(row.examples, metadata, strict=False):  # a row that is cut may have lost its last examples
        own, segments = segments[: example.num_segments], segments[example.num_segments :]
        found.append(_packed_example(example, own, about, start + len(found), loader))
    return PackedRow(found)


def _packed_example(example: ExampleLayout, segments: list[VisualSegment], about: dict, number: int, loader: TrainLoader) -> PackedExample:
    preprocessor = loader.source.preprocessor
    dropped = dropped_cells(segments, preprocessor.topk, preprocessor.prune_from_frame)
    return PackedExample(
        name=str(about.get("example_id") or f"example {number}"),
        number=number,
        tokens=example.num_tokens - dropped,
        frames=sum(s.num_frames for s in segments),
        tokens_before=example.num_tokens,
    )
