"""What a trial saves: the two newest checkpoints of its training, and then the trained model."""

import logging
import os
from pathlib import Path
from typing import Any

from densessl.core import checkpoint, files
from densessl.core.distributed import is_main
from densessl.core.errors import InputError

logger = logging.getLogger("densessl")
FINAL = "model_final.pth"  # as Detectron2 names it
NOTE = "last_checkpoint"  # says that a trial was begun, and names what it saved last: Detectron2's
CURE = "put a good copy back, or remove them, and the trial starts from the beginning"


class Saved(checkpoint.NumberedCheckpoints):
    """The checkpoints ``model_<number>.pth`` in the folder of a trial, and ``model_final.pth``.

    Each has its SHA-256 beside it. A detector's number is that of its last step, from 0, as
    Detectron2 has it; a classifier's counts its steps.
    """

    def __init__(self, folder: str | os.PathLike):
        super().__init__(Path(folder), "model_", 7, CURE)

    @property
    def begun(self) -> bool:
        """Whether a trial saved something here; a folder without its note is none's."""
        return (self.folder / NOTE).is_file()

    @property
    def final(self) -> Path:
        """Where the trained model lies."""
        return self.folder / FINAL

    def whole(self) -> Path | None:
        return super().whole() if self.begun else None

    def save(self, number: int, state: dict[str, Any]) -> Path:
        path = super().save(number, state)
        self._note(path)
        return path

    def save_final(self, model: dict[str, Any]) -> None:
        """Write the trained ``model``, a state dict: the last thing that a training does."""
        checkpoint.save(self.final, {"model": model}, checked=True)
        self._note(self.final)

    def trained(self) -> Path | None:
        """The model of a trial whose training has come to its end, evaluated or not.

        A damaged one does not count, which the log says: the training resumes from the checkpoint
        before it.
        Raises InputError where there is none before.
        """
        if not (self.begun and self.final.is_file()):
            return None
        reason = checkpoint.damage(self.final, copied=True)
        if reason is None:
            return self.final
        if not self.found():
            raise InputError(
                f"{self.final} is damaged ({reason}), and no checkpoint is there from before it; "
                f"{CURE}"
            )
        if is_main():
            logger.warning("%s is damaged (%s); trying the one before it", self.final, reason)
        return None

    def is_trained(self) -> bool:
        """Whether :meth:`trained` would find a model."""
        return (
            self.begun and self.final.is_file() and not checkpoint.damage(self.final, copied=True)
        )

    def finish(self) -> None:
        """Keep the trained model alone: the trial is recorded."""
        for _, path in self.found():
            checkpoint.remove(path)
        self.clean()

    def _note(self, path: Path) -> None:
        with files.full_disk_reported(path):
            files.write_text(self.folder / NOTE, path.name)
