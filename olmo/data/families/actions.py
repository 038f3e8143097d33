"""Names of actions in short clips: Moments in Time, Kinetics, EPIC-KITCHENS."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
