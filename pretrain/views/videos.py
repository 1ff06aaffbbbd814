"""Videos as a source of images: each counts as the frames at a rate, and a sample reads its own."""

import hashlib
import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from fvcore.common.config import CfgNode

from densessl.core import pool, waiting
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.lock import locked
from densessl.core.names import one_line
from densessl.core.progress import Bar
from densessl.core.remote import is_remote
from densessl.core.units import many
from densessl.core.waiting import TIMEOUT
from densessl.decoding import UnreadableImage, is_video, reasons
from densessl.decoding.frames import BACK, KEY, FrameFile, Version, VideoFrame, name_of, starting

from . import kept
from .sources import ImageSource, part_of

if TYPE_CHECKING:
    from densessl.decoding.videos import VideoIndex

KIND = "videos"  # of kept files
VERSION = 1  # of the kept files
WORKERS = 4  # processes that read the videos, unless DATA.WORKERS says how many
MB = 1 << 20
NAMED = 5  # videos that a message names

logger = logging.getLogger("densessl")


def _none(*columns: int) -> np.ndarray:
    return np.empty((0, *columns), dtype=np.int64)


@dataclass(frozen=True)
class Taken:
    """The frames of a video that are images: ``numbers``, ``packets`` and ``rows``, int64 [n].

    ``rows`` are those of ``keys`` where decoding begins. Of an unreadable video there is no frame,
    and ``reason`` says why; of a readable one that is damaged, what its index says of it.
    """

    version: Version
    reason: str = ""
    numbers: np.ndarray = field(default_factory=_none)
    packets: np.ndarray = field(default_factory=_none)
    rows: np.ndarray = field(default_factory=_none)
    keys: np.ndarray = field(default_factory=lambda: _none(len(KEY)))
    size: tuple[int, int] = (0, 0)
    turn: int = 1


class VideoSource(ImageSource):
    """The images of ``whole``, and of its videos the frames that are ``taken``, by number in it.

    They lie where their video does in the order of the names. A video that cannot be read is one
    image that cannot be read.
    """

    def __init__(self, whole: ImageSource, rate: float, taken: dict[int, Taken]):
        self.whole, self.rate = whole, rate
        self.root, self.where, self.left_out = whole.root, whole.where, whole.left_out
        self.videos, self.frames = len(taken), sum(len(each.numbers) for each in taken.values())
        self._videos = np.array(sorted(taken), dtype=np.int64)
        found = [taken[int(number)] for number in self._videos]
        counts = np.ones(len(whole), dtype=np.int64)
        counts[self._videos] = [max(len(each.numbers), 1) for each in found]
        self._ends = np.cumsum(counts)
        self._reasons = {n: each.reason for n, each in taken.items() if not len(each.numbers)}
        # In few arrays, which loader processes share: objects would be copied into each of them.
        self._first = np.cumsum([0, *(len(each.numbers) for each in found)])
        self._first_key = np.cumsum([0, *(len(each.keys) for each in found)])
        self._numbers, self._packets, self._rows, self._keys = (
            np.concatenate([getattr(each, name) for each in found])
            for name in ("numbers", "packets", "rows", "keys")
        )
        self._facts = np.array(
            [[*each.version, *each.size, each.turn] for each in found], dtype=np.int64
        )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _find(self, index: int) -> tuple[int, int | None]:
        """Of an image its number in ``whole``; of a frame also its place among all frames."""
        number, part = part_of(self._ends, index)
        video = int(np.searchsorted(self._videos, number))
        if video == len(self._videos) or self._videos[video] != number or number in self._reasons:
            return number, None
        return number, int(self._first[video]) + part

    def name(self, index: int) -> str:
        number, place = self._find(index)
        name = self.whole.name(number)
        return name if place is None else name_of(name, int(self._numbers[place]))

    def path(self, index: int) -> str:
        number, place = self._find(index)
        path = self.whole.path(number)
        return path if place is None else name_of(path, int(self._numbers[place]))

    def open(self, index: int) -> str | BinaryIO:
        """As of other sources; a frame as a file. UnreadableImage for a video that is none."""
        number, place = self._find(index)
        if number in self._reasons:
            raise UnreadableImage(self._reasons[number])
        return self.whole.open(number) if place is None else self._frame(number, place)

    def _frame(self, number: int, place: int) -> BinaryIO:
        video = int(np.searchsorted(self._videos, number))
        bytes_, changed, width, height, turn = self._facts[video].tolist()
        keys = self._keys[self._first_key[video] : self._first_key[video + 1]]
        frame = VideoFrame(
            self.whole.path(number),
            (bytes_, changed),
            int(self._numbers[place]),
            int(self._packets[place]),
            starting(keys, int(self._rows[place])),
            (width, height),
            turn,
        )
        return cast(BinaryIO, FrameFile(frame, bytes_ if place == self._first[video] else 0))

    def fingerprint(self) -> str:
        """A SHA-256 of the images' own and of which frames there are."""
        digest = hashlib.sha256(self.whole.fingerprint().encode())
        for each in (self._videos, self._first, self._numbers, self._packets, self._facts[:, 2:]):
            digest.update(each.astype("<i8").tobytes())
        return digest.hexdigest()


