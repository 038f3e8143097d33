"""Molmo2's own sets: questions and captions made from captions, subtitles and people."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
