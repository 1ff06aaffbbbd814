"""The one decoder: every kind of pixel, orientation, size, and the reasons where there is none."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl import decoding
from densessl.core.errors import InputError
from densessl.decoding import UnreadableImage, decode, find_range, size_of
from densessl.decoding import decoder as decoder_module
from tests.decoding.images import png16, tiff16, tiff_of_channels

CASES = Path(__file__).parents[1] / "cases" / "images"


def picture(height=40, width=60, seed=0):
    """Smooth colours from 0 to 255."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    pixels = pixels.copy()
    pixels[0, 0], pixels[0, 1] = 0, 255
    return pixels


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return io.BytesIO(stream.getvalue())


def pixels_of(file, *args, **options):
    return np.asarray(decode(file, *args, **options).image)


def as_before(stream):
    """What pretraining and Detectron2's reader made of a file of 8 bits."""
    with Image.open(stream) as image:
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "GIF", "WEBP"])
def test_eight_bits_are_as_they_always_were(mode, format):
    colours = Image.fromarray(picture())
    if mode == "RGBA":
        colours.putalpha(Image.fromarray(picture(seed=1)[:, :, 0]))
    stream = saved(colours.convert(mode), format)
    expected = as_before(stream)
    assert (pixels_of(stream) == expected).all()
    assert (pixels_of(stream, (1000, 2000)) == expected).all()  # a range is not for them


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_are_as_they_always_were(mode):
    stream = saved(Image.fromarray(picture()).convert(mode), "JPEG")
    assert (pixels_of(stream) == as_before(stream)).all()


def test_a_palette_with_transparency_gives_its_colours():
    image = Image.fromarray(picture()).quantize(16)
    stream = saved(image, "PNG", transparency=3)
    assert (pixels_of(stream) == np.asarray(image.convert("RGB"))).all()


# ---- more than 8 bits ----

DEEP = {
    "png": lambda grey: png16(grey),
    "png of colour": lambda grey: png16(np.stack([grey] * 3, 2)),
    "png with alpha": lambda grey: png16(np.stack([grey] * 3 + [grey // 2], 2)),
    "tiff": lambda grey: tiff16(grey),
    "tiff, big end": lambda grey: tiff16(grey, ">"),
    "tiff of colour": lambda grey: tiff16(np.stack([grey] * 3, 2)),
    "tiff of colour, big end": lambda grey: tiff16(np.stack([grey] * 3, 2), ">"),
    "tiff of colour, deflate": lambda grey: tiff16(np.stack([grey] * 3, 2), deflate=True),
    "tiff of colour, deflate, big end": lambda grey: tiff16(np.stack([grey] * 3, 2), ">", True),
    "tiff, deflate": lambda grey: tiff16(grey, deflate=True),
}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("low", [0, 7000])
def test_sixteen_bits_become_eight_by_the_range(kind, low):
    eight = picture()[:, :, 1]
    deep = low + eight.astype(np.uint16) * 16  # 12 bits
    found = pixels_of(io.BytesIO(DEEP[kind](deep)), (low, low + 255 * 16))
    assert (found == eight[:, :, None]).all()


def test_sixteen_bit_colour_keeps_its_channels_apart():
    eight = picture()
    for write in (png16, tiff16):
        found = pixels_of(io.BytesIO(write(eight.astype(np.uint16) * 257)), (0, 65535))
        assert (found == eight).all()


@pytest.mark.parametrize(
    ("dtype", "factor"), [(np.int32, 1), (np.int32, 100), (np.float32, 1 / 255)]
)
def test_thirty_two_bits_and_floats(dtype, factor):
    eight = picture()[:, :, 0].astype(np.int64)
    stream = saved(Image.fromarray((eight * factor).astype(dtype)), "TIFF")
    found = pixels_of(stream, (0, 255 * factor))
    assert (found == eight[:, :, None]).all()


def test_what_lies_outside_the_range_is_clipped_and_no_number_is_black():
    values = np.array([[-1, 0, 0.5, 1, 9, np.nan, np.inf, -np.inf]], np.float32)
    found = pixels_of(saved(Image.fromarray(values), "TIFF"), (0, 1))
    assert found[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255, 0]


def test_without_a_range_a_file_gives_its_own():
    thermal = pixels_of(CASES / "thermal_7000_9000.tif")
    assert thermal.min() == 0 and thermal.max() == 255 and len(np.unique(thermal)) > 190


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("float01.tif", (0, 1)),
        ("xray_12bit_in_16.png", (0, 4095)),
        ("thermal_7000_9000.tif", (7247, 8764)),
        ("gray16_0001.png", (912, 2386)),
    ],
)
def test_the_range_of_a_sample(name, expected):
    found = find_range([CASES / name])
    assert found.range == expected and found.files == 1
    assert len(np.unique(pixels_of(CASES / name, found.range))) > 60  # grey levels


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(0, 65536, 257, np.uint16), (0, 65535)),
        (np.arange(0, 1024, 4, np.uint16), (0, 1023)),
        (np.arange(0, 256, 1, np.uint16), (0, 255)),
        (np.full(256, 300, np.uint16), (0, 1023)),
        (np.linspace(0, 1, 256, dtype=np.float32), (0, 1)),
        (np.linspace(0, 255, 256, dtype=np.float32), (0, 255)),
        (np.linspace(0.001, 0.011, 256, dtype=np.float32), (0.001, 0.011)),
        (np.linspace(-40, 60, 256, dtype=np.float32), (-40, 60)),
        (np.linspace(-1000, 3000, 256).astype(np.int32), (-1000, 3000)),
    ],
)
def test_which_range_values_have(values, expected, tmp_path):
    values = values.reshape(16, 16)
    file = tmp_path / "a.tif"
    if values.dtype == np.uint16:
        file.write_bytes(tiff16(values))
    else:
        Image.fromarray(values).save(file)
    found = find_range([file]).range
    assert found == pytest.approx(expected, rel=0.01, abs=0.01 * (expected[1] - expected[0]))


