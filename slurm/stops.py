"""Signals of SLURM, between the supervisor on a node and the command that it runs."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

PR_SET_PDEATHSIG = 1


class JobStops:
    """Hands the first stop on to the command, and remembers what kind it was.

    ``number`` is the cluster's signal for "save and come back", whose stop has ``seconds`` before
    the command is killed. It outweighs a SIGTERM, which may come before it. Unlike
    :class:`densessl.core.stops.Stops` it is about another process, and lasts as long as this one.
    """

    def __init__(self, number: int, seconds: float):
        self.number, self.seconds = number, seconds
        self.received: int | None = None
        self._child: subprocess.Popen | None = None

    def listen(self) -> None:
        for number in (self.number, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)

    def for_command(self) -> Callable[[], None]:
        """What the new process does before its program (``preexec_fn``).

        It ignores the cluster's signal, which some clusters send to every process, unless the
        program listens to it; and it is killed when this process dies, however it dies: SLURM may
        lose sight of a process whose parent is gone.
        """
        libc, parent = ctypes.CDLL(None), os.getpid()

        def prepare() -> None:
            signal.signal(self.number, signal.SIG_IGN)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        return prepare

    def follow(self, child: subprocess.Popen) -> None:
        """From now on stops go to ``child``; also one that came before."""
        self._child = child
        if self.received:
            self._ask()

    def _stop(self, number: int, frame) -> None:
        before, self.received = self.received, self.received or number
        if number == self.number and before != number:
            self.received = number
            signal.alarm(max(1, int(self.seconds)))
        if before is None:
            self._ask()

    def _ask(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGTERM)

    def _kill(self, number: int, frame) -> None:
        if self._child is not None and self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
