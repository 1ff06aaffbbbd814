"""Waits that end: when they take too long, and when the process is asked to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import watchdog
from .errors import Interrupted

_asked = False  # whether a stop was asked for since forget()


@dataclass
class _Wait:
    """The innermost wait of this process."""

    seconds: float
    late: Callable[[], Exception]
    grace: float  # seconds that it may still take once a stop was asked for

    def again(self) -> None:
        """Begin the time anew: what was waited for has come, and the next is."""
        if not _asked:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def interrupt(self) -> None:
        if not self.grace:
            raise _interrupted()
        signal.setitimer(signal.ITIMER_REAL, self.grace)


class _Nowhere(_Wait):
    """One that signals do not reach."""

    def again(self) -> None:
        pass


def _interrupted() -> Interrupted:
    return Interrupted(MESSAGE)


TIMEOUT = 120.0  # seconds that an image, or a batch, may take by default
MESSAGE = "stopped while waiting; the same command resumes from what is saved"
_current: _Wait | None = None


def ask() -> None:
    """For the handler of a signal that asks to stop, as the last thing that it does.

    Raises Interrupted where the process waits, or lets it be raised after the wait's grace.
    """
    global _asked
    _asked = True
    if _current is not None:
        _current.interrupt()


def asked() -> bool:
    """Whether a stop was asked for since :func:`forget`; who looks is not stuck."""
    watchdog.beat()
    return _asked


def forget() -> None:
    """From here on no stop was asked for."""
    global _asked
    _asked = False


@contextmanager
def wait(
    seconds: float = 0.0, late: Callable[[], Exception] | None = None, grace: float = 0.0
) -> Iterator["_Wait"]:
    """A block that waits: it ends with the error ``late()`` after ``seconds`` (0: never), and with
    Interrupted ``grace`` seconds after a stop was asked for.

    Signals reach the main thread alone, so elsewhere it is a plain block. Waits may be nested, and
    the innermost decides; what they have left of their time is kept.
    """
    global _current
    if threading.current_thread() is not threading.main_thread():
        yield _Nowhere(0.0, _interrupted, 0.0)
        return
    outer, _current = _current, _Wait(seconds, late or _interrupted, grace)
    handler = signal.signal(signal.SIGALRM, _ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        if _asked:
            _current.interrupt()
        yield _current
    finally:
        _current = outer
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left)


def _ring(number: int, frame) -> None:
    if _current is not None:
        raise _interrupted() if _asked else _current.late()
