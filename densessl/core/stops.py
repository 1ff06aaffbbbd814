"""Signals that ask for a stop: what a handler does while a block runs, and what it did before."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

from . import waiting
from .errors import StoppedEarly

BESIDE_CTRL_C = (  # clusters announce preemption by USR1 or USR2
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
ALL = (signal.SIGINT, *BESIDE_CTRL_C)
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it, and a killed process cannot bring it back
Handler = Callable[[int, FrameType | None], object]

_unheard = False  # whether unfinished() has raised KeyboardInterrupt, and its block continues


@contextmanager
def handled(handler: Handler, numbers: Iterable[int]) -> Iterator[None]:
    """Give the signals ``numbers`` to ``handler`` in this block.

    An ignored SIGHUP (nohup) stays ignored. Outside the main thread signals cannot be caught, and
    none are.
    """
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                before[number] = signal.signal(number, handler)
            except ValueError:  # not in the main thread
                break
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Stops:
    """While entered, the first of the signals sets :attr:`requested` and :func:`waiting.asked`, and
    ends a wait (:mod:`densessl.core.waiting`) if the process is in one.

    A second Ctrl-C ends the process at once: SIGINT has its default action again, which needs no
    Python to run. With ``unwinds`` it raises KeyboardInterrupt instead, also after a SIGTERM. Other
    signals may come again: a cluster may send one to every process and to its parent. If it
    ``speaks`` (one process of a run should) it says so: on a terminal after a Ctrl-C, and with
    ``unwinds`` after any signal.
    """

    def __init__(
        self, numbers: Iterable[int] = ALL, *, speaks: bool = False, unwinds: bool = False
    ):
        self.numbers, self.speaks, self.unwinds = numbers, speaks, unwinds
        self.requested: signal.Signals | None = None
        self._handled: AbstractContextManager[None] | None = None

    def __enter__(self) -> "Stops":
        if _unheard:
            raise KeyboardInterrupt
        waiting.forget()
        self._handled = handled(self._handle, self.numbers)
        self._handled.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        assert self._handled is not None
        self._handled.__exit__(None, None, None)
        waiting.forget()  # else an evaluation of one's own afterwards would stop at once

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.requested = self.requested is None, self.requested or signal.Signals(number)
        if self.unwinds:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if first and self.speaks:
                announce(number)
        elif number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            # os.write, since the log may be in use below this handler.
            if self.speaks and sys.stderr.isatty():
                message = b"\nstopping after this step; Ctrl-C again to quit at once\n"
                os.write(sys.stderr.fileno(), SHOW_CURSOR + message)
        waiting.ask()


def announce(number: int) -> None:
    """Say that the process is about to stop; for handlers, so the log may be in use."""
    cursor = SHOW_CURSOR if sys.stderr.isatty() else b""
    name = signal.Signals(number).name.encode()
    with suppress(OSError):  # a terminal that is closed
        os.write(2, cursor + name + b": stopping, after saving; Ctrl-C (again) to quit at once\n")


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _unheard
    _unheard = True
    raise KeyboardInterrupt


@contextmanager
def unfinished(what: str) -> Iterator[None]:
    """A signal that asks to stop ends this block with StoppedEarly: ``what`` is unfinished.

    A library that is being imported may lose the error that a signal raises; then the block ends
    where :class:`Stops` would begin to listen.
    """
    global _unheard
    listens = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # not in a shell's background
    try:
        with handled(_interrupt, ALL if listens else BESIDE_CTRL_C):
            yield
    except KeyboardInterrupt:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # it ends all processes once one has failed
            raise StoppedEarly(
                "stopped by torchrun; if another process failed, its message says why, else "
                f"{what} is unfinished, and the same command resumes"
            ) from None
        raise StoppedEarly(f"stopped; {what} is unfinished, the same command resumes") from None
    finally:
        _unheard = False
