"""Benchmarks of long videos."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
