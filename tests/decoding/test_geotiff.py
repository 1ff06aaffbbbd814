"""A GeoTIFF as GDAL writes them: tiles, LZW, a predictor, five channels of 16 bits."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from densessl.decoding import UnreadableImage
from densessl.decoding.channels import read_channels

FILE = Path(__file__).parents[1] / "cases" / "images" / "tiles_lzw_5_channels.tif"
BY_GDAL = importlib.util.find_spec("rasterio") is not None


@pytest.mark.skipif(not BY_GDAL, reason="rasterio is not installed")
def test_gdal_reads_it():
    y, x, c = np.mgrid[0:40, 0:50, 0:5]
    np.testing.assert_array_equal(read_channels(FILE, 5), y * 60 + x * 3 + c * 700)
    with pytest.raises(UnreadableImage, match=r"\(40, 50, 5\), not 4 channels"):
        read_channels(FILE, 4)


@pytest.mark.skipif(BY_GDAL, reason="rasterio is installed")
def test_without_gdal_the_extra_is_named():
    with pytest.raises(UnreadableImage, match=r"tiles.*densessl\[geotiff\]"):
        read_channels(FILE, 5)
