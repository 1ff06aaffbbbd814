"""How long a run bears steps whose loss or gradient is not finite, and what it says then."""

import logging
from collections.abc import Callable
from pathlib import Path

from densessl.core.errors import InputError
from densessl.core.lines import Lines
from densessl.core.names import one_line, to_line

from .step import StepOutcome

logger = logging.getLogger("densessl")

NAMED = 5  # files named in the message; all of them are in the list file


class Patience:
    """Counts steps that were not applied; ``most`` in a row end the run.

    ``batch(step)`` gives the file names of a step's global batch, ``advice()`` what to do when the
    run has ended. Steps that only lower the scale
    of the fp16 loss are counted in :attr:`skipped`, but not against the limit.
    """

    def __init__(
        self,
        folder: Path,
        most: int,
        batch: Callable[[int], list[str]],
        writes: bool,
        advice: Callable[[], str] = lambda: "Look at these images.",
    ):
        self.folder, self.most, self.batch, self.writes = folder, most, batch, writes
        self.advice = advice
        self.skipped = self.in_a_row = 0

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def count(self, step: int, outcome: StepOutcome) -> None:
        """Take note of a step; raises InputError naming step and batch when it was one too many."""
        if outcome.applied:
            self.in_a_row = 0
            return
        self.skipped += 1
        what = ", ".join(f"{name} {outcome.values[name]}" for name in ("loss", "grad_norm"))
        if outcome.overflow:
            logger.info("step %d: fp16 overflow, loss scale lowered (%s)", step, what)
            return
        self.in_a_row += 1
        logger.warning("step %d skipped, nothing was changed: %s", step, what)
        if self.in_a_row < self.most:
            return
        names = self.batch(step)
        path = self.folder / f"nonfinite_step_{step:08d}.txt"
        if self.writes:
            path.unlink(missing_ok=True)  # of the same step before a resumption
            Lines(path).write("\n".join(map(to_line, names)))
        first = "\n  ".join(map(one_line, names[:NAMED]))
        raise InputError(
            f"{self.most} steps in a row had a loss or gradient that is not finite, the last at "
            f"step {step} ({what}). The weights are those before the first of them. The "
            f"{len(names)} images of step {step} are listed in {path}; the first:\n  {first}\n"
            f"{self.advice()}"
        )
