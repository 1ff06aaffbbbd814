"""Ends a run that stands still, and says where each of its processes stands.

Work that makes progress calls :func:`beat`: a batch that came, a step, an image of
an evaluation, a piece of a file that was written. A run stands still when no process of it has done
so for long: one that waits for another that works does not.
"""

import json
import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import DenseSSLError, Interrupted, Stalled, StoppedEarly
from .lines import Lines
from .log import FORMAT
from .peers import BROKEN, WORD, Failure, Peers, kind_of

TIMEOUT = 600.0  # seconds without progress by default
LOOKS = 20  # at the run in that time
SELDOM = 5.0  # seconds between two looks, at most
SOON = 0.02  # for each process, until all know each other: one may stop right away
ANSWER = 10.0  # seconds that a process has to say where it stands

logger = logging.getLogger("densessl")

_beats = 0  # of this process
_long = 0  # blocks of unhurried() that it is in
_doing: list[Callable[[], str]] = []  # what it waits for, the innermost last


def beat() -> None:
    """Note that this process makes progress."""
    global _beats
    _beats += 1


@contextmanager
def unhurried() -> Iterator[None]:
    """A block of work that may take as long as it likes without a :func:`beat` (compiling a model,
    a library's evaluation). A process that is stopped is found all the same."""
    global _long
    _long += 1
    try:
        yield
    finally:
        _long -= 1
        beat()


@contextmanager
def doing(what: Callable[[], str]) -> Iterator[None]:
    """A block that waits; ``what()``, called in another thread, says for what."""
    _doing.append(what)
    try:
        yield
    finally:
        _doing.pop()


@dataclass(frozen=True)
class Limit:
    """``seconds`` that a run may stand still (0: no limit), the ``option`` that says so, and the
    file of its log."""

    seconds: float = 0.0
    option: str = ""
    log: Path = Path(os.devnull)


@contextmanager
def watched(limit: Limit, peers: Peers | None = None) -> Iterator[None]:
    """A block that ends when the run stands still, or another of its processes has failed.

    Standing still, every process is ended with exit code 1 by this process's own thread, after
    where all stood was written to the log. What fails in one process is raised in all: the first
    error, whose traceback process 0 logs. Raises DenseSSLError in place of the broken connection
    that another's end leaves behind.
    """
    watch = _Watch(limit, peers or Peers())
    watch.start()
    try:
        yield
    except StoppedEarly as error:
        if isinstance(error, Interrupted):
            watch.failed(error)
        raise
    except Exception as error:
        first = watch.failed(error)
        if first is None:
            raise
        raise first from None
    finally:
        watch.stop()


@dataclass(frozen=True)
class Account:
    """Where a process stands: how many seconds, whether it waits for a file, in words, the stacks
    of its threads."""

    still: float
    waits: bool
    head: str
    stacks: str


