"""PyTorch's DataLoader with errors that arrive, waits that end and workers that leave.

A loader process of PyTorch hands its batch to a thread of its own, which moves the tensors to
shared memory; where that fails (a small /dev/shm, too few file handles) the batch is dropped, and
the run waits for it for ever. Here it happens before, where an error is sent to the run.
"""

import io
import multiprocessing
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from . import limits, peers, reading, stops, waiting, watchdog
from .errors import DenseSSLError, EnvironmentLacks
from .names import one_line
from .waiting import TIMEOUT

FORK = sys.platform == "linux"
GRACE = 5.0  # seconds that a batch may still take after a signal, where it is worth that


@dataclass(frozen=True)
class Options:
    """How messages call the options of a loader, and their values."""

    workers: int
    timeout: float = TIMEOUT  # seconds; 0: no limit
    grace: float = 0.0  # seconds that a wait may still take after a signal
    group: str = "DATA"  # of the options' names
    workers_name: str = "WORKERS"

    @property
    def workers_option(self) -> str:
        return f"{self.group}.{self.workers_name}"


class Loader(DataLoader):
    """A DataLoader over ``dataset``, whose images ``name(number)`` names.

    Its workers are forked where that is possible, so that they share the data set and begin at
    once. They outlive signals, which the run has to act upon. ``order``: a sampler or a
    batch_sampler.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Callable[[list], Any],
        name: Callable[[int], str],
        options: Options,
        pin: bool = False,
        **order,
    ):
        self.name_of, self.options = name, options
        self.reports: reading.Reports | None = None
        super().__init__(
            dataset,
            num_workers=options.workers,
            collate_fn=_Collate(collate),
            pin_memory=pin,
            worker_init_fn=self._start_worker,
            # Not by a method that imports PyTorch anew in each worker: seconds, and memory.
            multiprocessing_context="fork" if options.workers and FORK else None,
            generator=torch.Generator(),  # or its workers' seed is drawn from a step's randomness
            **order,
        )

    def check_worker_number_rationality(self) -> None:
        """No warning of more workers than cores, which PyTorch would print twice a loader.

        They are right where files come over a network, they are the default on a small machine,
        and their number changes nothing but the speed, which the log tells (waiting for data).
        """

    def __iter__(self) -> "Batches":  # type: ignore[override]  # more than an iterator
        return Batches(self)

    def _start_worker(self, worker: int) -> None:
        for number in stops.ALL:
            signal.signal(number, signal.SIG_IGN)
        sys.excepthook = _print_unless_hung_up
        if self.reports:
            self.reports.take(worker)


class Batches:
    """The batches of a :class:`Loader`; :meth:`close`, or the end of its block, ends its workers.

    :attr:`waited` is how many seconds the last batch took.
    Raises what a worker raised, InputError and the like as they were; EnvironmentLacks when shared
    memory, file handles or the time of a wait run out; Interrupted when a signal ends a wait.
    """

    _open: "weakref.WeakSet[Batches]" = weakref.WeakSet()

    def __init__(self, loader: Loader):
        self.loader, self.options = loader, loader.options
        self._inner: Any = None  # PyTorch's iterator
        self.waited = 0.0
        before = set(multiprocessing.active_children())
        self.reports: reading.Reports | None = None
        if FORK or not self.options.workers:
            self.reports = loader.reports = reading.Reports(self.options.workers)
        if self.reports and not self.options.workers:
            self.reports.take()
        try:
            with waiting.wait(grace=GRACE):
                self._inner = DataLoader.__iter__(loader)
        except BaseException as error:
            self._workers = set(multiprocessing.active_children()) - before
            self._kill()  # they ignore the signal of Python's own end, which would wait for them
            raise self._explained(error) from error
        self._workers = set(multiprocessing.active_children()) - before
        self._open.add(self)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        # Not left to the iterator's end: the traceback of an error may hold it for long.
        self.close(at_once=error is not None)
        self._explain(error)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            with (
                watchdog.doing(self._where),
                waiting.wait(self.options.timeout, self._late, self.options.grace),
            ):
                batch = next(self._inner)
                watchdog.beat()
                return batch.value() if isinstance(batch, _Packed) else batch
        except StopIteration:
            self.close()
            raise
        except Exception as error:
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from None
        finally:
            self.waited = time.perf_counter() - began

    def close(self, at_once: bool = False) -> None:
        """End the workers, ``at_once`` or when each has ended its batch."""
        inner, self._inner = self._inner, None
        if inner is None:
            return
        if self._workers:
            if at_once:
                self._kill()
            inner._shutdown_workers()  # tells them to stop, and waits for them
        self._kill()

    def _explain(self, error: BaseException | None) -> None:
        """Raise EnvironmentLacks for ``error`` if it is PyTorch's on the death of a worker.

        That is raised wherever the process happens to be at the time.
        """
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error):
            raise self._explained(error) from error

    def _kill(self) -> None:
        """Kill the workers that still live: what they have is of no use, and they may hang."""
        alive = [worker for worker in self._workers if worker.is_alive()]
        if not alive:
            return
        main = threading.current_thread() is threading.main_thread()
        # PyTorch's handler would raise an error for each.
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
        try:
            for worker in alive:
                worker.kill()
            for worker in alive:
                worker.join()
        finally:
            if main:
                signal.signal(signal.SIGCHLD, handler)

    def _where(self) -> str:
        """Which image a batch waits for, and which loader processes are stopped."""
        begun = self.reports and self.reports.longest()
        where = "no loader process reads an image" if self.options.workers else "no image is read"
        if begun:
            worker, number = begun
            who = f"loader process {worker}" if self.options.workers else "the process"
            where = f"{who} is still at {one_line(self.loader.name_of(number))}"
        pids = (each.pid for each in self._workers)
        stopped = [str(pid) for pid in pids if pid and peers.state(pid) == "T"]
        return f"{where} (stopped: {', '.join(stopped)})" if stopped else where

    def _late(self) -> EnvironmentLacks:
        return EnvironmentLacks(
            f"no batch has come for {self.options.timeout:g} s: {self._where()}. See whether its "
            "disk or network mount answers; if it is only slow, raise "
            f"{self.options.group}.TIMEOUT (0: no limit). The same command resumes from the last "
            "checkpoint"
        )

    def _has_died(self) -> bool:
        """Whether a worker ends now: its connections break shortly before it is seen to be gone."""
        deadline = time.monotonic() + 1.0
        while all(worker.is_alive() for worker in self._workers):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _explained(self, error: BaseException) -> BaseException:
        """The error as a message for people, where it is one of the kinds that are known."""
        text = str(error)
        option = self.options.workers_option
        if isinstance(error, DenseSSLError):
            return type(error)(_innermost(error))
        if not isinstance(error, OSError | RuntimeError | EOFError):
            return error
        if "Too many open files" in text or "ancdata" in text:
            return EnvironmentLacks(
                "the loader processes need more open files than this process may have "
                f"({limits.handles()[1]}). {limits.more_handles(0, option)}"
            )
        # It was handing a batch over, through a socket that may be gone already.
        hung_up = isinstance(error, ConnectionError | EOFError | FileNotFoundError)
        died = "DataLoader worker (pid" in text or (hung_up and self._has_died())
        if "shared memory" in text or "Bus error" in text or "shm" in text:
            return EnvironmentLacks(
                f"the loader processes ran out of shared memory in {limits.SHARED}. "
                + limits.more_shared_memory(0, option)
            )
        if died:
            return EnvironmentLacks(
                f"a loader process died ({text}); most often memory ran out. Free memory or lower "
                f"{option}, and run the same command: it resumes from the last checkpoint"
            )
        return error


def close_all() -> None:
    """End the workers of every loader in this process: a trial that failed may still refer to them,
    and Python's own end would wait for ever, as they ignore its signal."""
    for batches in list(Batches._open):
        batches.close(at_once=True)


