"""Batches from loader processes, from any step on, with the time spent waiting for them."""

import os
import time
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode
from torch.utils.data import Dataset

from densessl.core import limits
from densessl.core.errors import EnvironmentLacks
from densessl.core.loader import GRACE, Loader, Options
from densessl.core.names import one_line

from . import distributed
from .order import BatchOrder

TENSORS = 8  # of a Batch


class Loading:
    """The batches of ``order`` over ``dataset``; use it as a context manager.

    One set of loader processes serves the whole run, over the borders of epochs. :attr:`waited`
    is how many seconds the last :meth:`next` took. Leaving it raises EnvironmentLacks when a
    loader process had died. ``name(index)`` is an image's, for messages.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: BatchOrder,
        collate: Callable[[list], Any],
        name: Callable[[int], str],
        options: Options,
        pin: bool,
    ):
        self.loader = Loader(dataset, collate, name, options, pin, batch_sampler=order)
        self.waited = 0.0

    def __enter__(self) -> "Loading":
        self._batches = iter(self.loader)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._batches.__exit__(kind, error, traceback)

    def next(self) -> Any:
        """The batch of the next step. Raises as :class:`densessl.core.loader.Batches` does."""
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.waited = time.perf_counter() - began


def options_of(cfg: CfgNode) -> Options:
    """What DATA says about loading. One process alone can save in the middle of a wait; of several
    each goes on to the step that the others are in, if its batch comes soon."""
    grace = GRACE if distributed.world_size() > 1 else 0.0
    return Options(cfg.DATA.WORKERS, cfg.DATA.TIMEOUT, grace)


def late(name: str, cfg: CfgNode) -> EnvironmentLacks:
    """The error for an image that this process itself waits for."""
    return EnvironmentLacks(
        f"{one_line(name)} has not been read within {cfg.DATA.TIMEOUT:g} s (DATA.TIMEOUT; 0: no "
        "limit); see whether its disk or network mount answers"
    )


def check_machine(cfg: CfgNode) -> None:
    """Raise EnvironmentLacks where shared memory or file handles cannot hold the batches."""
    views = 2 * cfg.VIEWS.SIZE**2 + cfg.VIEWS.LOCAL_CROPS * cfg.VIEWS.LOCAL_SIZE**2
    images = cfg.SOLVER.BATCH_SIZE // distributed.world_size()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size()))
    limits.check_loading(3 * views * images, TENSORS, cfg.DATA.WORKERS, here, "DATA.WORKERS")
