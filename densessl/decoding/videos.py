"""Frames of videos, by PyAV: where each is stored, and one of them without those far from it.

A frame is known by the number of its packet in the file, in the order of decoding, which the
decoder carries along: neither seeking, which lands where it likes, nor the order of output can
mistake it for another. Decoding begins at the last key frame that is shown before it.

Imported where PyAV is installed (the extra ``video``), which brings FFmpeg's libraries with it.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream
from PIL import Image

from densessl.core.files import require_file

from .files import UnreadableImage, reasons
from .frames import KEY, Version, VideoFrame, starting
from .orientation import TURNS

NONE = np.iinfo(np.int64).min  # a time that is not known
OPEN = 2  # videos that a process keeps open: a decoder holds up to 17 frames
BEYOND = 64  # packets after a frame's own that may be decoded until it is shown
ATTEMPTS = 3  # key frames that are tried for the size
BUFFER = 1 << 16  # bytes that are read at a time
BLOCK = 1000  # packets between two reports of progress
HIDING = ("vp8",)  # codecs with packets that are never shown
SKIPS = ("h264",)  # codecs whose packets say whether other frames need them
UNTIMED = ("avi",)  # formats that do not say when a packet is shown
SOURCE = ("_file", "container", "stream", "context")  # of an open video
# Of a display matrix, the signs of a, b, c and d, and EXIF's number of the same turn.
MATRICES = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video in the order in which they are shown.

    ``packets`` int64 [n]: the packet of each. ``times`` int64 [n], in units of ``unit`` seconds:
    when it is shown. ``keys`` int64 [m, 5]: of each key frame what KEY names. ``size``, ``turn``:
    as VideoFrame has them. ``damage``: why there may be fewer frames than the file should have;
    empty where nothing is known to be missing.
    """

    packets: np.ndarray
    times: np.ndarray
    unit: Fraction
    keys: np.ndarray
    size: tuple[int, int]
    turn: int
    damage: str

    def at_rate(self, rate: Fraction) -> np.ndarray:
        """Numbers of the frames at ``rate`` a second: of each such part of a second the first; all
        where the video has no more."""
        since = (self.times - self.times[0]).astype(object)  # whole numbers without a limit
        part = np.array([each * self.unit * rate // 1 for each in since], dtype=np.int64)
        return np.flatnonzero(np.diff(part, prepend=-1) > 0)

    def is_sound(self) -> bool:
        """Whether it can be the index of a video: one that was kept may be damaged."""
        count = len(self.packets)
        return (
            self.packets.dtype == self.times.dtype == self.keys.dtype == np.int64
            and self.packets.shape == self.times.shape == (count,)
            and self.keys.ndim == 2
            and self.keys.shape[1] == len(KEY)
            and count > 0
            and len(self.keys) > 0
            and min(self.size) > 0
        )

    def starts(self, numbers: np.ndarray) -> np.ndarray:
        """The row in ``keys`` at which the decoding of each frame of these numbers begins."""
        shown, stored = self.keys[:, KEY.index("shown")], self.keys[:, KEY.index("number")]
        rows = np.maximum(np.searchsorted(shown, numbers, side="right") - 1, 0)
        return np.minimum(rows, np.searchsorted(stored, self.packets[numbers], side="right") - 1)


def version_of(path: str) -> Version:
    """What is compared to see whether a video has changed."""
    require_file(path)
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


# ---- the index ----


def read_index(path: str, passed: Callable[[int], None] = lambda done: None) -> VideoIndex:
    """The index of a video, from its packets; where these have no times, from all of its frames.

    ``passed(bytes)`` is called with the progress. Raises UnreadableImage for a file without a frame
    that can be decoded.
    """
    with _reasons():
        video = _Video(path)
        packets = _Packets(video, passed)
        if not packets.rows:
            raise UnreadableImage("a video without a frame")
        table = np.array(packets.rows, dtype=np.int64)
        timed = packets.are_timed(table, video)
        order = packets.order(table) if timed else _decoded_order(path, passed)
        if not len(order):
            raise UnreadableImage("a video of which no frame can be decoded")
        times, unit = packets.times(table, order, video)
        index = VideoIndex(
            order, times, unit, packets.keys(table, order), (0, 0), 0, packets.damage(video)
        )
    return _with_size(path, index)


class _Packets:
    """The packets of a video: number is the place in ``rows``; a row is pts, dts, position, and
    whether it is a key frame, and shown."""

    def __init__(self, video: "_Video", passed: Callable[[int], None]):
        self.rows: list[tuple[int, int, int, bool, bool]] = []
        self.error = ""
        try:
            for packet in video.demux():
                self.rows.append(
                    (
                        NONE if packet.pts is None else packet.pts,
                        NONE if packet.dts is None else packet.dts,
                        -1 if packet.pos is None else packet.pos,
                        packet.is_keyframe,
                        not packet.is_discard,
                    )
                )
                if packet.is_corrupt:
                    self.error = "cut off within a frame"
                if len(self.rows) % BLOCK == 0:
                    passed(max(packet.pos or 0, 0))
        except av.FFmpegError as error:
            self.error = _words(error)

    def are_timed(self, table: np.ndarray, video: "_Video") -> bool:
        """Whether each packet is of a frame, and says when it is shown, and no two the same."""
        pts = table[table[:, 4] > 0, 0]
        if not len(pts) or pts.min() == NONE or len(np.unique(pts)) < len(pts):
            return False
        untimed = video.container.format.name in UNTIMED and not table[:, 3].all()
        return not untimed and video.context.name not in HIDING

    def order(self, table: np.ndarray) -> np.ndarray:
        """Those that are shown, as they are; without what comes before the first key frame."""
        keys = np.flatnonzero(table[:, 3])
        first = int(keys[0]) if len(keys) else 0
        shown = np.flatnonzero(table[:, 4] > 0)
        kept = shown[(shown >= first) & (table[shown, 0] >= table[first, 0])]
        return kept[np.argsort(table[kept, 0], kind="stable")]

    def times(
        self, table: np.ndarray, order: np.ndarray, video: "_Video"
    ) -> tuple[np.ndarray, Fraction]:
        """When each is shown: as its packet says; else as they were stored, or at an even rate."""
        unit = video.stream.time_base
        for column in (0, 1):
            found = np.sort(table[order, column])
            if unit and found[0] > NONE and (np.diff(found) > 0).all():
                return found, unit
        rate = video.stream.average_rate or video.stream.guessed_rate or 25
        return np.arange(len(order)), 1 / Fraction(rate)

    def keys(self, table: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The key frames; of a video that names none, the first packet."""
        numbers = np.flatnonzero(table[:, 3])
        numbers = numbers if len(numbers) else np.zeros(1, dtype=np.int64)
        place = np.full(len(table), -1)
        place[order] = np.arange(len(order))
        shown = place[numbers]
        if hidden := [*np.flatnonzero(shown < 0)]:  # before the cut of an edit list
            pts = np.maximum(table[numbers[hidden], 0], table[order, 0].min())
            shown[hidden] = np.searchsorted(table[order, 0], pts)
        rows = np.column_stack([numbers, table[numbers, 2], shown, table[numbers, :2]])
        return rows[np.append(True, np.diff(shown) > 0)]

    def damage(self, video: "_Video") -> str:
        declared = video.stream.frames
        if self.error:
            return self.error
        if declared > len(self.rows):
            return f"cut off: {len(self.rows)} frames of {declared} are there"
        return ""


def _decoded_order(path: str, passed: Callable[[int], None]) -> np.ndarray:
    """The packets of the frames in the order in which a decoder gives them."""
    video = _Video(path, strict=False)
    found: dict[Any, None] = {}
    for number, packet in enumerate(video.demux(ended=True)):
        packet.pts = number
        with suppress(av.FFmpegError):  # frames that depend on it fail when they are read
            found |= dict.fromkeys(frame.pts for frame in video.context.decode(packet))
        if number % BLOCK == 0:
            passed(max(packet.pos or 0, 0))
    return np.array([*found], dtype=np.int64)


def _with_size(path: str, index: VideoIndex) -> VideoIndex:
    """With the size of the first frame that can be decoded; UnreadableImage where none can."""
    places = np.linspace(0, len(index.keys) - 1, ATTEMPTS).astype(int)
    reason = ""
    for row in dict.fromkeys(places.tolist()):
        number = min(int(index.keys[row, KEY.index("shown")]), len(index.packets) - 1)
        (start,) = index.starts(np.array([number])).tolist()
        keys = starting(index.keys, start)
        frame = VideoFrame(
            path, version_of(path), number, int(index.packets[number]), keys, (0, 0), 0
        )
        try:
            height, width = pixels(frame).shape[:2]
        except UnreadableImage as error:
            reason = reason or str(error)
            continue
        return replace(index, size=(width, height), turn=_opened(frame).turn)
    raise UnreadableImage(reason)


# ---- a frame ----


def pixels(frame: VideoFrame) -> np.ndarray:
    """A frame as upright RGB, uint8 ``[h, w, 3]``.

    UnreadableImage where it, or one that it is coded after, is damaged; OSError where the file is
    not as it was.
    """
    video = _opened(frame)
    try:
        with _reasons():
            found = video.frame(frame)
    except BaseException:
        _close(frame.path)
        raise
    height, width = found.shape[:2]
    if frame.size not in ((0, 0), (width, height)):
        raise UnreadableImage(f"{width} x {height} pixels, in a video of {frame.size}")
    return found


# ---- decoding ----


class _Video:
    """An open video, and where its decoder is; ``strict``: what is damaged is an error."""

    def __init__(self, path: str, strict: bool = True):
        self.path, self.version = path, version_of(path)
        if not self.version[0]:
            raise UnreadableImage("empty (0 bytes)")
        # By Python's file: a read that does not return can be ended there, and not within FFmpeg.
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (until nobody needs it)
        self.container = av.open(self._file, "r", metadata_errors="replace", buffer_size=BUFFER)
        stream = self.container.streams.best("video")
        if stream is None:
            raise UnreadableImage("a file without a video")
        self.stream = cast(VideoStream, stream)
        self.context: VideoCodecContext = self.stream.codec_context
        self.context.thread_count = 1  # loader processes are what runs at once
        if strict:
            self.context.options = {"err_detect": "explode"}
        self._packets: Iterator[tuple[int, Any]] | None = None  # from which decoding can continue
        self.began = self.sent = -1  # numbers of packets
        self.turn = 1  # of the frame that was asked for it last

    def close(self) -> None:
        """Let go of all that it holds: PyAV's objects refer to each other, and would wait for the
        garbage collector."""
        self._packets = None
        if hasattr(self, "container"):
            self.container.close()
        for name in SOURCE:
            vars(self).pop(name, None)

    def demux(self, ended: bool = False) -> Iterator[Any]:
        """Its packets; ``ended``: and the empty one that has a decoder give what it holds."""
        return (each for each in self.container.demux(self.stream) if ended or each.size)

    def frame(self, wanted: VideoFrame) -> np.ndarray:
        """Upright RGB. Frames that are asked for one after the other are decoded in one go."""
        follows = self.began <= wanted.keys[0][0] <= self.sent < wanted.packet
        if follows and self._packets:
            with suppress(av.FFmpegError, UnreadableImage):  # of a frame before it, perhaps
                return self._decoded(wanted, self._packets)
        failed: Exception | None = None
        for key in wanted.keys:
            packets, self.began = self._from(key), key[0]
            self._packets = packets if follows else None
            try:
                return self._decoded(wanted, packets)
            except (av.FFmpegError, UnreadableImage) as error:
                failed = failed or error
        raise failed or UnreadableImage("a video without a key frame")

    def _decoded(self, wanted: VideoFrame, packets: Iterator[tuple[int, Any]]) -> np.ndarray:
        """The frame, once its packet has been decoded, and those that the decoder wants to see
        before it gives the frame: none where it is asked to end."""
        first, is_whole = wanted.keys[0][0], True
        for number, packet in packets:
            if number > wanted.packet + BEYOND:
                break
            if packet.is_corrupt and number <= wanted.packet:
                raise UnreadableImage("the video is cut off within this frame, or one before it")
            self.sent = number
            packet.pts = number
            if self.context.name in SKIPS:  # frames that no other needs, but for this one
                self.context.skip_frame = "NONREF" if number != wanted.packet else "DEFAULT"
            try:
                frames = self.context.decode(packet)
            except av.FFmpegError:
                if number < first:  # it refers to what is before the key frame that was begun with
                    is_whole = False
                    continue
                if number <= wanted.packet:
                    raise
                break  # it may be held back, and what is damaged comes after it
            for frame in frames:
                is_whole |= frame.pts == first and frame.pict_type == PictureType.I
                if frame.pts == wanted.packet and is_whole:
                    return self._upright(frame, wanted.turn)
            if number == wanted.packet and not self._packets:
                break
        self._packets = None  # no decoding can continue from here
        with suppress(av.EOFError):  # it has given them already
            for frame in self.context.decode(None):
                is_whole |= frame.pts == first and frame.pict_type == PictureType.I
                if frame.pts == wanted.packet and is_whole:
                    return self._upright(frame, wanted.turn)
        raise UnreadableImage("this frame of the video is not decoded, as if it were damaged")

    def _upright(self, frame: Any, turn: int) -> np.ndarray:
        if not turn:  # a frame that is asked stays until garbage is collected: one of a video is
            self.turn = turn = _turn(frame)
        values = frame.to_ndarray(format="rgb24", threads=1)
        if turn in TURNS:
            values = np.asarray(Image.fromarray(values).transpose(TURNS[turn]))
        return values

    def _from(self, key: tuple[int, ...]) -> Iterator[tuple[int, Any]]:
        """The packets from a key frame on, with their numbers; those left out that are shown before
        it, which need frames before it."""
        first, _, _, pts, _ = key
        for number, packet in enumerate(self._found(key), first):
            leads = number > first and pts != NONE and packet.pts is not None and packet.pts < pts
            if not leads:
                yield number, packet

    def _found(self, key: tuple[int, ...]) -> Iterator[Any]:
        """The packets from a key frame on, wherever seeking lands."""
        _, position, _, pts, dts = key
        for target in (pts, dts):
            if target == NONE or position < 0:
                continue
            try:
                self.container.seek(target, stream=self.stream)
            except av.FFmpegError:
                continue
            for packet in (packets := self.demux(ended=True)):
                if packet.pos == position:
                    yield packet
                    yield from packets
                    return
                late = packet.dts is not None and dts != NONE and packet.dts > dts
                if late or not packet.size:
                    break
        again = _Video(self.path)
        vars(self).update({name: vars(again)[name] for name in SOURCE})
        vars(again).clear()
        for number, packet in enumerate(packets := self.demux(ended=True)):
            if number == key[0]:
                yield packet
                yield from packets


def _turn(frame: Any) -> int:
    """EXIF's number for a frame's display matrix; 1 for none, and for what is no quarter turn."""
    held = frame.side_data.get(SideData.DISPLAYMATRIX)
    if held is None:
        return 1
    a, b, _, c, d = np.sign(np.frombuffer(held, dtype="<i4")[:5]).tolist()
    return MATRICES.get((a, b, c, d), 1)


_videos: "OrderedDict[str, _Video]" = OrderedDict()  # of this process, the latest last
_owner = 0


def _opened(frame: VideoFrame) -> _Video:
    """The video of a frame, open; OSError where it is another one by now."""
    global _owner
    if _owner != os.getpid():  # a file that was open before a fork has one position for both
        _videos.clear()
        _owner = os.getpid()
    video = _videos.pop(frame.path, None)
    if video is None or video.version != frame.version:
        with _reasons():
            video = _Video(frame.path)
    if video.version != frame.version:
        raise OSError(errno.ESTALE, "the video has changed since the start", frame.path)
    _videos[frame.path] = video
    while len(_videos) > OPEN:
        _videos.popitem(last=False)[1].close()
    return video


def _close(path: str) -> None:
    if video := _videos.pop(path, None):
        video.close()


@contextmanager
def _reasons() -> Iterator[None]:
    """As :func:`files.reasons`; FFmpeg's words without the file's name."""
    with reasons():
        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError | MemoryError):
                raise
            raise UnreadableImage(f"no video, or damaged ({_words(error)})") from None


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)
