"""Images that cannot be read: named as they are met, counted, and too many of them stop the run.

The views replace such an image by another one (a function of the seed and its index), so a few bad
files do not end a run of days; a folder full of them is a mistake that must not be averaged over.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from densessl.core import distributed, files, lines
from densessl.core.errors import InputError
from densessl.core.names import one_line, to_line

logger = logging.getLogger("densessl")

ENOUGH = 100  # distinct images that must have been seen before a share is judged
NAMED = 10  # files named in the message; all of them are in the list file


class Unreadable:
    """The set of images that failed so far, listed in ``folder/unreadable.txt``.

    ``name(index)`` names an image; ``limit`` is the share of the images seen above which
    :meth:`check` stops the run. Only the process with ``writes`` touches the file and the log, and
    asks ``reason(index)`` why. A line of the file is the image, a tab, and the reason.
    """

    def __init__(
        self,
        folder: Path,
        name: Callable[[int], str],
        limit: float,
        writes: bool,
        reason: Callable[[int], str],
    ):
        self.path, self.name, self.limit = folder / "unreadable.txt", name, limit
        self.writes, self.reason = writes, reason
        self._list = lines.Lines(self.path)
        self.indices: set[int] = set()
        self.reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def restore(self, indices: Iterable[int]) -> None:
        """Take the set of a checkpoint, and write the list file again from it."""
        self.indices = set(indices)
        if not self.writes or not (self.indices or self.path.exists()):
            return
        try:
            listed = "".join(f"{self._line(n)}\n" for n in sorted(self.indices))
            files.write_text(self.path, listed)
        except OSError as error:
            lines.failed(self.path, error)

    def add(self, indices: Iterable[int]) -> None:
        """Count the images that failed in a step; each is named once."""
        new = sorted(set(indices) - self.indices)
        self.indices.update(new)
        if new and self.writes:
            for n in new:
                self._list.write(self._line(n))
                logger.warning(
                    "cannot read %s (%s); another image takes its place",
                    one_line(self.name(n)),
                    self._reason(n),
                )

    def _reason(self, index: int) -> str:
        if index not in self.reasons:
            self.reasons[index] = one_line(self.reason(index))
        return self.reasons[index]

    def _line(self, index: int) -> str:
        return f"{to_line(self.name(index))}\t{self._reason(index)}"

    def summary(self) -> str:
        """How many images could not be read, and how many for which reason; '' without any."""
        if not self.indices:
            return ""
        counted = Counter(map(self._reason, sorted(self.indices))).most_common(NAMED)
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in counted)
        return f"{len(self):,} images could not be read ({reasons}); all are listed in {self.path}"

    def check(self, seen: int, at_most: int) -> None:
        """Raise InputError when more than ``limit`` of the ``seen`` distinct images failed.

        Judged from 100 images on, or once all ``at_most`` that the run ever visits were seen.
        """
        if seen < min(ENOUGH, at_most) or len(self) <= self.limit * seen:
            return
        named = sorted(self.indices)[:NAMED]
        first = "\n  ".join(f"{one_line(self.name(n))}: {self._reason(n)}" for n in named)
        raise InputError(
            f"{len(self)} of the {seen} images seen so far cannot be read, more than "
            f"DATA.MAX_UNREADABLE = {self.limit:g} allows. All are listed in {self.path}; "
            f"the first:\n  {first}\nRepair or remove them, or raise DATA.MAX_UNREADABLE."
        )


def gathered(indices: Tensor, device: torch.device) -> list[int]:
    """The ``indices`` of all processes together, each once or more; all must call it in step."""
    counts = distributed.gather(torch.tensor([len(indices)], device=device))
    padded = torch.full((int(counts.max()),), -1, dtype=torch.long, device=device)
    padded[: len(indices)] = indices.to(device)
    everyone = distributed.gather(padded)
    return everyone[everyone >= 0].tolist()