class _Collate:
    """``collate`` in the worker; then the batch with its tensors already in shared memory."""

    def __init__(self, collate: Callable[[list], Any]):
        self.collate = collate

    def __call__(self, samples: list) -> Any:
        batch = self.collate(samples)
        reading.reading(-1)
        return batch if get_worker_info() is None else _Packed(batch)


class _Packed:
    """A batch as bytes, whose tensors lie in shared memory; unpacked once, by the run."""

    def __init__(self, batch: Any):
        stream = io.BytesIO()
        ForkingPickler(stream, pickle.HIGHEST_PROTOCOL).dump(batch)
        self.data = stream.getvalue()

    def value(self) -> Any:
        return pickle.loads(self.data)  # noqa: S301  (of a process of our own)

    def pin_memory(self) -> Any:
        """Called by the DataLoader, so that images travel to the GPU while it computes."""
        batch = self.value()
        if isinstance(batch, tuple | list):
            return type(batch)(each.pin_memory() for each in batch)
        return batch.pin_memory()


def _print_unless_hung_up(kind: type[BaseException], error: BaseException, traceback) -> None:
    """The excepthook of a worker, which the thread that hands its tensors over calls.

    A run that was stopped in the middle of a batch has hung up, and that is no error.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, traceback)


def _innermost(error: BaseException) -> str:
    """The message of an error without the traceback that a loader process wraps around it."""
    text = str(error).strip()
    if "Traceback (most recent call last)" not in text:
        return text
    kind = f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(kind)[2] or text
