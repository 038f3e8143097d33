"""Pixels and crops: shapes, inverses, and the resize against oracles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo.exceptions import OLMoConfigurationError, OLMoDataError
from olmo.preprocessing.crops import ImagePreprocessor, MultiCropConfig, overlapping_tiles, select_tiling
from olmo.preprocessing.images import PixelConfig, load_image, patchify, resize_frame, resize_frames
from olmo.preprocessing.pooling import pooling_index
from olmo.tokenizer import TokenizerConfig, build_tokenizer
from tests.patches import unpatchify

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def test_patches_and_back():
    """Seen to fail with rows and columns of a patch exchanged."""
    frames = noise(2, 6, 9, 3)
    patches = patchify(frames, 3)
    assert patches.shape == (2, 6, 27)
    np.testing.assert_array_equal(patches[1, 4], frames[1, 3:6, 3:6].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, (2, 3), 3), frames)


@pytest.mark.parametrize("shape", [(20, 30), (7, 5), (64, 28)])
def test_resize_is_plain_bilinear(shape):
    """Against interpolation written out pixel by pixel. Seen to fail with antialiasing on (for the large image)."""
    image, (h, w) = noise(*shape, 3), (28, 28)
    out = resize_frame(image, (h, w))
    y = np.clip((np.arange(h) + 0.5) * shape[0] / h - 0.5, 0, shape[0] - 1)
    x = np.clip((np.arange(w) + 0.5) * shape[1] / w - 0.5, 0, shape[1] - 1)
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    y1, x1 = np.minimum(y0 + 1, shape[0] - 1), np.minimum(x0 + 1, shape[1] - 1)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    f = image.astype(np.float64)
    top, bottom = f[y0][:, x0] * (1 - fx) + f[y0][:, x1] * fx, f[y1][:, x0] * (1 - fx) + f[y1][:, x1] * fx
    assert out.dtype == np.uint8
    assert np.abs(out - (top * (1 - fy) + bottom * fy)).max() <= 0.501


def test_one_frame_at_a_time_is_the_same():
    frames = noise(4, 33, 47, 3)
    np.testing.assert_array_equal(resize_frames(frames, (28, 42)), np.stack([resize_frame(f, (28, 42)) for f in frames]))
    assert resize_frames(frames, (33, 47)) is frames


def test_default_resize_keeps_proportions():
    image = np.full((50, 100, 3), 200, dtype=np.uint8)
    out = resize_frame(image, (40, 40), "default")
    assert (out[10:30] == 200).all() and not out[:10].any() and not out[30:].any()
    assert (resize_frame(image, (40, 40), "default", pad_value=1.0)[:10] == 255).all()


def test_float_pixels_are_normalised():
    crops = noise(1, 14, 14, 3)
    for name, mean, std in (("siglip", 0.5, 0.5), ("dino", np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))):
        out = PixelConfig((14, 14), 14, normalize=name, uint8=False).to_patches(crops)
        np.testing.assert_allclose(unpatchify(out, (1, 1), 14), (crops / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"resize": "tensorflow"}, "resize_mode 'tensorflow'"),
        ({"normalize": "none"}, "vit.normalize 'none'"),
        ({"normalize": "openai"}, "normalize_on_gpu"),
        ({"size": (100, 100)}, "no multiple of the patch size"),
    ],
)
def test_pixel_settings_are_checked(config, reason):
    with pytest.raises(OLMoConfigurationError, match=reason):
        PixelConfig(**config)


def test_loading(tmp_path):
    from PIL import Image

    image = noise(10, 20, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), image)
    np.testing.assert_array_equal(load_image(Image.fromarray(image)), image)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    Image.fromarray(image).save(tmp_path / "b.png", exif=turned)
    assert load_image(tmp_path / "b.png").shape == (20, 10, 3)
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(OLMoDataError, match="c.png cannot be read as an image"):
        load_image(tmp_path / "c.png")
    with pytest.raises(OLMoDataError, match="there is no image file"):
        load_image(tmp_path / "d.png")
    with pytest.raises(OLMoDataError, match="uint8"):
        load_image(image.astype(np.float32))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_pooling_windows(h, w, ph, pw):
    """Every patch stands in exactly one window, at the place that the padding rule gives it. Seen to fail with the larger
    half of the padding put first."""
    ids = np.arange(h * w).reshape(h, w)
    windows = pooling_index(ids, ph, pw)
    assert windows.shape == (-(-h // ph), -(-w // pw), ph * pw)
    assert sorted(windows[windows >= 0].tolist()) == list(range(h * w))
    top, left = (-h % ph) // 2, (-w % pw) // 2
    for y in range(h):
        for x in range(w):
            yy, xx = y + top, x + left
            assert windows[yy // ph, xx // pw, (yy % ph) * pw + xx % pw] == ids[y, x]
    assert (windows >= 0).any(axis=-1).all()


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 12))
def test_tiling_is_the_best_by_brute_force(height, width, max_crops):
    """Seen to fail when ties went to the larger tiling."""
    best = None
    for i in range(1, max_crops + 1):
        for j in range(1, max_crops + 1):
            if i * j <= max_crops:
                scale = min(np.float32(i * 266) / np.float32(height), np.float32(j * 266) / np.float32(width))
                rank = (scale < 1, abs(scale - 1) if scale < 1 else scale, i * j, i)
                best = min(best or (rank, (i, j)), (rank, (i, j)))
    assert select_tiling(height, width, 266, max_crops) == best[1]


@given(st.integers(5, 90), st.integers(5, 90))
def test_tiles_show_the_canvas(height, width):
    """The patch that the map names shows exactly that part of the resized image, and is none of its tile's margins (but at
    the border of the image). Seen to fail with tiles cut one patch to the right, and with the two margins exchanged."""
    pixels = PixelConfig((14, 14), 2)
    image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiles, canvas_ids = overlapping_tiles(image, pixels, [1, 2], 6)
    canvas = resize_frame(image, (canvas_ids.shape[0] * 2, canvas_ids.shape[1] * 2))
    whole = patchify(canvas[None], 2)[0]
    np.testing.assert_array_equal(pixels.to_patches(tiles).reshape(-1, 12)[canvas_ids.reshape(-1)], whole)
    rows, columns = (n // 4 for n in np.asarray(canvas_ids.shape) - 3)  # each tile adds 7 - 1 - 2 patches
    tile, place = np.divmod(canvas_ids, 49)
    for t, p in zip(tile.reshape(-1), place.reshape(-1), strict=True):
        for at, index, last in ((p // 7, t // columns, rows - 1), (p % 7, t % columns, columns - 1)):
            assert (at >= 1 or index == 0) and (at < 5 or index == last)


def test_lists_of_images():
    tok = build_tokenizer(TokenizerConfig("tiny"), 1024)
    pre = ImagePreprocessor(MultiCropConfig(max_images=2), PixelConfig((28, 28)), tok)
    out = pre.many([noise(20, 20, 3)] * 3)
    assert len(out.blocks) == 2 and out.segments[0].num_frames == 2
    assert tok.decode(out.blocks[1]).startswith("Image 2<im_start>")
    with pytest.raises(OLMoDataError, match="max_images is null"):
        ImagePreprocessor(MultiCropConfig(), PixelConfig((28, 28)), tok).many([noise(20, 20, 3)])


def test_high_resolution_is_drawn_while_training():
    tok = build_tokenizer(TokenizerConfig("tiny"), 1024)
    config = MultiCropConfig("overlap-and-resize-c2", max_crops=2, high_res_max_crops=12, p_high_res=0.5, overlap_margins=[0, 0])
    pre = ImagePreprocessor(config, PixelConfig((28, 28)), tok, is_training=True)
    counts = {len(pre(noise(200, 200, 3), np.random.default_rng(s)).images) for s in range(20)}
    assert counts == {2, 10}  # the overview plus one or nine tiles
    assert len(ImagePreprocessor(config, PixelConfig((28, 28)), tok)(noise(200, 200, 3)).images) == 2


@pytest.mark.parametrize("config", [{"crop_mode": "overlap-and-resize"}, {"overlap_margins": [1]}, {"max_crops": 0}])
def test_crop_settings_are_checked(config):
    with pytest.raises(OLMoConfigurationError, match=next(iter(config))):
        MultiCropConfig(**config).check(PixelConfig())


@pytest.mark.parametrize("settings", [{}, {"uint8": False}, {"uint8": False, "normalize": "openai"}])
def test_patches_become_the_pixels_that_they_were(settings):
    """Seen to fail with rows and columns of the grid exchanged, and without the mean."""
    pixels = PixelConfig(size=(28, 42), **settings)
    crops = np.random.default_rng(0).integers(0, 256, (2, 28, 42, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels.from_patches(pixels.to_patches(crops)), crops)
