"""Benchmarks of short videos."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
