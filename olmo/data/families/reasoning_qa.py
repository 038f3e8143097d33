"""Questions that need a conclusion, and two sets of captions that go with them: CLEVRER, STAR, IntentQA, Sports-QA, RoadTextVQA,
Video Localized Narratives, Countix, CameraBench, MotionBench."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
