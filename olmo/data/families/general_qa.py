"""Questions about everyday videos: Paxion, LLaVA-Video, PerceptionTest, NExT-QA."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
