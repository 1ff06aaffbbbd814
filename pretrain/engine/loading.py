"""Batches from loader processes, from any step on, with the time spent waiting for them."""

import multiprocessing
import sys
import time
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from console.errors import DenseSSLError, EnvironmentLacks

from .order import BatchOrder
from .stops import ignore_in_worker


class Loading:
    """The batches of ``order`` over ``dataset``; use it as a context manager.

    One set of loader processes serves the whole run, over the borders of epochs. :attr:`waited`
    is how many seconds the last :meth:`next` took. Leaving it raises EnvironmentLacks when a
    loader process had died.
    """

    def __init__(self, dataset: Dataset, order: BatchOrder, collate, workers: int, pin: bool):
        self.loader = DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin,
            worker_init_fn=_start_worker,
            # Not by a method that imports PyTorch anew in each worker: seconds, and memory.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        self.waited = 0.0

    def __enter__(self) -> "Loading":
        before = set(multiprocessing.active_children())
        self._iterator = iter(self.loader)
        self._workers = set(multiprocessing.active_children()) - before
        return self

    def __exit__(self, kind, error, traceback) -> None:
        # Not left to the iterator's end: the traceback of an error may hold it for long.
        if self._workers:
            self._iterator._shutdown_workers()  # tells them to stop, and waits for them
        self._iterator = None
        for worker in self._workers:  # they ignore SIGTERM, which Python would send to stuck ones
            if worker.is_alive():
                worker.kill()
        # PyTorch raises this wherever the loop happens to be when the process dies.
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error):
            raise EnvironmentLacks(
                f"a loader process died ({error}); most often memory ran out. Free memory or lower "
                "DATA.WORKERS, and run the same command: it goes on from the last checkpoint"
            ) from error

    def next(self) -> Any:
        """The batch of the next step."""
        began = time.perf_counter()
        try:
            return next(self._iterator)
        except DenseSSLError as error:  # from a worker it comes wrapped in the worker's traceback
            raise type(error)(_innermost(error)) from None
        finally:
            self.waited = time.perf_counter() - began


def _start_worker(worker: int) -> None:
    ignore_in_worker()
    torch.set_num_threads(1)


def _innermost(error: BaseException) -> str:
    """The message of an error without the traceback that a loader process wraps around it."""
    text = str(error).strip()
    if "Traceback (most recent call last)" not in text:
        return text
    kind = f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(kind)[2] or text
