"""A GeoTIFF as GDAL writes them: tiles, LZW, a predictor, five channels of 16 bits."""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from densessl.decoding import Region, UnreadableImage
from densessl.decoding.channels import read_channels
from tests.decoding.images import tiff_of_channels

FILE = Path(__file__).parents[1] / "cases" / "images" / "tiles_lzw_5_channels.tif"
BY_GDAL = importlib.util.find_spec("rasterio") is not None


@pytest.mark.skipif(not BY_GDAL, reason="rasterio is not installed")
def test_gdal_reads_it():
    y, x, c = np.mgrid[0:40, 0:50, 0:5]
    np.testing.assert_array_equal(read_channels(FILE, 5), y * 60 + x * 3 + c * 700)
    with pytest.raises(UnreadableImage, match=r"\(40, 50, 5\), not 4 channels"):
        read_channels(FILE, 4)


@pytest.mark.skipif(not BY_GDAL, reason="rasterio is not installed")
@pytest.mark.parametrize("box", [(0, 0, 10, 10), (20, 10, 50, 40), (0, 0, 50, 40)])
def test_gdal_reads_a_region_of_it(box):
    x1, y1, x2, y2 = box
    found = read_channels(Region(FILE, box), 5)
    np.testing.assert_array_equal(found, read_channels(FILE, 5)[y1:y2, x1:x2])


@pytest.mark.skipif(BY_GDAL, reason="rasterio is installed")
def test_without_gdal_the_extra_is_named():
    with pytest.raises(UnreadableImage, match=r"tiles.*densessl\[geotiff\]"):
        read_channels(FILE, 5)


def test_a_file_that_lacks_pixels_is_not_one_for_gdal(tmp_path):
    tiff_of_channels(tmp_path / "whole.tif", np.zeros((20, 30, 5), np.uint16))
    height = struct.pack("<HHI", 257, 4, 1)
    data = (tmp_path / "whole.tif").read_bytes()
    taller = data.replace(height + struct.pack("<I", 20), height + struct.pack("<I", 40))
    (tmp_path / "lacks.tif").write_bytes(taller)
    with pytest.raises(UnreadableImage, match="6000 bytes of pixels; it says 12000") as found:
        read_channels(tmp_path / "lacks.tif", 5)
    assert "geotiff" not in str(found.value)
