"""Truncated JPEGs, which are used as far as they go (``DATA.TRUNCATED``)."""

import io
import re

from .files import File, content_of
from .regions import Region

SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xda-\xdd]", re.DOTALL)  # that has a length
BEGIN, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def ended(file: File | Region) -> io.BytesIO | Region | None:
    """The bytes of a JPEG that was cut within its pixels, with an end: what is missing decodes as
    grey, or as the coarse picture that a progressive one has had. Of a region: that of such bytes.
    None for every other file."""
    if isinstance(file, Region):
        whole = _ended(file.file)
        return Region(whole, file.box) if whole else None
    return _ended(file)


def _ended(file: File) -> io.BytesIO | None:
    try:
        data = content_of(file)
    except OSError:
        return None
    if not data.startswith(BEGIN) or SCAN not in data or data.rstrip(b"\0").endswith(END):
        return None
    return io.BytesIO(_without_part(data) + END)


def _without_part(data: bytes) -> bytes:
    """Less a segment that the cut goes through: its own length says that there was more."""
    places = [found.start() for found in SEGMENT.finditer(data)]
    last = places[-1] if places else 0
    length = int.from_bytes(data[last + 2 : last + 4], "big")
    return data[:last] if last and last + 2 + max(length, 2) > len(data) else data
