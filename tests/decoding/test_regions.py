"""Regions: the pixels of the whole, read from the part of a file that holds them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from densessl.decoding import Region, UnreadableImage, decode, find_range
from densessl.decoding.channels import read_channels
from densessl.decoding.regions import prepared
from densessl.decoding.truncated import ended
from tests.decoding.images import png16, tiff16, tiff_in_tiles, tiff_of_channels

WIDTH, HEIGHT = 230, 180
CORNERS = [(0, 0, 48, 48), (WIDTH - 48, HEIGHT - 48, WIDTH, HEIGHT), (90, 70, 138, 118)]
BOXES = [*CORNERS, (5, 3, 9, HEIGHT), (0, 100, WIDTH, 101), (0, 0, WIDTH, HEIGHT)]
BOUNDS = (100.0, 50000.0)
rng = np.random.default_rng(0)
PIXELS = np.asarray(Image.fromarray(rng.integers(0, 256, (25, 30, 3), np.uint8)).resize((230, 180)))


def saved(format: str, orientation: int = 1, mode: str = "RGB", **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, format, exif=exif, **options)
    return stream.getvalue()


def boxes(width: int) -> list[tuple[int, int, int, int]]:
    """Those of an image that lies on its side have x and y exchanged."""
    return BOXES if width == WIDTH else [(y1, x1, y2, x2) for x1, y1, x2, y2 in BOXES]


def require_equal(data: bytes) -> None:
    whole = np.asarray(decode(io.BytesIO(data), BOUNDS).image)
    for box in boxes(whole.shape[1]):
        picture = decode(Region(io.BytesIO(data), box), BOUNDS)
        expected = whole[box[1] : box[3], box[0] : box[2]]
        assert picture.size == (box[2] - box[0], box[3] - box[1])
        np.testing.assert_array_equal(np.asarray(picture.image), expected, str(box))


ROW = {"restart_marker_rows": 1}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, ROW, {"restart_marker_blocks": 7}, {"progressive": True}])
def test_a_jpeg(options, orientation):
    require_equal(saved("JPEG", orientation, **options))


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_of_other_blocks(mode, options):
    require_equal(saved("JPEG", mode=mode, **ROW, **options))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_in_tiles(big, orientation):
    require_equal(tiff_in_tiles(PIXELS, 32, orientation, big))


def test_a_slide_whose_tiles_are_jpegs():
    data = tiff_in_tiles(PIXELS, 32, jpeg=True)
    require_equal(data)
    part, _ = prepared(Region(io.BytesIO(data), CORNERS[2]))
    assert len(part.getvalue()) < 0.25 * len(data)


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate", "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_tiff_in_strips(compression, orientation):
    options = {"compression": compression, "tiffinfo": {278: 16, 274: orientation}}
    require_equal(saved("TIFF", orientation, **options))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_of_other_pixels(mode, compression):
    require_equal(saved("TIFF", mode=mode, compression=compression, tiffinfo={278: 16}))


@pytest.mark.parametrize("end", "<>")
def test_sixteen_bits(end):
    values = PIXELS.astype(np.uint16) * 200
    for part in (values, values[:, :, 0]):
        require_equal(tiff16(part, end))
        require_equal(tiff16(part, end, deflate=True, orientation=6))
        require_equal(png16(part))


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_range_is_of_the_region(orientation):
    values = PIXELS.astype(np.uint16) * 200
    for data in (tiff16(values, orientation=orientation), _turned(png16(values), orientation)):
        whole = np.asarray(decode(io.BytesIO(data), (0.0, 255 * 200.0)).image).astype(int) * 200
        for box in boxes(whole.shape[1]):
            region = Region(io.BytesIO(data), box)
            inside = whole[box[1] : box[3], box[0] : box[2]]
            found = find_range([region])
            assert (found.least, found.greatest) == (inside.min(), inside.max())
            given = decode(region, found.range).image.tobytes()
            assert decode(region).image.tobytes() == given


def _turned(png: bytes, orientation: int) -> bytes:
    """A PNG whose EXIF data have an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    first = png.index(b"IDAT") - 4
    return png[:first] + chunk + png[first:]


@pytest.mark.parametrize("name", ["a.tif", "planes.tif", "pages.tif", "last.npy", "first.npy"])
def test_channels_that_are_no_colours(name, tmp_path):
    values = rng.integers(0, 60000, (HEIGHT, WIDTH, 5)).astype(np.uint16)
    if name == "pages.tif":
        pages = [Image.fromarray(np.ascontiguousarray(values[:, :, n])) for n in range(5)]
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    elif name.endswith(".tif"):
        tiff_of_channels(tmp_path / name, values, ">", planar=name == "planes.tif")
    else:
        np.save(tmp_path / name, values if name == "last.npy" else values.transpose(2, 0, 1))
    for box in BOXES:
        found = read_channels(Region(tmp_path / name, box), 5)
        np.testing.assert_array_equal(found, values[box[1] : box[3], box[0] : box[2]], str(box))
    with pytest.raises(UnreadableImage, match="8 channels"):
        read_channels(Region(tmp_path / name, BOXES[0]), 8)


@pytest.mark.parametrize(
    "data, most",
    [
        (tiff_in_tiles(PIXELS, 32), 0.2),
        (saved("TIFF", compression="raw"), 0.3),
        (saved("TIFF", compression="jpeg", tiffinfo={278: 16}), 0.4),
        (saved("JPEG", **ROW), 0.6),
    ],
    ids=["tiles", "rows", "strips", "JPEG"],
)
def test_little_of_a_file_is_decoded(data, most):
    part, _ = prepared(Region(io.BytesIO(data), CORNERS[2]))
    assert len(part.getvalue()) < most * len(data)


def test_decoding_a_jpeg_ends_below_the_region():
    part, box = prepared(Region(io.BytesIO(saved("JPEG")), CORNERS[0]))
    with Image.open(part) as image:
        assert image.size == (WIDTH, 64) and box == CORNERS[0]


def test_what_lies_below_a_region_may_be_damaged():
    data = saved("JPEG", **ROW)
    cut = data[: len(data) // 2]
    expected = decode(Region(io.BytesIO(data), CORNERS[0])).image
    assert decode(Region(io.BytesIO(cut), CORNERS[0])).image.tobytes() == expected.tobytes()
    with pytest.raises(UnreadableImage):
        decode(Region(io.BytesIO(cut), CORNERS[1]))
    assert decode(ended(Region(io.BytesIO(cut), CORNERS[1]))).size == (48, 48)
    with pytest.raises(UnreadableImage, match="cut off"):
        decode(Region(io.BytesIO(tiff_in_tiles(PIXELS, 32)[:-300]), CORNERS[0]))


def test_a_region_that_is_not_in_the_image_is_unreadable():
    for data in (saved("PNG"), saved("JPEG"), tiff_in_tiles(PIXELS, 32)):
        with pytest.raises(UnreadableImage, match="230 x 180 pixels, without the region"):
            decode(Region(io.BytesIO(data), (WIDTH - 20, 0, WIDTH + 28, 48)))
