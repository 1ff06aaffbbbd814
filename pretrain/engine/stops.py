"""Polite stops: a signal sets a flag that the loop looks at between two steps, and ends a wait."""

import os
import signal
import sys
from types import FrameType

from densessl.core import waiting

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)  # USR2: preemption
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it, and a killed process cannot bring it back


class Stops:
    """While entered, SIGINT, SIGTERM, SIGHUP and SIGUSR2 set :attr:`requested`, and end a wait
    (:mod:`densessl.core.waiting`) if the process is in one.

    A second Ctrl-C ends the process at once: after the first, SIGINT has its default action
    again, which needs no Python to run. A SIGHUP that was ignored (nohup) stays ignored. Outside
    the main thread signals cannot be caught, and none are. On a terminal it says so if it
    ``speaks`` (one process of a run should).
    """

    def __init__(self, speaks: bool = True):
        self.speaks = speaks
        self.requested: signal.Signals | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stops":
        waiting.forget()
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread
                break
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        waiting.forget()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = self.requested or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            # os.write, since the log may be in use below this handler.
            if self.speaks and sys.stderr.isatty():
                message = b"\nstopping after this step; Ctrl-C again to quit at once\n"
                os.write(sys.stderr.fileno(), SHOW_CURSOR + message)
        waiting.ask()
