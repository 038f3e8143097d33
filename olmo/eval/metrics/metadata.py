"""What a metric needs to know about a question besides its answer."""

from typing import Any

from olmo.eval.metrics.metric import Record
from olmo.exceptions import OLMoDataError


def known(record: Record, key: str) -> Any:
    """A value of the metadata of a record; OLMoDataError that names the question and the key where it is missing."""
    metadata = record.get("metadata") or {}
    if key not in metadata:
        found = ", ".join(sorted(metadata)) or "nothing"
        raise OLMoDataError(f"question {record['example_id']}: its 'metadata' has no '{key}', which its metric needs, but {found}")
    return metadata[key]
