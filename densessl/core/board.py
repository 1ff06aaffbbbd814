"""Scalars for TensorBoard, written without a thread of their own, so that no error is lost."""

import io
import itertools
import logging
import os
import socket
import time
from pathlib import Path

from .lines import Growing

_numbers = itertools.count()

logger = logging.getLogger("densessl")


class Board:
    """A new events file in ``folder``; what an interrupted run wrote beyond step ``start`` is
    hidden. Without TensorBoard nothing is written.

    TensorBoard's own writer raises a full disk's error from its thread at some later step, and
    writes nothing more. Here the scalars wait until there is room, as in any log.
    """

    def __init__(self, folder: Path, start: int = 0):
        self._file: Growing | None = None
        try:
            from tensorboard.compat.proto import event_pb2
        except ImportError:
            logger.info("TensorBoard is not installed: metrics.jsonl has everything")
            return
        suffix = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._file = Growing(Path(folder) / f"events.out.tfevents.{suffix}")
        self._add(file_version="brain.Event:2")
        if start:  # from this step on, what earlier files have is no longer shown
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=start + 1, session_log=log)

    def write(self, step: int, values: dict[str, float]) -> None:
        """The scalars of a step."""
        if self._file is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=Summary(value=scalars))

    def sync(self) -> None:
        """Bring what is written to the disk."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Write what still waits, if that is possible now."""
        if self._file is not None:
            self._file.close()

    def _add(self, **event) -> None:
        assert self._file is not None
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **event).SerializeToString())
        self._file.add(record.getvalue())
