"""What a run says: a line of ``metrics.jsonl`` every few steps, TensorBoard, trackers, progress.

All but the time fields of a line are a function of the run, so the file of a resumed run equals
that of an uninterrupted one.
"""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densessl.core import distributed, trackers
from densessl.core.board import Board
from densessl.core.metrics import Metrics

logger = logging.getLogger("densessl")

TIME_FIELDS = ("images_per_second", "data_wait", "seconds", "gpu_memory_gib")


class Meter:
    """Means of named values since the last line; a value that is not finite is left out."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            finite = math.isfinite(value)  # the name is kept: all processes must have the same
            self.sums[name] = self.sums.get(name, 0.0) + (value if finite else 0.0)
            self.counts[name] = self.counts.get(name, 0) + finite

    def take(self) -> dict[str, float]:
        """The means (NaN of nothing), after which the meter is empty."""
        means = {name: total / (self.counts[name] or math.nan) for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, dict]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class Logs:
    """The written record of a run from step ``start`` on; only the main process writes.

    ``metrics.jsonl`` is cut back to ``start`` steps: what an interrupted run wrote beyond its
    checkpoint is written again. A full disk ends nothing: the lines wait until there is room.
    ``options``: those of the run by name, where a tracker may be asked for.
    """

    def __init__(
        self,
        folder: Path,
        period: int,
        batch_size: int,
        start: int,
        options: Mapping[str, Any] | None = None,
    ):
        self.period, self.batch_size = period, batch_size
        self.meter = Meter()
        self.seconds = 0.0  # of training, over all sessions of the run
        self._since = time.perf_counter()
        self._steps = 0
        self._waited = 0.0
        self._logged = 0  # the last epoch that the log has a line on
        self._lines = self._board = None
        self._trackers: list[trackers.Sending] = []
        if distributed.is_main():
            path = Path(folder) / "metrics.jsonl"
            self._lines = Metrics(path)
            # A run from step 0 on also measures again what was before it.
            self._lines.cut_back(lambda line: 0 < start >= line["iteration"])
            self._board = Board(Path(folder) / "tensorboard", start)
            if options:
                self._trackers = trackers.opened(options, Path(folder))

    def begin(self, values: dict[str, float]) -> None:
        """Write what was measured before the first step, if anything, as the line of step 0."""
        if finite := {name: value for name, value in values.items() if math.isfinite(value)}:
            self._write({"iteration": 0, "epoch": 0.0, **finite})

    def step(
        self,
        iteration: int,
        values: dict[str, float],
        facts: dict[str, Any],
        waited: float,
        last: bool = False,
    ) -> None:
        """Count one step; when a line is due (or at the ``last`` step), write it.

        ``iteration`` is the number of steps done, ``values`` are averaged over the steps of the
        line and over the processes, ``facts`` (``epoch`` and ``lr`` among them) are written as
        they are, ``waited`` is how many seconds the step waited for data. Every process must call
        this in step.
        """
        self.meter.add(values)
        self._steps += 1
        self._waited += waited
        if iteration % self.period and not last:
            return
        took = self._clock()
        means = distributed.all_reduce_mean(self.meter.take())
        line = {"iteration": iteration, **facts}
        line |= {name: mean for name, mean in means.items() if math.isfinite(mean)}
        line["images_per_second"] = round(self._steps * self.batch_size / took, 2)
        line["data_wait"] = round(self._waited / took, 4)
        line["seconds"] = round(self.seconds, 2)
        if (memory := gpu_memory_gib()) is not None:
            line["gpu_memory_gib"] = memory
        self._steps, self._waited = 0, 0.0
        self._write(line)
        if int(line["epoch"]) > self._logged:
            self._logged = int(line["epoch"])
            loss = f"{line['loss']:.4f}" if "loss" in line else "of no step (all skipped)"
            logger.info(
                "epoch %d: loss %s, learning rate %.3g, %.1f images/s, %.0f %% waiting for data",
                self._logged,
                loss,
                line["lr"],
                line["images_per_second"],
                100 * line["data_wait"],
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to write the same lines: plain numbers.

        Every process must call this in step: all go on from the same sums, since a checkpoint
        has room for one process's only. Lines that could not be written yet are part of it.
        """
        self.meter.sums = distributed.all_reduce_mean(self.meter.sums)
        seconds = self.seconds + self._running()
        state = {"meter": self.meter.state_dict(), "seconds": seconds, "said": self._logged}
        waiting = [line.decode() for line in self._lines.kept] if self._lines else []
        return state | ({"lines": waiting} if waiting else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.meter.load_state_dict(state["meter"])
        self.seconds, self._logged = state["seconds"], state["said"]
        if self._lines and "lines" in state:
            self._lines.add("".join(state["lines"]).encode())

    def sync(self) -> None:
        """Bring what is written to the disk: a checkpoint must never be ahead of its log."""
        if self._lines:
            self._lines.sync()
        if self._board:
            self._board.sync()

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._lines:
            self._lines.close()
        if self._board:
            self._board.close()
        for tracker in self._trackers:
            tracker.close(getattr(kind, "exit_code", 1) if kind else 0)

    def _running(self) -> float:
        return time.perf_counter() - self._since

    def _clock(self) -> float:
        took = max(self._running(), 1e-9)
        self._since += took
        self.seconds += took
        return took

    def _write(self, line: dict[str, Any]) -> None:
        if self._lines:
            self._lines.log(line)
        values = {name: value for name, value in line.items() if name != "iteration"}
        if self._board:
            self._board.write(line["iteration"], values)
        for tracker in self._trackers:
            tracker.write(line["iteration"], values)


def gpu_memory_gib() -> float | None:
    """The most GPU memory that tensors have held so far in GiB; None on a CPU."""
    import torch

    if not torch.cuda.is_initialized():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)
