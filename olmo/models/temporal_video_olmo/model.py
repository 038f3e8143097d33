"""Molmo2 with unified spatio-temporal token scoring: the vision backbone drops cells, the language model follows."""

from olmo.batch import Batch
from olmo.models.molmo2.model import Molmo2Model
from olmo.models.temporal_video_olmo.compaction import compact
from olmo.models.temporal_video_olmo.config import TemporalVideoOlmoConfig
from olmo.nn.vision_backbone import VisionOutput


class TemporalVideoOlmoModel(Molmo2Model):
    """The keep mask of the vision backbone is all that distinguishes it from Molmo2."""

    config: TemporalVideoOlmoConfig

    def shorten(self, batch: Batch, vision: VisionOutput | None, pad_to: int | None) -> Batch:
        """Remove the tokens of dropped cells, if there are any."""
        if vision is not None and vision.keep_rows is not None:
            dropped = vision.dropped_per_segment
            batch = compact(batch, vision.keep_rows, dropped, self.placeholder_ids, self.config.compact_positions)
        return super().shorten(batch, vision, pad_to)
