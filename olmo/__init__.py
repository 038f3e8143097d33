"""Molmo2 video-language models with unified spatio-temporal token scoring (STTS)."""

from olmo.version import __version__

__all__ = ["__version__"]
