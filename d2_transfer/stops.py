"""Ctrl-C and SIGTERM as a request that the training loop answers at its next step."""

import signal

from densessl.core import waiting


class StopRequest:
    """While entered, the first SIGINT or SIGTERM asks for a stop; a second Ctrl-C ends at once.

    A second SIGTERM does not: a cluster may send one to every process and to its parent.
    """

    _asked = False

    @classmethod
    def asked(cls) -> bool:
        return cls._asked

    def __enter__(self) -> "StopRequest":
        StopRequest._asked = False
        waiting.forget()
        self._old = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: signals are someone else's
                break
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        StopRequest._asked = False  # else an evaluation of one's own afterwards would stop at once
        waiting.forget()

    def _ask(self, number, frame) -> None:
        if StopRequest._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        StopRequest._asked = True
        waiting.ask()
