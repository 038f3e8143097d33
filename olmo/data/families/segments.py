"""Segments of long videos: Charades-STA, COIN, YouCook2, ActivityNet, Ego4D, QVHighlights."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
