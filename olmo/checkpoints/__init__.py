"""Reading checkpoints of every format: finding them, checking that they are whole and fit the model, loading the weights."""

from olmo.checkpoints.adapters import has_adapters
from olmo.checkpoints.finding import holds_only_weights, select_checkpoint, step_of, what_is_missing
from olmo.checkpoints.fit import Fit, initialise, match_weights, model_tensors, read_weights
from olmo.checkpoints.loading import load_config, load_model, read_config
from olmo.checkpoints.marker import read_marker, verify_checkpoint
from olmo.checkpoints.pretrained import read_pretrained_file
from olmo.checkpoints.sharded import load_sharded, read_metadata
from olmo.checkpoints.source import open_weights

__all__ = [
    "Fit",
    "has_adapters",
    "holds_only_weights",
    "initialise",
    "load_config",
    "load_model",
    "load_sharded",
    "match_weights",
    "model_tensors",
    "open_weights",
    "read_config",
    "read_marker",
    "read_metadata",
    "read_pretrained_file",
    "read_weights",
    "select_checkpoint",
    "step_of",
    "verify_checkpoint",
    "what_is_missing",
]