def with_frames(whole: ImageSource, data: CfgNode) -> ImageSource:
    """The images of ``whole`` and, at ``DATA.FRAME_RATE``, the frames of its videos.

    Raises EnvironmentLacks where there are videos, and PyAV is not installed.
    """
    videos = [number for number in range(len(whole)) if is_video(whole.name(number))]
    if not videos:
        logger.info("there is no video in %s (DATA.FRAME_RATE %g)", whole.where, data.FRAME_RATE)
        return whole
    require_pyav()
    for path in filter(is_remote, map(whole.path, videos)):
        raise InputError(
            f"DATA.FRAME_RATE is {data.FRAME_RATE:g}, and {path} is a video beyond the disk; copy "
            "the videos to a disk, or give DATA.FRAME_RATE 0"
        )
    rate = Fraction(str(data.FRAME_RATE))
    workers, seconds = data.get("WORKERS", WORKERS), data.get("TIMEOUT", TIMEOUT)
    taken = _read(whole, videos, rate, workers, seconds)
    source = VideoSource(whole, data.FRAME_RATE, taken)
    logger.info(
        "%s of %s, at %g a second (DATA.FRAME_RATE), and %s",
        many(source.frames, "frame"),
        many(len(videos), "video"),
        data.FRAME_RATE,
        many(len(whole) - len(videos), "image"),
    )
    damaged = [number for number in videos if taken[number].reason]
    for number in damaged[:NAMED]:
        each = taken[number]
        logger.warning(
            "%s: %s; %s of it",
            one_line(whole.path(number)),
            each.reason,
            f"{many(len(each.numbers), 'frame')} are used" if len(each.numbers) else "no frame",
        )
    if len(damaged) > NAMED:
        logger.warning("%d more videos are damaged, or none", len(damaged) - NAMED)
    return source


def require_pyav() -> None:
    """EnvironmentLacks where the package that reads videos cannot be imported."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise EnvironmentLacks(
            f"DATA.FRAME_RATE: videos are read by PyAV, which cannot be imported ({error}); fix it "
            "with: pip install 'densessl[video]', or leave videos out by DATA.FRAME_RATE 0"
        ) from None


def _read(
    whole: ImageSource, videos: list[int], rate: Fraction, workers: int, seconds: float
) -> dict[int, Taken]:
    """The frames of each video; one process of a machine reads them at a time, and keeps what the
    others need."""
    sizes = [_bytes(whole.path(number)) // MB for number in videos]
    work = partial(_taken, whole, rate, seconds)
    found: dict[int, Taken] = {}
    with ExitStack() as stack:
        if above := kept.folder(KIND):
            with suppress(OSError):  # nothing can be kept there
                lock = above / f"{whole.fingerprint()[:16]}.lock"
                stack.enter_context(locked(lock, None))
        # Forked processes share the names; they start before the progress bar and its thread.
        count = min(workers, len(videos))
        ready = stack.enter_context(
            pool.results(work, videos, count, forked=True, at_once=True, option="DATA.WORKERS")
        )
        bar = stack.enter_context(Bar("index of the videos, MB", sum(sizes)))
        for number, size, each in zip(videos, sizes, ready, strict=True):
            found[number] = each
            bar.advance(size)
    return found


def _bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _taken(whole: ImageSource, rate: Fraction, seconds: float, number: int) -> Taken:
    """The frames of one video; EnvironmentLacks where for ``seconds`` (0: no limit) none of it
    comes: of which frames there are must not depend on the machine."""
    from densessl.decoding.videos import read_index, version_of

    path = whole.path(number)
    late = EnvironmentLacks(
        f"{one_line(path)} has not been read on for {seconds:g} s (DATA.TIMEOUT; 0: no limit); see "
        "whether its disk or network mount answers"
    )
    version = (0, 0)
    try:
        with waiting.wait(seconds, lambda: late) as wait, reasons():
            version = version_of(path)
            index = _kept(path, version)
            if index is None:
                index = read_index(path, lambda done: wait.again())
                _keep(path, version, index)
    except UnreadableImage as error:
        return Taken(version, str(error))
    numbers = index.at_rate(rate)
    starts = index.starts(numbers)
    rows = np.unique(np.maximum(starts[:, None] - np.arange(BACK + 1), 0))
    packets, keys = index.packets[numbers], index.keys[rows]
    places = np.searchsorted(rows, starts)
    return Taken(version, index.damage, numbers, packets, places, keys, index.size, index.turn)


def _kept(path: str, version: Version) -> "VideoIndex | None":
    from densessl.decoding.videos import VideoIndex

    def read(saved: Mapping[str, np.ndarray]) -> VideoIndex | None:
        index = VideoIndex(
            packets=saved["packets"],
            times=saved["times"],
            unit=Fraction(*saved["unit"].tolist()),
            keys=saved["keys"],
            size=tuple(saved["size"].tolist()),
            turn=int(saved["turn"]),
            damage=str(saved["damage"]),
        )
        return index if index.is_sound() else None

    return kept.load(kept.of_user(KIND, path), (VERSION, *version), read)


def _keep(path: str, version: Version, index: "VideoIndex") -> None:
    unit = index.unit.as_integer_ratio()
    arrays = {name: np.array(each) for name, each in {**vars(index), "unit": unit}.items()}
    kept.keep(kept.of_user(KIND, path), (VERSION, *version), arrays)