def test_a_few_hot_pixels_do_not_set_the_range(tmp_path):
    values = np.random.default_rng(0).integers(7000, 9000, (200, 200)).astype(np.uint16)
    values[0, :3] = (0, 65535, 65535)
    (tmp_path / "a.tif").write_bytes(tiff16(values))
    low, high = find_range([tmp_path / "a.tif"]).range
    assert 7000 <= low < 7010 and 8990 < high <= 9000


def test_files_of_eight_bits_and_unreadable_ones_have_no_part_in_the_range(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert find_range([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "gone.png"]) is None
    (tmp_path / "c.png").write_bytes(png16(7000 + picture()[:, :, 0].astype(np.uint16)))
    assert find_range(sorted(tmp_path.glob("*.png"))).files == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("auto", None), ("AUTO", None), ("0,4095", (0, 4095)), ("(0, 4095)", (0, 4095))]
    + [("[-1.5 2e3]", (-1.5, 2000)), ((7000, 9000), (7000, 9000)), ("7000:9000", (7000, 9000))],
)
def test_a_range_is_two_numbers_or_auto(text, expected):
    assert decoding.parse(text, "DATA.RANGE") == expected


@pytest.mark.parametrize("text", ["", "0", "1,2,3", "5,5", "9,3", "0,nan", "0,inf", "low,high"])
def test_another_range_is_refused_with_its_value(text):
    with pytest.raises(InputError, match="DATA.RANGE is .*allowed: auto"):
        decoding.parse(text, "DATA.RANGE")


# ---- orientation ----


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation, format):
    upright = Image.fromarray(picture())
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 95} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    )
    if format == "TIFF":
        options["tiffinfo"] = {274: orientation}
        stream = saved(stored, format, **options)
    else:
        stream = saved(stored, format, exif=exif, **options)
    image, size = decode(stream)
    assert image.size == size == size_of(stream) == (60, 40)
    difference = np.abs(np.asarray(image).astype(int) - picture())
    assert difference.mean() < (6 if format == "JPEG" else 1e-9)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_of_sixteen_bits(orientation):
    upright = picture()[:, :, 0].astype(np.uint16) * 257
    stored = np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
    stream = io.BytesIO(tiff16(np.ascontiguousarray(stored), orientation=orientation))
    image, size = decode(stream, (0, 65535))
    assert size == image.size == size_of(stream) == (60, 40)
    assert (np.asarray(image)[:, :, 0] == picture()[:, :, 0]).all()