class _Watch:
    """Two threads: one talks to the others, which may hang; one looks at the clock."""

    def __init__(self, limit: Limit, peers: Peers):
        self.limit, self.peers = limit, peers
        self.every = min(limit.seconds / LOOKS or SELDOM, SELDOM)
        self.over = threading.Event()
        self.noted = 0  # progress of all processes, as far as it is known here
        self.still = self.own = 0.0  # seconds without any process's progress, without this one's
        self.alarm = threading.Event()  # another has found that the run stands still
        self.logged = False  # the first failure of another was logged

    def start(self) -> None:
        beat()
        works = [self._look] if self.limit.seconds else []
        if not self.peers.alone:
            self.peers.introduce()
            works.append(self._talk)
        for work in works:
            threading.Thread(target=work, name=f"watchdog{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        self.over.set()

    # ---- failures ----

    def failed(self, error: Exception) -> DenseSSLError | None:
        """Note an error of this process; the other's that is to be raised in its place, if any."""
        if self.peers.alone:
            return None
        ours = isinstance(error, DenseSSLError)
        broken = not ours and BROKEN.search(str(error))
        about = "" if ours else "".join(traceback.format_exception(error))
        own = Failure(self.peers.rank, kind_of(error), str(error), about)
        try:
            first = self.peers.why_broken() if broken else None
            first = first or self.peers.fail(own)
        except RuntimeError:  # the process with the store has left
            return None
        if not broken and first.message == own.message:
            return None  # as where all refuse the same
        self._tell(first)
        return first.error() if broken and first.rank != own.rank else None

    def _tell(self, first: Failure) -> None:
        if self.peers.rank == 0 and not self.logged:
            self.logged = True
            about = first.traceback or f"{first.kind}: {first.message}"
            logger.error("process %d failed first:\n%s", first.rank, about.rstrip())

    # ---- standing still ----

    def _talk(self) -> None:
        """Tell the others of this process's progress, and hear of theirs."""
        seen, failed_since = 0, 0.0
        with suppress(RuntimeError):  # the process with the store has left: the run is over
            while not self.over.wait(self._pause()):
                made, seen = _beats != seen or _long > 0, _beats
                self.peers.meet()
                self.noted = self.peers.progress(made)
                if self.peers.alarmed():
                    self.alarm.set()
                if not (first := self.peers.failure()):
                    continue
                if made or not failed_since:
                    failed_since = time.monotonic()
                if time.monotonic() - failed_since > WORD:  # in a collective that never ends
                    self._tell(first)
                    self._leave(first.error().exit_code)

    def _pause(self) -> float:
        return self.every if self.peers.met else min(SOON * self.peers.world, self.every)

    def _look(self) -> None:
        """Count the seconds in which this process could have made progress and did not."""
        before, beats, noted = time.monotonic(), _beats, self.noted
        while not self.over.wait(self.every):
            now = time.monotonic()
            # The time for which a job was stopped (SIGSTOP) does not count.
            passed, before = min(now - before, 2 * self.every), now
            own = beats != _beats or _long > 0
            any_one = own or noted != self.noted
            beats, noted = _beats, self.noted
            self.own = 0.0 if own else self.own + passed
            self.still = 0.0 if any_one else self.still + passed
            if self.still >= self.limit.seconds or self.alarm.is_set():
                self._end()

    def _end(self) -> None:
        """Write where all stand, and end them."""
        answer = min(ANSWER, self.limit.seconds / 2)
        insurance = threading.Timer(3 * answer, self._leave)  # a disk or a store may hang, too
        insurance.daemon = True
        insurance.start()
        accounts = {self.peers.rank: self._account()}
        asking = threading.Thread(target=self._ask, args=(accounts, answer), daemon=True)
        asking.start()
        asking.join(1.5 * answer)
        self._report(dict(accounts))
        self._leave()

    def _ask(self, accounts: dict[int, "Account"], seconds: float) -> None:
        if self.peers.alone:
            return
        with suppress(RuntimeError):
            own = json.dumps(accounts[self.peers.rank].__dict__)
            for rank, text in self.peers.accounts(own, seconds).items():
                accounts[rank] = Account(**json.loads(text))

    def _report(self, accounts: dict[int, "Account"]) -> None:
        """Log where all stand, in the first process that answers; the others wait for it."""
        if self.peers.rank != min(accounts):
            with suppress(RuntimeError):
                self.peers.hear_report(ANSWER)
            return
        missing = [rank for rank in range(self.peers.world) if rank not in accounts]
        if missing:
            names = " and ".join(map(self.peers.name, missing))
            who = f"{names} does not answer, as one that is stopped, or whose machine is gone"
        else:  # the others wait for it
            who = max(accounts.values(), key=lambda each: (each.waits, each.still)).head
        message = (
            f"no progress for {self.limit.seconds:g} s ({self.limit.option}): {who}. All processes "
            "are ended; the same command resumes from the last checkpoint"
        )
        stood = [f"{each.head}\n{each.stacks}" for _, each in sorted(accounts.items())]
        text = "\n".join([f"{message}. Where each stood:", *stood])
        record = logger.makeRecord(logger.name, logging.ERROR, "", 0, text, (), None)
        Lines(self.limit.log).write(logging.Formatter(FORMAT).format(record))
        with suppress(OSError):
            os.write(2, f"{text}\n".encode(errors="replace"))  # the run may hold the log's lock
        for rank in missing:
            self.peers.kill(rank)
        with suppress(RuntimeError):
            self.peers.report(message)

    def _account(self) -> "Account":
        waits = _doing[-1]() if _doing else ""
        head = f"process {self.peers.rank} ({os.getpid()}) stands still for {self.own:.0f} s"
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        lines: list[str] = []
        for ident, frame in sys._current_frames().items():
            lines.append(f"  thread {names.get(ident, ident)}, the innermost call first:")
            # Not by traceback, which reads the sources: their disk may be what hangs.
            calls = ((each.f_code, line) for each, line in traceback.walk_stack(frame))
            lines += [f'    "{code.co_filename}", line {n}, in {code.co_name}' for code, n in calls]
        return Account(
            self.own, bool(waits), f"{head}: {waits}" if waits else head, "\n".join(lines)
        )

    def _leave(self, code: int = Stalled.exit_code) -> None:
        """End this process and its own at once: its main thread may never come back."""
        if self.over.is_set():
            return  # it came back
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(code)
