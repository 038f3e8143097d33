"""An image as tokens: a squashed overview, and overlapping high-resolution tiles of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from olmo.batch import MultimodalType, VisualSegment
from olmo.config import BaseConfig
from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.example import VisionTokens
from olmo.preprocessing.images import PixelConfig
from olmo.preprocessing.pooling import frame_windows, pooling_index, shifted
from olmo.tokenizer import Tokenizer

log = logging.getLogger(__name__)

CROP_MODES = ("resize", "overlap-and-resize-c2")


@dataclass
class MultiCropConfig(BaseConfig):
    """How images are cut and written as tokens."""

    crop_mode: str = "resize"
    """resize (one squashed crop) or overlap-and-resize-c2 (overview plus overlapping tiles)."""
    use_col_tokens: bool = True
    """<im_col> after every row of the tiled part."""
    max_crops: int = 6
    """Most tiles of one image (the overview comes on top)."""
    high_res_max_crops: int = 24
    """Most tiles when an image is drawn for high resolution while training."""
    p_high_res: float = 0
    """Probability of that, per image."""
    pooling_w: int = 2
    """Patches per visual token, horizontally."""
    pooling_h: int = 2
    """Patches per visual token, vertically."""
    overlap_margins: list[int] = field(default_factory=lambda: [4, 4])
    """Patches at the left/top and right/bottom of a tile that belong to its neighbour."""
    max_images: int | None = None
    """Most images of an example that has a list of them (further ones are left out with a warning); null = no lists."""
    max_multi_image_crops: int = 4
    """max_crops of each image of a list."""
    multi_image_pooling_w: int = 2
    """pooling_w of the images of a list."""
    multi_image_pooling_h: int = 2
    """pooling_h of the images of a list."""
    use_single_crop_col_tokens: bool | None = None
    """<im_col> in the squashed crop (null = as use_col_tokens)."""
    use_single_crop_start_token: bool = False
    """Start the overview with <low_res_im_start> instead of <im_start>."""

    def check(self, pixels: PixelConfig) -> None:
        """Refuse values that nothing implements."""
        if self.crop_mode not in CROP_MODES:
            raise OLMoConfigurationError(f"unknown image.crop_mode '{self.crop_mode}'; known: {', '.join(CROP_MODES)}")
        if len(self.overlap_margins) != 2 or min(self.overlap_margins) < 0:
            raise OLMoConfigurationError(f"image.overlap_margins must be two numbers of patches, not {list(self.overlap_margins)}")
        if self.crop_mode != "resize" and sum(self.overlap_margins) >= min(pixels.grid):
            raise OLMoConfigurationError(
                f"image.overlap_margins {list(self.overlap_margins)} leave nothing of a crop of {pixels.grid} patches"
            )
        if min(self.max_crops, self.high_res_max_crops, self.max_multi_image_crops) < 1:
            raise OLMoConfigurationError("image.max_crops, high_res_max_crops and max_multi_image_crops must be at least 1")


def select_tiling(height: int, width: int, window: int, max_crops: int) -> tuple[int, int]:
    """Rows and columns of tiles of `window` pixels that fit an image of this size with the least rescaling.

    Prefers not to shrink the image; where every tiling shrinks it, the one that shrinks least.
    """
    tilings = sorted(
        ((i, j) for i in range(1, max_crops + 1) for j in range(1, max_crops + 1) if i * j <= max_crops), key=lambda t: (t[0] * t[1], t[0])
    )
    sides = np.asarray(tilings, dtype=np.float32) * window
    scales = (sides / np.asarray([height, width], dtype=np.float32)).min(axis=1)
    if np.all(scales < 1):
        return tilings[int(np.argmax(scales))]
    return tilings[int(np.argmin(np.where(scales < 1, np.inf, scales)))]


def overlapping_tiles(image: np.ndarray, pixels: PixelConfig, margins: Sequence[int], max_crops: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut an image into overlapping crops of the ViT's size.

    Returns the crops [th * tw, H, W, 3] uint8 (row-major) and the patch grid of the whole canvas: for each of its patches
    the id of the crop patch that shows it with most context, ids counting through all crops.
    """
    left, right = margins
    rows, columns = pixels.grid
    step = (rows - left - right, columns - left - right)  # patches that each further tile adds
    overlap = (left + right) * pixels.patch
    height, width = image.shape[:2]
    th, tw = select_tiling(max(height - overlap, 1), max(width - overlap, 1), step[0] * pixels.patch, max_crops)
    canvas_grid = (th * step[0] + left + right, tw * step[1] + left + right)
    canvas = pixels.resize_frame(image, (canvas_grid[0] * pixels.patch, canvas_grid[1] * pixels.patch))
    ids = np.full(canvas_grid, -1, dtype=np.int64)
    own = np.arange(rows * columns).reshape(rows, columns)
    crops = []
    for i in range(th):
        for j in range(tw):
            y, x = i * step[0], j * step[1]
            crops.append(canvas[y * pixels.patch :, x * pixels.patch :][: pixels.size[0], : pixels.size[1]])
            r = slice(left if i else 0, rows - (right if i < th - 1 else 0))
            c = slice(left if j else 0, columns - (right if j < tw - 1 else 0))
            ids[y + r.start : y + r.stop, x + c.start : x + c.stop] = own[r, c] + (len(crops) - 1) * rows * columns
    return np.stack(crops), ids