# ---- large images ----


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "F"])
@pytest.mark.parametrize("most", [2400, 1000, 600, 100])
def test_large_images_are_reduced(mode, most):
    image = Image.fromarray(picture())
    bounds = (0, 65535) if mode == "I;16" else (0, 255)
    if mode == "I;16":
        stream = io.BytesIO(png16(np.asarray(image.convert("L")).astype(np.uint16) * 257))
    else:
        stream = saved(image.convert(mode), "TIFF" if mode == "F" else "PNG")
    whole = decode(stream, bounds)
    small = decode(stream, bounds, max_pixels=most)
    assert small.size == whole.size == (60, 40)
    assert small.image.width * small.image.height <= most
    assert small.image.width / small.image.height == pytest.approx(1.5, rel=0.15)
    assert small.scale[0] == pytest.approx(60 / small.image.width)
    means = [np.asarray(each.image).mean((0, 1)) for each in (whole, small)]
    assert np.abs(means[0] - means[1]).max() < 4


def test_a_jpeg_is_decoded_small(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = saved(Image.fromarray(picture(640, 960)), "JPEG", exif=exif)
    monkeypatch.setattr(decoder_module, "WHOLE", 100_000)  # nothing larger may be decoded
    small = decode(stream, max_pixels=50_000)
    assert small.size == (640, 960) and small.image.size == (160, 240)
    with pytest.raises(UnreadableImage, match="960 x 640 pixels"):
        decode(saved(Image.fromarray(picture(640, 960)), "PNG"), max_pixels=50_000)


def bomb(width, height, rows):
    """A PNG of black pixels of 1 bit, which deflate makes small; only some rows are there."""
    row = bytes(1 + -(-width // 8))
    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(row) for _ in range(rows)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def test_pillows_limit_is_not_ours():
    stream = io.BytesIO(bomb(20000, 10000, 10000))  # 200 megapixels
    limit = Image.MAX_IMAGE_PIXELS
    image, size = decode(stream)
    assert size == (20000, 10000) and image.size == (10000, 5000)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(UnreadableImage, match="60000 x 60000 pixels"):
        decode(io.BytesIO(bomb(60000, 60000, 10)))


# ---- what cannot be read ----


def test_the_reason_of_what_cannot_be_read(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    files = {
        "cut.jpg": (whole[: len(whole) // 2], "[Tt]runcated"),
        "empty.jpg": (b"", r"empty \(0 bytes\)"),
        "text.jpg": (b"<html>404 not found</html>", "no image of a format that Pillow reads"),
    }
    for name, (data, reason) in files.items():
        (tmp_path / name).write_bytes(data)
        for file in (tmp_path / name, str(tmp_path / name), io.BytesIO(data)):
            with pytest.raises(UnreadableImage, match=reason):
                decode(file)
    tiff_of_channels(tmp_path / "tile.tif", np.zeros((20, 30, 4), np.uint16))
    for file in (tmp_path / "tile.tif", io.BytesIO((tmp_path / "tile.tif").read_bytes())):
        with pytest.raises(UnreadableImage, match="4 channels of 16 bits, .*: DATA.CHANNELS 4"):
            decode(file)
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "gone.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnreadableImage, match="Is a directory"):
        decode(tmp_path / "folder.png")


def test_any_damage_is_a_reason():
    """Bytes flipped anywhere: pixels or a reason, never another error."""
    rng = np.random.default_rng(0)
    kinds = [saved(Image.fromarray(picture()), kind) for kind in ("JPEG", "PNG", "TIFF", "GIF")]
    kinds += [
        io.BytesIO(tiff16(picture().astype(np.uint16))),
        saved(Image.new("F", (9, 9)), "TIFF"),
    ]
    for stream in kinds:
        whole = np.frombuffer(stream.getvalue(), np.uint8)
        for _ in range(15):
            data = whole.copy()
            data[rng.integers(0, min(len(data), 400), 3)] = rng.integers(0, 256, 3)
            try:
                decode(io.BytesIO(data.tobytes()))
            except UnreadableImage as error:
                assert str(error)


@pytest.mark.parametrize("suffix", [".jfif", ".jp2", ".avif", ".jpg", ".TIF"])
def test_suffixes_of_images(suffix):
    assert decoding.is_image(f"a{suffix}") and not decoding.is_image(f".a{suffix}")
    assert not decoding.is_image("a.txt")
