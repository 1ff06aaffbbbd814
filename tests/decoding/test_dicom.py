"""DICOM files as pydicom writes them: values, brightness, colours, sizes, and what is none."""

import io
import subprocess
import sys

import numpy as np
import pytest

from densessl.decoding import UnreadableImage, decode, find_range, is_image, size_of
from densessl.decoding.channels import read_channels

pydicom = pytest.importorskip("pydicom")
RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
NARROW = RNG.integers(0, 256, (20, 30)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.fixture
def written(tmp_path):
    """``written(values, RescaleSlope=1, …)``: the path of a file with these tags."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(values, **tags):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        held = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        held.SOPClassUID = CTImageStorage
        held.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        if values is not None:
            held.Rows, held.Columns = values.shape[:2]
            held.SamplesPerPixel = 1 if values.ndim == 2 else 3
            held.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
            if values.ndim == 3:
                held.PlanarConfiguration = 0
            held.BitsAllocated = held.BitsStored = values.dtype.itemsize * 8
            held.HighBit = held.BitsStored - 1
            held.PixelRepresentation = int(values.dtype.kind == "i")
            held.PixelData = values.tobytes()
        for name, value in tags.items():
            setattr(held, name, value)
        held.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        return tmp_path / "image.dcm"

    return write


def grey(file, bounds=None):
    pixels = np.asarray(decode(file, bounds).image)
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


@pytest.mark.parametrize("slope, intercept", [(1, -1024), (2, 0), (0.5, 10.25)])
def test_values_are_rescaled_as_the_file_says(written, slope, intercept):
    file = written(WIDE, RescaleSlope=slope, RescaleIntercept=intercept)
    assert is_image(file.name) and size_of(file) == (30, 20)
    values = WIDE.astype(float) * slope + intercept
    np.testing.assert_array_equal(read_channels(file, 1)[:, :, 0], values)
    wanted = np.clip(np.rint((values + 160) * (255 / 400)), 0, 255)
    np.testing.assert_array_equal(grey(file, (-160, 240)), wanted)
    assert find_range([file]).range[0] <= values.min() + 100


def test_signed_values(written):
    values = WIDE.astype(np.int16) - 1000
    np.testing.assert_array_equal(read_channels(written(values), 1)[:, :, 0], values)


@pytest.mark.parametrize("kind, wanted", [("MONOCHROME2", NARROW), ("MONOCHROME1", 255 - NARROW)])
def test_eight_bits_mean_themselves(written, kind, wanted):
    np.testing.assert_array_equal(grey(written(NARROW, PhotometricInterpretation=kind)), wanted)


def test_the_least_value_of_monochrome1_is_the_brightest(written):
    file = written(WIDE, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_channels(file, 1)[:, :, 0], -WIDE.astype(np.int32))


def test_colour_and_a_stream(written):
    file = written(COLOUR)
    for source in (file, io.BytesIO(file.read_bytes())):
        np.testing.assert_array_equal(np.asarray(decode(source).image), COLOUR)


def test_the_first_of_several_frames(written):
    frames = np.stack([NARROW, 255 - NARROW])
    file = written(NARROW, NumberOfFrames=2, PixelData=frames.tobytes())
    np.testing.assert_array_equal(grey(file), NARROW)


def test_what_is_no_image_and_what_is_cut_has_a_reason(written, tmp_path):
    with pytest.raises(UnreadableImage, match="without an image"):
        decode(written(None))
    whole = written(WIDE).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-500])
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "cut.dcm")
    (tmp_path / "other.dcm").write_bytes(b"no DICOM" * 100)
    with pytest.raises(UnreadableImage, match="no image of a format"):
        decode(tmp_path / "other.dcm")


def test_without_pydicom_they_are_left_out_and_the_extra_is_named():
    code = """
import sys
sys.modules["pydicom"] = None  # as if it were not installed
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "pydicom" else find(name, *rest)
from densessl.decoding import describe_left_out, is_image
print(is_image("a.dcm"), describe_left_out({".dcm": 3}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False") and "densessl[dicom]" in done.stdout
