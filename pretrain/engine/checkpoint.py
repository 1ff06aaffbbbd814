"""The checkpoints of a run: a kill at any instant leaves those before it as they were."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from torch import Tensor

from densessl.core.checkpoint import damage, load, remove, save
from densessl.core.errors import InputError
from densessl.core.files import clear_partials
from densessl.core.form import NUMBER, Form, fault
from densessl.core.names import brief
from densessl.core.text import BAD_YAML

logger = logging.getLogger("densessl")

NAME = re.compile(r"step_(\d{8,})\.pth")
FOREIGN = "put a checkpoint of this run in its place, or take it away"
FINAL_FORM: dict[str, Any] = {  # of what is read of backbone_final.pth and of checkpoints
    "iteration": int,
    "config": str,
    "backbone": {...: Tensor},
    "pretrain": {
        "images": int,
        "images_sha256": str,
        "steps": int,
        "processes": int,
        "batch_size?": int,
        "changes?": [{"step": int, "options": {...: [object]}}],
        "own_files?": dict,
    },
}
STEP_FORM: Form = FINAL_FORM | {
    "model": {...: object},
    "optimizer": {"state": dict, "param_groups": [dict]},
    "scaler": dict,
    "unreadable": [int],
    "patience": {"skipped": int, "in_a_row": int},
    "logs": {
        "meter": {"sums": {...: NUMBER}, "counts": {...: int}},
        "seconds": NUMBER,
        "said": int,
        "lines?": [str],
    },
    "watch?": {
        "start?": (float, int, NoneType),
        "windows?": {...: [NUMBER]},
        "noticed?": {...: int},
    },
}


def check(path: Path, state: Any, form: Form) -> None:
    """InputError for what ``path`` holds where no run writes it, whatever its checksum says."""
    wrong = fault(state, form)
    if not wrong and (named := NAME.fullmatch(path.name)) and int(named[1]) != state["iteration"]:
        wrong = f"it holds step {state['iteration']}"
    if wrong:
        raise InputError(f"{path} is no checkpoint of densessl pretrain: {wrong}; {FOREIGN}")


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """The block in which what ``path`` holds is taken over, and nothing else is done.

    Where it is of another form than a run writes, that is one message.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, *BAD_YAML) as error:
        why = brief(" ".join(str(error).split()), 300)
        raise InputError(
            f"{path} is no checkpoint of this run ({type(error).__name__}: {why}); {FOREIGN}"
        ) from None


class Checkpoints:
    """The checkpoints of one run, in ``folder``.

    ``keep`` newest ones stay; one whose step is a multiple of ``keep_every`` (0: none) stays for
    good. Only one process of a run may call :meth:`save`.
    """

    def __init__(self, folder: Path, keep: int = 2, keep_every: int = 0):
        self.folder, self.keep, self.keep_every = Path(folder), keep, keep_every
        self.damaged: set[Path] = set()

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` steps lies."""
        return self.folder / f"step_{step:08d}.pth"

    def found(self) -> list[tuple[int, Path]]:
        """(step, file) of every checkpoint that is there, oldest first."""
        named = [(NAME.fullmatch(file.name), file) for file in self.folder.glob("step_*.pth")]
        return sorted((int(match[1]), file) for match, file in named if match)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write ``state`` as the checkpoint after ``step`` steps, then delete those outlived.

        Raises EnvironmentLacks when the disk is full; the earlier checkpoints are then untouched.
        """
        path = self.path(step)
        save(path, state, checked=True)
        self.damaged.discard(path)
        self._prune(step)
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its contents on the CPU; None for a new run.

        Each damaged one above it is named in the log. Raises InputError when all are damaged: a
        run never starts from scratch over its remains. Also for one that is as it was written, and
        none of PyTorch's.
        """
        found = self.found()
        for _, path in reversed(found):
            if reason := damage(path):
                self.damaged.add(path)
                logger.warning("%s is damaged (%s); trying the one before it", path, reason)
                continue
            return path, load(path, FOREIGN)
        if found:
            raise InputError(
                f"every checkpoint in {self.folder} is damaged ({len(found)} of {len(found)}); "
                "put a good copy back, or give another OUTPUT_DIR to start from the beginning"
            )
        return None

    def clean(self) -> None:
        """Remove what a killed run left, here and in the folder above (the run's own).

        That is: half-written files, and sidecars without a checkpoint.
        """
        clear_partials(self.folder, self.folder.parent)
        for side in self.folder.glob("step_*.pth.sha256"):
            if not side.with_suffix("").exists():
                side.unlink(missing_ok=True)

    def _prune(self, newest: int) -> None:
        overtaken = [(step, path) for step, path in self.found() if step <= newest]
        good = [(step, path) for step, path in overtaken if path not in self.damaged]
        for step, path in overtaken:
            for_good = self.keep_every and step % self.keep_every == 0
            if path in self.damaged or not (for_good or (step, path) in good[-self.keep :]):
                remove(path)
