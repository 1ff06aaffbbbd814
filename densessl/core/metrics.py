"""``metrics.jsonl``: a JSON object a line, cut back to the checkpoint where a run is resumed."""

import json
import math
import os
from collections.abc import Callable
from typing import Any

from . import files
from .lines import Lines


class Metrics(Lines):
    """The file that a run adds its numbers to."""

    def log(self, values: dict[str, Any]) -> None:
        """Append a line; NaN and infinities, which JSON has not, become null."""
        self.write(json.dumps({name: _plain(value) for name, value in values.items()}))

    def cut_back(self, stays: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines that do not stay (a killed run wrote them after the checkpoint that it
        resumes from), and those that a kill cut short."""
        if not self.path.is_file():
            return
        data = self.path.read_bytes()
        lines = [line for line in data.splitlines(keepends=True) if _is(line, stays)]
        kept = b"".join(line.rstrip(b"\r\n") + b"\n" for line in lines)
        if data.startswith(kept):
            os.truncate(self.path, len(kept))  # which needs no room on the disk
        elif kept == data + b"\n":
            self.write("")
        else:
            files.write_atomic(self.path, lambda stream: stream.write(kept))


def _is(line: bytes, stays: Callable[[dict[str, Any]], bool]) -> bool:
    try:
        return stays(json.loads(line))
    except ValueError:  # a kill hit it while it was written
        return False


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
