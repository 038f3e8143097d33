"""Pixels: loading an image, squashing it to the ViT's input size, cutting it into patches.

This module alone decides how pixels are resized. It uses torch's interpolation, which needs no torchvision and equals
the published resize bit for bit (bilinear, no antialiasing, rounded back to uint8).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.pixels import PIXEL_STATISTICS

_RESIZE = {
    "siglip": {"mode": "bilinear", "antialias": False, "align_corners": False},
    "dino": {"mode": "bicubic", "antialias": True, "align_corners": False},
    "metaclip": {"mode": "bicubic", "antialias": True, "align_corners": False},
}

_KEEP_ASPECT = ("default", "torch-bilinear")
"""Modes that shrink or enlarge an image in its own proportions and pad the rest."""
RESIZE_MODES = (*_RESIZE, *_KEEP_ASPECT)

_EXIF_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)
"""The EXIF tag of how an image is turned, and its values with width and height exchanged."""


def resize_frames(frames: np.ndarray, size: tuple[int, int], mode: str = "siglip", pad_value: float = 0) -> np.ndarray:
    """Bring uint8 frames [T, H, W, 3] to `size` = (height, width), uint8 again; frames of that size are returned as they are.

    siglip, dino and metaclip squash; default keeps the proportions and pads with `pad_value` (0..1) on both sides.
    """
    size = tuple(size)
    if frames.shape[1:3] == size:
        return frames
    x = torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2).float()
    if mode in _KEEP_ASPECT:
        scale = min(np.float32(target) / np.float32(side) for target, side in zip(size, frames.shape[1:3], strict=True))
        inner = [max(1, int(np.float32(side) * scale)) for side in frames.shape[1:3]]
        top, left = ((target - side) // 2 for target, side in zip(size, inner, strict=True))
        x = F.interpolate(x, size=inner, mode="bilinear", antialias=True, align_corners=False)
        x = F.pad(x, (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top), value=255 * pad_value)
    else:
        x = F.interpolate(x, size=size, **_RESIZE[mode])
    return x.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def resize_frame(frame: np.ndarray, size: tuple[int, int], mode: str = "siglip", pad_value: float = 0) -> np.ndarray:
    """`resize_frames` for one frame [H, W, 3]; a reader calls it right after decoding, so that full frames are never kept."""
    return resize_frames(frame[None], size, mode, pad_value)[0]


def patchify(crops: np.ndarray, patch: int) -> np.ndarray:
    """[T, H, W, C] -> [T, (H / patch) * (W / patch), patch * patch * C]; patches row-major, inside a patch (row, column, channel)."""
    t, h, w, c = crops.shape
    x = crops.reshape(t, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(t, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(patches: np.ndarray, grid: tuple[int, int], patch: int) -> np.ndarray:
    """Undo `patchify`; `grid` = rows and columns of patches."""
    t, (rows, columns) = len(patches), grid
    x = patches.reshape(t, rows, columns, patch, patch, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(t, rows * patch, columns * patch, -1)


def load_image(source: Any) -> np.ndarray:
    """Path, PIL image or uint8 array -> uint8 [H, W, 3], turned upright by its EXIF tag."""
    if isinstance(source, np.ndarray):
        return _checked(source)
    with _opened(source) as image:
        from PIL import ImageOps

        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def blank_image(source: Any) -> np.ndarray:
    """As `load_image`, but all zeros that take no memory: only the size is right. Nothing is decoded, except a PNG, which may tell how
    it is turned at its very end."""
    if isinstance(source, np.ndarray):
        return blank(_checked(source).shape)
    with _opened(source) as image:
        width, height = image.size
        lies = image.getexif().get(_EXIF_ORIENTATION, 1) in _LYING
        return blank((width, height, 3) if lies else (height, width, 3))


def blank(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 zeros that take one byte: a stand-in where only a size is wanted."""
    return np.broadcast_to(np.uint8(0), shape)


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise OLMoDataError(f"an image array must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
    return image


@contextmanager
def _opened(source: Any) -> Iterator[Any]:
    """The PIL image of a path (or the one given); failures, also later ones of decoding it, as one sentence."""
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield Image.open(source) if isinstance(source, (str, Path)) else source
    except FileNotFoundError:
        raise OLMoDataError(f"there is no image file {source}") from None
    except (OSError, SyntaxError, ValueError) as err:
        raise OLMoDataError(f"{source} cannot be read as an image: {err}") from None


@dataclass(frozen=True)
class PixelConfig:
    """What the ViT expects of its pixels; built from the ViT's own config."""

    size: tuple[int, int] = (378, 378)
    """Height and width of one crop or frame."""
    patch: int = 14
    """Side of a patch in pixels."""
    resize: str = "siglip"
    """siglip, dino, metaclip (squash to `size`) or default (keep proportions, pad)."""
    normalize: str = "siglip"
    """siglip, openai or dino."""
    uint8: bool = True
    """Hand over uint8 patches that the model normalises on its device; false = float32, normalised here."""
    pad_value: float = 0
    """Grey level of padding, 0..1."""

    def __post_init__(self):
        if self.resize not in RESIZE_MODES:
            raise OLMoConfigurationError(f"vit.resize_mode '{self.resize}' is not supported; choose one of {', '.join(RESIZE_MODES)}")
        if self.normalize not in PIXEL_STATISTICS:
            raise OLMoConfigurationError(f"vit.normalize '{self.normalize}' is not supported; choose one of {', '.join(PIXEL_STATISTICS)}")
        if self.uint8 and self.normalize != "siglip":
            raise OLMoConfigurationError(
                f"normalize_on_gpu works with vit.normalize 'siglip' only, not '{self.normalize}'; set it to false"
            )
        if any(s % self.patch for s in self.size):
            raise OLMoConfigurationError(f"vit.image_default_input_size {list(self.size)} is no multiple of the patch size {self.patch}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of one crop: rows, columns."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def resize_frame(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """One frame [H, W, 3] at the ViT's input size (or at another one)."""
        return resize_frame(frame, size or self.size, self.resize, self.pad_value)

    def resize_frames(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, H, W, 3] at the ViT's input size."""
        return resize_frames(frames, self.size, self.resize, self.pad_value)

    def to_patches(self, crops: np.ndarray) -> np.ndarray:
        """uint8 crops [T, *size, 3] -> patches [T, N, patch * patch * 3] in the dtype that the model takes."""
        if not self.uint8:
            mean, std = self._statistics
            crops = (crops.astype(np.float32) / 255.0 - mean) / std
        return patchify(crops, self.patch)

    def from_patches(self, patches: np.ndarray) -> np.ndarray:
        """Undo `to_patches`, for people to look at: uint8 crops [T, *size, 3]."""
        crops = unpatchify(patches, self.grid, self.patch)
        if not self.uint8:
            mean, std = self._statistics
            crops = ((crops * std + mean) * 255.0).round().clip(0, 255).astype(np.uint8)
        return crops

    @property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation per colour channel, of pixels in 0..1."""
        mean, std = PIXEL_STATISTICS[self.normalize]
        return np.asarray(mean, dtype=np.float32), np.asarray(std, dtype=np.float32)


class BlankPixels(PixelConfig):
    """Shapes without pixels: everything has the right size, is zero, takes no memory and costs nothing."""

    def resize_frame(self, frame: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        return blank((*(size or self.size), 3))

    def resize_frames(self, frames: np.ndarray) -> np.ndarray:
        return blank((len(frames), *self.size, 3))

    def to_patches(self, crops: np.ndarray) -> np.ndarray:
        return blank((len(crops), self.num_patches, self.patch * self.patch * 3))
