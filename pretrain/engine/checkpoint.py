"""The checkpoints of a run: a kill at any instant leaves those before it as they were."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from torch import Tensor

from densessl.core.checkpoint import NumberedCheckpoints, load
from densessl.core.errors import InputError
from densessl.core.files import clear_partials
from densessl.core.form import NUMBER, Form, fault
from densessl.core.names import brief
from densessl.core.text import BAD_YAML

NAME = re.compile(r"step_(\d{8,})\.pth")
FOREIGN = "put a checkpoint of this run in its place, or take it away"
FINAL_FORM: dict[str, Any] = {  # of what is read of backbone_final.pth and of checkpoints
    "iteration": int,
    "config": str,
    "backbone": {...: Tensor},
    "normalization?": {"mean": [NUMBER], "std": [NUMBER]},
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
    wrong = fault(state, form) or fault(state.get("range") or [], [NUMBER], ("range",))
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


class Checkpoints(NumberedCheckpoints):
    """The checkpoints of one run, in ``folder``, each with the number of its step."""

    def __init__(self, folder: Path, keep: int = 2, keep_every: int = 0):
        cure = "put a good copy back, or give another OUTPUT_DIR to start from the beginning"
        super().__init__(folder, "step_", 8, cure, keep)
        self.keep_every = keep_every

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its contents on the CPU; None for a new run.

        Raises InputError as :meth:`whole` does, and for one that is as it was written, and none of
        PyTorch's.
        """
        path = self.whole()
        return (path, load(path, FOREIGN)) if path else None

    def clean(self) -> None:
        """Remove what a killed run left, here and in the folder above (the run's own)."""
        super().clean()
        clear_partials(self.folder.parent)
