"""Images whose channels lie in files of their own: which files are one, and what they give."""

import os

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.decoding import UnreadableImage, decode, find_range, parse_channel_files
from densessl.decoding.channel_files import ChannelFiles, image_of, names_of
from densessl.decoding.channels import read_channels

SENTINEL = ("_B02", "_B03", "_B1", "_B11")


@pytest.mark.parametrize(
    "name, words, expected",
    [
        ("a/t_B03.tif", ("_B02", "_B03"), ("a/t_B02.tif", "a/t_B03.tif")),
        ("x_B1_10m.jp2", SENTINEL, tuple(f"x{word}_10m.jp2" for word in SENTINEL)),
        ("x_B11_10m.jp2", SENTINEL, tuple(f"x{word}_10m.jp2" for word in SENTINEL)),
        ("p-ch1sk1fk1.tiff", ("ch1", "ch2"), ("p-ch1sk1fk1.tiff", "p-ch2sk1fk1.tiff")),
        ("d/red/red_7.tif", ("red", "nir"), ("d/red/red_7.tif", "d/nir/nir_7.tif")),
        ("red/7.tif", ("red", "nir"), ("red/7.tif", "nir/7.tif")),
        ("red/7_nir.tif", ("red", "nir"), ("red/7_red.tif", "red/7_nir.tif")),
        ("a/s1_w2.png", ("w1", "w2"), ("a/s1_w1.png", "a/s1_w2.png")),
        (r"a/\1_w2.png", ("w1", r"\1"), (r"a/w1_w2.png", r"a/\1_w2.png")),
        ("a/reduced_7.tif", ("red", "nir"), None),
        ("red/a/7.tif", ("red", "nir"), None),
        ("x_B12.jp2", SENTINEL, None),
    ],
)
def test_which_files_are_one_image(name, words, expected):
    assert names_of(name, words) == expected
    given = image_of(name, words)
    assert given == (ChannelFiles(expected) if expected else name)


@pytest.mark.parametrize("text", ["_B02", "_B02,_B02", "_B02,", ",", "a,b/c"])
def test_words_that_tell_no_files_apart_are_refused(text):
    with pytest.raises(InputError, match="DATA.CHANNEL_FILES is '.*'; allowed: a word for each"):
        parse_channel_files(text, "DATA.CHANNEL_FILES")


def files(folder, dtype=np.uint8, count: int = 4) -> tuple[np.ndarray, ChannelFiles]:
    """An image ``[10, 12, count]``, and its channels in files."""
    most = np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(0, most, (10, 12, count), dtype=dtype)
    names = [folder / f"a_{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.fromarray(np.ascontiguousarray(values[:, :, number])).save(name)
    return values, ChannelFiles(tuple(map(str, names)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_they_give_their_channels_in_the_order_of_the_words(dtype, tmp_path):
    values, image = files(tmp_path, dtype)
    np.testing.assert_array_equal(read_channels(image, 4), values)
    np.testing.assert_array_equal(read_channels(image.region((2, 3, 9, 7)), 4), values[3:7, 2:9])


def test_three_are_red_green_and_blue(tmp_path):
    values, image = files(tmp_path, count=3)
    picture = decode(image)
    np.testing.assert_array_equal(np.asarray(picture.image), values)
    assert picture.size == (12, 10) and find_range([image]) is None
    (tmp_path / "deep").mkdir()
    values, image = files(tmp_path / "deep", np.uint16, count=3)
    found = find_range([lambda: image])
    assert (found.least, found.greatest) == (values.min(), values.max())


def test_what_does_not_fit_together_is_named(tmp_path):
    _, image = files(tmp_path)
    with pytest.raises(UnreadableImage, match="it is 4 files, for 5 channels"):
        read_channels(image, 5)
    for other in (Image.new("L", (6, 5)), Image.new("I;16", (12, 10))):
        other.save(tmp_path / "a_2.png")
        with pytest.raises(UnreadableImage, match=r"a_2.png: its pixels are \d+ x \d+ \w+, those"):
            read_channels(image, 4)
    Image.new("RGB", (12, 10)).save(tmp_path / "a_2.png")
    with pytest.raises(UnreadableImage, match=r"a_2.png: .*\(10, 12, 3\), not 1"):
        read_channels(image, 4)
    os.unlink(tmp_path / "a_2.png")
    with pytest.raises(UnreadableImage, match="a_2.png: No such file"):
        read_channels(image, 4)
