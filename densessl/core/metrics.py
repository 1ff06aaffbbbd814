"""``metrics.jsonl``: a JSON object a line, cut back to the checkpoint where a run is resumed."""

import json
import logging
import math
import os
from collections.abc import Callable
from typing import Any

from . import files, names
from .lines import Lines
from .units import many


class Metrics(Lines):
    """The file that a run adds its numbers to."""

    def log(self, values: dict[str, Any]) -> None:
        """Append a line; NaN and infinities, which JSON has not, become null."""
        self.write(json.dumps({name: _plain(value) for name, value in values.items()}))

    def cut_back(self, stays: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines that do not stay (a killed run wrote them after the checkpoint that it
        resumes from), and what a kill cut short at the end.

        Other lines that are no numbers of a run are damage: they are left out, and said to be.
        """
        if not self.path.is_file():
            return
        data = self.path.read_bytes()
        lines = data.splitlines(keepends=True)
        asked = [_asked(line, stays) for line in lines]
        damaged = [n for n, answer in enumerate(asked, 1) if answer is None]
        if damaged and lines[-1][-1:] != b"\n" and damaged[-1] == len(lines):
            damaged.pop()  # a kill hit it while it was written
        lines = [line for line, answer in zip(lines, asked, strict=True) if answer]
        if damaged:
            logging.getLogger("densessl").warning(
                "%s is damaged: %s cannot be read, left out (%s); %d are kept",
                names.one_line(self.path),
                many(len(damaged), "line"),
                ", ".join([*map(str, damaged[:5]), *["…"] * (len(damaged) > 5)]),
                len(lines),
            )
        kept = b"".join(line.rstrip(b"\r\n") + b"\n" for line in lines)
        if data.startswith(kept):
            os.truncate(self.path, len(kept))  # which needs no room on the disk
        elif kept == data + b"\n":
            self.write("")
        else:
            files.write_atomic(self.path, lambda stream: stream.write(kept))


def _asked(line: bytes, stays: Callable[[dict[str, Any]], bool]) -> bool | None:
    """Whether a line stays; None where it is none of a run's."""
    if not line.strip():
        return False
    try:
        return bool(stays(files.parse_json(line)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
