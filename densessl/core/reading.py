"""Which image each loader process is at, for the process that waits for them."""

import mmap
import struct
import time

ROW = struct.Struct("qd")  # number of the image, when its reading began

_row: memoryview | None = None  # of this process


def reading(number: int) -> None:
    """Note that this process now reads image ``number``; below 0: none."""
    if _row is not None:
        ROW.pack_into(_row, 0, number, time.monotonic())


class Reports:
    """A row for each of ``workers`` processes that are forked hereafter, or for this one (0)."""

    def __init__(self, workers: int):
        self._rows = max(workers, 1)
        self._memory = mmap.mmap(-1, self._rows * ROW.size)
        for row in range(self._rows):
            ROW.pack_into(self._memory, row * ROW.size, -1, 0.0)

    def take(self, worker: int = 0) -> None:
        """:func:`reading` in this process fills the row of ``worker`` from now on."""
        global _row
        _row = memoryview(self._memory)[worker * ROW.size : (worker + 1) * ROW.size]

    def longest(self) -> tuple[int, int] | None:
        """Worker and image of the reading that began first and has not ended; None without one."""
        rows = (ROW.unpack_from(self._memory, row * ROW.size) for row in range(self._rows))
        begun = [
            (since, worker, number) for worker, (number, since) in enumerate(rows) if number >= 0
        ]
        return min(begun)[1:] if begun else None
