"""DICOM for Pillow, by pydicom: the first frame of a file, as whole numbers, floats or RGB.

Imported where pydicom is installed (the extra ``dicom``); pydicom itself with the first such file.
"""

from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

PREAMBLE, MARK = 128, b"DICM"


class DicomFile(ImageFile.StubImageFile):
    """What a file's header says; its pixels are decoded when they are asked for."""

    format, format_description = "DICOM", "Digital Imaging and Communications in Medicine"

    fp: BinaryIO

    def _open(self) -> None:
        if self.fp.read(PREAMBLE + len(MARK))[PREAMBLE:] != MARK:
            raise SyntaxError("not a DICOM file")
        from pydicom import dcmread

        self.fp.seek(0)
        header = dcmread(self.fp, stop_before_pixels=True)
        if "Rows" not in header:
            raise ValueError("a DICOM file without an image")
        self._size = header.Columns, header.Rows
        self._mode = _mode(header)

    def _load(self) -> Any:
        return self

    def load(self, image: ImageFile.StubImageFile | None = None) -> Any:
        """As Pillow asks: of the image itself, and of this, its loader, with the image."""
        if image is None:
            return super().load()
        from pydicom import dcmread

        self.fp.seek(0)
        return _image(dcmread(self.fp), self._mode)


def _mode(header: Any) -> str:
    """Pillow's: RGB; L of 8 bits that mean themselves; I of whole numbers; F."""
    if header.get("SamplesPerPixel", 1) > 1:
        return "RGB"
    if "FloatPixelData" in header or "ModalityLUTSequence" in header:
        return "F"
    scale = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    if scale == (1, 0):
        return "L" if header.BitsAllocated == 8 and not header.PixelRepresentation else "I"
    return "I" if all(value.is_integer() for value in scale) else "F"


def _image(held: Any, mode: str) -> Image.Image:
    """Rescaled as the file says (a CT in Hounsfield units); MONOCHROME1, where the least value is
    the brightest, with its sign changed."""
    from pydicom.pixels import apply_modality_lut, pixel_array

    values = pixel_array(held, index=0)
    if mode == "RGB":
        return Image.fromarray(values)
    if mode == "L":
        return Image.fromarray(255 - values if _inverted(held) else values)
    values = apply_modality_lut(values, held)
    values = values.astype(np.int32 if mode == "I" else np.float32)
    return Image.fromarray(-values if _inverted(held) else values)


def _inverted(held: Any) -> bool:
    return held.get("PhotometricInterpretation") == "MONOCHROME1"


Image.register_open(DicomFile.format, DicomFile)
