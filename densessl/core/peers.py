"""What the processes of a run tell each other beside their collectives: who lives, who failed.

It goes through a store of PyTorch, over a connection of its own, so that it works while the
collectives hang.
"""

import json
import os
import re
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import errors

BROKEN = re.compile("connection|socket|gloo|nccl", re.IGNORECASE)  # errors of another's end
ACCOUNT, REPORTED = "account", "reported"  # keys: where each stands still; what was said of it
WORD = 10.0  # seconds that a process may take to say why it ended
KINDS = {
    kind.__name__: kind
    for kind in (
        errors.DenseSSLError,
        errors.InputError,
        errors.EnvironmentLacks,
        errors.StoppedEarly,
        errors.Interrupted,
        errors.Stalled,
    )
}


def kind_of(error: BaseException) -> str:
    """The name of an error's class; of a subclass of ours that of ours, which takes a message."""
    ours = (kind.__name__ for kind in type(error).__mro__ if KINDS.get(kind.__name__) is kind)
    return next(ours, type(error).__name__)


@dataclass(frozen=True)
class Failure:
    """The first error of a run: of which process, its kind, its message, its traceback."""

    rank: int
    kind: str
    message: str
    traceback: str = ""

    def error(self) -> errors.DenseSSLError:
        """The same error in another process."""
        if self.kind in KINDS:
            return KINDS[self.kind](self.message)
        return errors.DenseSSLError(
            f"process {self.rank} failed: {self.kind}: {self.message} (its traceback is in the log)"
        )


class Identity(NamedTuple):
    """Which process a rank is."""

    pid: int
    parent: int
    host: str


class Peers:
    """This process, ``rank`` of ``world``, and the others of the same ``store``.

    Without a store it is alone. Every call may raise RuntimeError where the store's process has
    ended, and may hang where it is stopped.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Any = None):
        self.rank, self.world, self._store = rank, world, store
        self._known: dict[int, Identity] = {}

    @property
    def alone(self) -> bool:
        return self._store is None

    def introduce(self) -> None:
        """Let the others know which process this is."""
        self._set(f"process/{self.rank}", json.dumps(_identity()))

    def meet(self) -> None:
        """Know those that have introduced themselves so far, for when they no longer answer."""
        for rank in set(range(self.world)) - self._known.keys():
            if self._is_set(f"process/{rank}"):
                self._known[rank] = Identity(*json.loads(self._get(f"process/{rank}")))

    @property
    def met(self) -> bool:
        """Whether all are known."""
        return len(self._known) == self.world

    def progress(self, made: bool) -> int:
        """How often any process has noted progress so far, and note this one's."""
        return self._store.add("progress", int(made))

    def report(self, message: str) -> None:
        """Note what was said of a run that stood still."""
        self._set(REPORTED, message)

    def stood_still(self) -> str | None:
        """What was said of a run that stood still, of one that did."""
        if self._is_set(REPORTED):
            return self._get(REPORTED)
        return "the processes stood still" if self._is_set(ACCOUNT) else None

    def hear_report(self, seconds: float) -> None:
        """Wait until another has reported, for so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._is_set(REPORTED):
            time.sleep(0.05)

    def alarmed(self) -> bool:
        """Whether a process has found that all stand still, and asks for :meth:`accounts`."""
        return self._is_set(ACCOUNT)

    def accounts(self, own: str, seconds: float) -> dict[int, str]:
        """Give one's ``own``, and take those that the others give within ``seconds``, by rank."""
        self._set(ACCOUNT, "")
        self._set(f"{ACCOUNT}/{self.rank}", own)
        deadline = time.monotonic() + seconds
        found: dict[int, str] = {}
        while len(found) < self.world and time.monotonic() < deadline:
            for rank in set(range(self.world)) - found.keys():
                if self._is_set(f"{ACCOUNT}/{rank}"):
                    found[rank] = self._get(f"{ACCOUNT}/{rank}")
            time.sleep(0.05)
        return found

    def _set(self, key: str, text: str) -> None:
        if self._store:
            self._store.set(key, text)

    def _is_set(self, key: str) -> bool:
        return self._store.check([key])

    def _get(self, key: str) -> str:
        return self._store.get(key).decode()

    # ---- failures ----

    def fail(self, failure: Failure) -> Failure:
        """Note a failure; the first that any process noted."""
        text = json.dumps(failure.__dict__)
        return Failure(**json.loads(self._store.compare_set("failed", "", text).decode()))

    def failure(self) -> Failure | None:
        """The first failure that a process noted, if any has."""
        if not self._is_set("failed"):
            return None
        return Failure(**json.loads(self._get("failed")))

    def why_broken(self) -> Failure | None:
        """Why another process has ended, which broke a collective; None where nobody knows."""
        deadline = time.monotonic() + WORD
        while time.monotonic() < deadline:
            if failure := self.failure():
                return failure
            if gone := [rank for rank in self._known if self._has_ended(rank)]:
                message = (
                    f"{self.name(gone[0])} was killed, most often because memory ran out; the same "
                    "command resumes from the last checkpoint"
                )
                return self.fail(Failure(gone[0], errors.DenseSSLError.__name__, message))
            time.sleep(0.1)
        return None

    # ---- processes of this machine, of which no store is asked ----

    def name(self, rank: int) -> str:
        """'process 1 (4711 on node03)'."""
        found = self._known.get(rank)
        return f"process {rank} ({found.pid} on {found.host})" if found else f"process {rank}"

    def kill(self, rank: int) -> None:
        """Kill a process that does not answer, if it is one of this machine's."""
        if pid := self._sibling(rank):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _sibling(self, rank: int) -> int | None:
        """The id of another process that this one's parent started, too."""
        found, own = self._known.get(rank), _identity()
        same = found and (found.parent, found.host) == (own.parent, own.host)
        return found.pid if found and same else None

    def _has_ended(self, rank: int) -> bool:
        """Whether it is known that a process has ended."""
        pid = self._sibling(rank)
        return pid is not None and state(pid) in ("", "Z", "X")


def _identity() -> Identity:
    return Identity(os.getpid(), os.getppid(), socket.gethostname())


def state(pid: int) -> str:
    """The letter that Linux has for the state of a process (T: stopped, D: it waits for a disk, Z:
    ended); '' where there is none, '?' elsewhere."""
    if not Path("/proc/self/stat").exists():
        return "?"
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
