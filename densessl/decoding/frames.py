"""A frame of a video: where it is found, and the same as a file. Importing it needs no PyAV."""

import io
import os
from typing import Any, NamedTuple

import numpy as np

Version = tuple[int, int]  # of a file: bytes, and when it was changed, ns
FRAGMENT = "#frame="  # before the number of a frame
BACK = 2  # key frames before that at which decoding begins, from which it may do, too
KEY = ("number", "position", "shown", "pts", "dts")  # what is known of a key frame's packet


class VideoFrame(NamedTuple):
    """A frame of the video at ``path``, which was of ``version``.

    ``number``: in the order in which they are shown; ``packet``: its own; ``keys``: where its
    decoding begins, as in VideoIndex, and those before, from which it does where the first does not
    suffice (frames after a key frame may let go of some before it; videos whose blocks are renewed
    one by one have key frames that are none); ``size``: width and height, upright; ``turn``: EXIF's
    number of what makes it so, 0 where the video is yet to be asked.
    """

    path: str
    version: Version
    number: int
    packet: int
    keys: tuple[tuple[int, ...], ...]
    size: tuple[int, int]
    turn: int


def starting(keys: np.ndarray, row: int) -> tuple[tuple[int, ...], ...]:
    """What VideoFrame calls so, of a frame whose decoding begins in ``row`` of ``keys``."""
    return tuple(tuple(each) for each in keys[max(row - BACK, 0) : row + 1][::-1].tolist())


def name_of(name: str, number: int) -> str:
    """A frame as messages name it: ``drive.mp4#frame=250``, the first is 0."""
    return f"{name}{FRAGMENT}{number}"


class FrameFile(io.RawIOBase):
    """A frame as a file: a PPM, of which the pixels are decoded when they are first read.

    So all that is done with the files of images is done with frames, and the size of one, which
    is in the header, costs nothing. ``length``: bytes of the video for which it stands.
    """

    def __init__(self, frame: VideoFrame, length: int = 0):
        self.frame, self.length = frame, length
        # Longer than what Pillow reads of a file to see what it is.
        self._header = b"P6 %12d %12d 255\n" % frame.size
        self._size = len(self._header) + 3 * frame.size[0] * frame.size[1]
        self._content: memoryview | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readall(self) -> bytes:
        start, self._at = self._at, self._size
        return bytes(self._bytes(self._size)[start:])

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._size - self._at), 0)
        end = self._at + count
        buffer[:count] = self._bytes(end)[self._at : end]
        self._at = end
        return count

    def _bytes(self, end: int) -> memoryview:
        if self._content is None and end <= len(self._header):
            return memoryview(self._header)
        if self._content is None:
            from .videos import pixels

            self._content = memoryview(self._header + pixels(self.frame).tobytes())
        return self._content
