"""One function in several processes, on one machine or on several."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from densessl.core import errors, watchdog
from densessl.core.peers import BROKEN, KINDS, WORD, Peers, kind_of
from densessl.core.stops import ALL, announce, handled

from . import compat

if TYPE_CHECKING:
    from torch.distributed import TCPStore

logger = logging.getLogger("densessl")
HOST = "127.0.0.1"
TIMEOUT = timedelta(minutes=30)  # of one collective; as detectron2.engine.launch
HEAR = 2.0  # seconds between two looks whether another machine has failed


@dataclass(frozen=True)
class Machines:
    """Which of how many machines this is, and where the first one listens."""

    count: int = 1
    rank: int = 0
    host: str = HOST
    port: int = 0

    @classmethod
    def parse(cls, count: int, rank: int, url: str | None) -> "Machines":
        """From ``--num-machines``, ``--machine-rank`` and ``--dist-url`` (``tcp://HOST:PORT``).

        Raises InputError.
        """
        if not 0 <= rank < count:
            raise errors.InputError(
                f"--machine-rank is {rank}; allowed with --num-machines {count}: 0 to {count - 1}"
            )
        if count == 1:
            return cls()
        host, _, port = (url or "").removeprefix("tcp://").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            given = f"--dist-url is '{url}'" if url else "--dist-url is missing"
            raise errors.InputError(
                f"{given}; with --num-machines {count} every machine needs the same "
                "tcp://HOST:PORT, HOST being the first machine"
            )
        return cls(count, rank, host, int(port))

    @property
    def first(self) -> bool:
        """Whether this machine decides and writes."""
        return self.rank == 0


class Rendezvous:
    """Where the processes of a command meet: a store kept by the first machine's parent process.

    A port found free may be taken before a child binds it, so the parent keeps the store. While
    entered, :meth:`agree` tells all machines what the first one says, and :meth:`run` runs a
    function in every process, which may stand still for ``limit``.
    """

    def __init__(self, machines: Machines | None = None, limit: watchdog.Limit | None = None):
        self.machines = machines or Machines()
        self.limit = limit or watchdog.Limit()
        self._opened: TCPStore | None = None
        self._runs = 0
        self._agreed = 0

    def __enter__(self) -> "Rendezvous":
        if self.machines.count > 1:
            self._open()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """The first machine keeps the store until the others have left, or half a minute; they hear
        of its error."""
        if self.machines.count > 1 and self._opened is not None:
            with suppress(Exception):  # the others may be gone, which is what is waited for
                if error is not None and self.machines.first:
                    self._store.set("ended", str(error) or kind.__name__)
                self._store.add("left", 1)
                deadline = time.monotonic() + 30
                while self.machines.first and time.monotonic() < deadline:
                    if self._store.add("left", 0) >= self.machines.count:
                        break
                    time.sleep(0.05)
        self._opened = None

    @property
    def _store(self) -> "TCPStore":
        assert self._opened is not None, "it is open from the first run on, or with the machines"
        return self._opened

    def _open(self) -> None:
        from torch.distributed import DistNetworkError, TCPStore

        machines = self.machines
        if not machines.first:
            self._wait_for_the_first()
        try:
            self._opened = TCPStore(
                machines.host,
                machines.port,
                is_master=machines.first,
                wait_for_workers=False,
                timeout=TIMEOUT,
            )
        except DistNetworkError as error:
            raise errors.InputError(
                f"no rendezvous at tcp://{machines.host}:{machines.port} ({error}); --dist-url "
                "must name a free port of the first machine, which the others can reach"
            ) from None
        if machines.count > 1:
            self._store.add("here", 1)
            if machines.first and self._store.add("here", 0) < machines.count:
                logger.info("waiting for the other machines (%d in all)", machines.count)
            while machines.first and self._store.add("here", 0) < machines.count:
                time.sleep(0.2)

    def _wait_for_the_first(self) -> None:
        machines, logged = self.machines, False
        while True:
            try:
                socket.create_connection((machines.host, machines.port), timeout=5).close()
                return
            except socket.gaierror as error:
                raise errors.InputError(
                    f"--dist-url names the machine '{machines.host}', which is not known here "
                    f"({error.strerror})"
                ) from None
            except OSError:
                if not logged:
                    logger.info("waiting for machine 0 at %s:%d", machines.host, machines.port)
                logged = True
                time.sleep(1)

    def agree(self, value: str) -> str:
        """What the first machine passes here; elsewhere ``value`` is ignored.

        Raises DenseSSLError where the first machine has ended.
        """
        if self.machines.count == 1:
            return value
        self._agreed += 1
        key = f"agreed/{self._agreed}"
        if self.machines.first:
            self._store.set(key, value)
            return value
        try:
            while not self._store.check([key]):
                if self._store.check(["ended"]):
                    reason = self._store.get("ended").decode()
                    raise errors.DenseSSLError(f"the first machine has ended: {reason}")
                time.sleep(0.2)
            return self._store.get(key).decode()
        except RuntimeError:  # torch's DistNetworkError is one
            raise errors.DenseSSLError("the first machine has left") from None

    def run(self, function: Callable, processes: int, args: tuple = (), cuda: bool | None = None):
        """Run ``function(*args)`` in ``processes`` processes of every machine, joined by
        Detectron2's ``comm``: NCCL with a GPU each, gloo on the CPU. One in all: a plain call.

        In place of ``detectron2.engine.launch``, which asserts CUDA (0.5) and whose children import
        Detectron2 before anything can call ``compat.setup()``. ``function`` must be importable by
        name. An error of DenseSSL in a child is raised here as the same error, and on the other
        machines as a DenseSSLError within seconds. Signals that ask to stop go on to the children,
        and this waits for them, so that they can save. StoppedEarly must be raised by every
        process: all wait for the slowest to have saved. Stalled is raised where they stood still
        and were ended; one process in all is ended itself.
        """
        if processes * self.machines.count == 1:
            with watchdog.watched(self.limit):
                function(*args)
            return
        import torch
        import torch.multiprocessing as multiprocessing

        cuda = torch.cuda.is_available() if cuda is None else cuda
        if cuda and processes > torch.cuda.device_count():
            raise errors.InputError(
                f"{processes} processes need as many GPUs; this machine has "
                f"{torch.cuda.device_count()}"
            )
        if self._opened is None:
            self._open()
        self._runs += 1
        address = (self.machines.host, self._store.port, f"run_{self._runs}")
        failures = multiprocessing.get_context("spawn").SimpleQueue()
        arguments = (
            function,
            args,
            processes,
            self.machines,
            self.limit,
            address,
            "nccl" if cuda else "gloo",
            failures,
        )
        context = multiprocessing.spawn(_worker, arguments, nprocs=processes, join=False)
        stops: list[int] = []
        with _pass_on_signals(context.pids(), stops):
            self._join(context, failures, stops)

    def _join(self, context, failures, stops: list[int]) -> None:
        """Wait for the children of :meth:`run`, and raise what ended them."""
        import torch.multiprocessing as multiprocessing

        try:
            while not context.join(timeout=HEAR if self.machines.count > 1 else None):
                self._hear(context.pids())
        except (
            multiprocessing.ProcessExitedException,
            multiprocessing.ProcessRaisedException,  # of one that another's end made fail
        ) as ended:
            if still := self._stood_still():
                self._tell(str(still))
                raise still from None
            if not failures.empty():
                kind, message = failures.get()
                error = KINDS[kind](message)
                if not isinstance(error, errors.StoppedEarly):
                    self._tell(message)
                raise error from None
            if not stops:
                problem = str(ended).strip().splitlines()[-1]
                deadline = time.monotonic() + WORD
                broken = self.machines.count > 1 and BROKEN.search(problem)
                while broken and time.monotonic() < deadline:
                    self._hear([])  # the machine whose end broke the connection says why
                    time.sleep(0.2)
                self._tell(problem)
            if stops:  # a child that had not yet set out to save when the signal came
                raise errors.StoppedEarly(
                    "stopped; the same command resumes from what is saved"
                ) from None
            raise

    def _stood_still(self) -> errors.Stalled | None:
        """That the children stood still and ended themselves, if they did."""
        from torch.distributed import PrefixStore

        with suppress(RuntimeError):  # the first machine may be gone
            message = Peers(store=PrefixStore(f"run_{self._runs}", self._store)).stood_still()
            return errors.Stalled(message) if message else None
        return None

    def _tell(self, message: str) -> None:
        """Let the other machines know that this one's processes have ended with an error."""
        if self.machines.count > 1:
            with suppress(RuntimeError):  # the first machine may be gone
                self._store.set(f"failed/{self._runs}", f"{self.machines.rank} {message}")

    def _hear(self, children: list[int]) -> None:
        """End the children when another machine's have failed: they would wait for them."""
        if self.machines.count == 1:
            return
        try:
            key = f"failed/{self._runs}"
            if not self._store.check([key]):
                return
            rank, _, message = self._store.get(key).decode().partition(" ")
            problem = f"machine {rank} has failed: {message}"
        except RuntimeError:  # torch's DistNetworkError is one
            problem = "the first machine has left"
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        raise errors.DenseSSLError(problem)


def _worker(
    local_rank: int, function, args, processes: int, machines: Machines, limit, address, *how
):
    os.setsid()  # a terminal's Ctrl-C reaches the parent, which passes it on, and not this as well
    compat.setup()
    import torch
    import torch.distributed as dist

    (host, port, name), (backend, failures) = address, how
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    world = processes * machines.count
    rank = machines.rank * processes + local_rank
    # The second is used by another thread, while the first may wait for an answer.
    store, own = (
        dist.PrefixStore(name, dist.TCPStore(host, port, is_master=False, timeout=TIMEOUT))
        for _ in range(2)
    )
    dist.init_process_group(
        backend,
        store=store,
        world_size=world,
        rank=rank,
        timeout=TIMEOUT,
    )
    compat.create_local_groups(machines.count, processes)
    try:
        with watchdog.watched(limit, Peers(rank, world, own)):
            function(*args)
        _leave_together(store, world)
    except errors.DenseSSLError as error:
        if isinstance(error, errors.StoppedEarly) and not isinstance(error, errors.Interrupted):
            _leave_together(store, world)  # the first to leave ends those still writing
        failures.put((kind_of(error), str(error)))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # torch.multiprocessing would take it for success
    dist.destroy_process_group()


def _leave_together(store, processes: int) -> None:
    """Wait for all processes at the parent's store. After a collective alone, the first to close
    its connections can make the last one's end of that collective fail."""
    store.add("done", 1)
    while store.add("done", 0) < processes:
        time.sleep(0.02)


def _pass_on_signals(children: list[int], seen: list[int]) -> AbstractContextManager[None]:
    """The block in which signals that ask to stop are sent on to ``children`` and noted."""

    def handle(number, frame):
        if not seen:
            announce(number)
        seen.append(number)
        for child in children:
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(child, number)

    return handled(handle, ALL)
