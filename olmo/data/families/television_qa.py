"""Questions about television, films and news: TVQA, CinePile, NewsVideoQA."""

from olmo.data.records import DatasetRow

ROWS: tuple[DatasetRow, ...] = ()
