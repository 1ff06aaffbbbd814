"""The next batch on its way to the GPU while that computes the step before."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from densessl.core.loader import Batches

from ..views import Batch, Sent


class Ahead:
    """Batches of a loader with what was sent of each: ``next`` gives (batch, its parts as sent).

    ``send(batch)`` brings a batch to ``device``. :meth:`fetch` does so for the next batch already;
    on CUDA its copies run on a stream of their own, beside the step that the GPU is computing. What
    fails then is raised when that batch is asked for: the step before is brought to its end.
    :attr:`waited` is how many seconds the last batch given took to come.
    """

    def __init__(self, batches: Batches, send: Callable[[Batch], list[Sent]], device: torch.device):
        self.batches, self.send = batches, send
        self.waited = 0.0
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._fetched: tuple[Batch, list[Sent]] | None = None
        self._error: Exception | None = None

    def __next__(self) -> tuple[Batch, list[Sent]]:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        given, self._fetched = self._fetched or self._take(), None
        self.waited = self.batches.waited
        if self._stream is not None:
            now = torch.cuda.current_stream(self._stream.device)
            now.wait_stream(self._stream)
            for part in given[1]:
                for tensor in part.tensors():
                    tensor.record_stream(now)  # its memory is not given to the next copy too early
        return given

    def fetch(self) -> None:
        """Take and send the next batch; raises nothing."""
        try:
            self._fetched = self._take()
        except Exception as error:
            self._error = error

    def _take(self) -> tuple[Batch, list[Sent]]:
        batch = next(self.batches)
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return batch, self.send(batch)