@dataclass(frozen=True)
class _Image:
    """One image as tokens, crops and pooling windows."""

    tokens: np.ndarray
    crops: np.ndarray  # [C, H, W, 3] uint8
    pooling: np.ndarray  # [P, G]


class ImagePreprocessor:
    """One image, or a list of images, -> tokens, patches and pooling windows."""

    def __init__(self, config: MultiCropConfig, pixels: PixelConfig, tokenizer: Tokenizer, is_training: bool = False):
        config.check(pixels)
        self.config, self.pixels, self.tokenizer, self.is_training = config, pixels, tokenizer, is_training

    def __call__(self, image: np.ndarray, rng: np.random.Generator | None = None) -> VisionTokens:
        """image: [H, W, 3] uint8."""
        cfg = self.config
        max_crops = cfg.max_crops
        if self.is_training and cfg.p_high_res and rng.random() < cfg.p_high_res:
            max_crops = cfg.high_res_max_crops
        parts = self._image(image, max_crops, (cfg.pooling_h, cfg.pooling_w))
        return self._join([parts], [parts.tokens], MultimodalType.IMAGE)

    def many(self, images: Sequence[np.ndarray]) -> VisionTokens:
        """A list of images; with more than one, each is announced as "Image 1", "Image 2", ..."""
        cfg = self.config
        if cfg.max_images is None:
            raise OLMoDataError("it has a list of images, but image.max_images is null")
        if len(images) > cfg.max_images:
            log.warning("an example has %d images; only the first image.max_images=%d are used", len(images), cfg.max_images)
            images = images[: cfg.max_images]
        parts = [self._image(i, cfg.max_multi_image_crops, (cfg.multi_image_pooling_h, cfg.multi_image_pooling_w)) for i in images]
        blocks = [p.tokens for p in parts]
        if len(parts) > 1:
            blocks = [np.concatenate([np.asarray(self.tokenizer.encode(f"Image {k}"), dtype=np.int64), b]) for k, b in enumerate(blocks, 1)]
        return self._join(parts, blocks, MultimodalType.MULTI_IMAGE)

    def _join(self, parts: Sequence[_Image], blocks: list[np.ndarray], kind: MultimodalType) -> VisionTokens:
        poolings, offset = [], 0
        for p in parts:
            poolings.append(shifted(p.pooling, offset))
            offset += len(p.crops) * self.pixels.num_patches
        crops = np.concatenate([p.crops for p in parts])
        return VisionTokens(blocks, self.pixels.to_patches(crops), np.concatenate(poolings), (VisualSegment(kind, len(crops)),))

    def _image(self, image: np.ndarray, max_crops: int, pool: tuple[int, int]) -> _Image:
        cfg, tok = self.config, self.tokenizer
        single_columns = cfg.use_col_tokens if cfg.use_single_crop_col_tokens is None else cfg.use_single_crop_col_tokens
        overview = self.pixels.resize_frame(image)[None]
        low = frame_windows(self.pixels.grid, *pool)
        if cfg.crop_mode == "resize":
            return _Image(self._grid_tokens(low.shape[:2], tok.image_start_id, single_columns), overview, low.reshape(-1, low.shape[-1]))
        tiles, canvas = overlapping_tiles(image, self.pixels, cfg.overlap_margins, max_crops)
        high = pooling_index(canvas + self.pixels.num_patches, *pool)  # the overview is crop 0
        low_start = tok.low_res_image_start_id if cfg.use_single_crop_start_token else tok.image_start_id
        tokens = [
            self._grid_tokens(low.shape[:2], low_start, single_columns),
            self._grid_tokens(high.shape[:2], tok.image_start_id, cfg.use_col_tokens),
        ]
        pooling = np.concatenate([low.reshape(-1, low.shape[-1]), high.reshape(-1, high.shape[-1])])
        return _Image(np.concatenate(tokens), np.concatenate([overview, tiles]), pooling)

    def _grid_tokens(self, grid: tuple[int, int], start_id: int, columns: bool) -> np.ndarray:
        """start, rows of <im_patch> (each closed by <im_col> if `columns`), end."""
        row = [self.tokenizer.image_patch_id] * grid[1] + [self.tokenizer.image_col_id] * columns
        return np.asarray([start_id] + row * grid[0] + [self.tokenizer.image_end_id], dtype=np.int64)
