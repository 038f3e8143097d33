"""What happens around the training loop: logging, progress, saving."""

from olmo.train.callbacks.base import Callback

__all__ = ["Callback"]
