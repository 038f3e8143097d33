"""Asking a trained model: `from olmo.inference import load`, then `load(checkpoint).ask(video, question)`."""

from olmo.inference.api import Answer, VideoQA, load

__all__ = ["Answer", "VideoQA", "load"]
