"""Checkpoints of detectors in training."""

import os
import re
from pathlib import Path

from densessl.core import checkpoint, files

from . import compat, convert
from .weights import fpn_name

compat.setup()
from detectron2.checkpoint import DetectionCheckpointer  # noqa: E402


class AtomicCheckpointer(DetectionCheckpointer):
    """Checkpoints that are whole or not there, one at a time, and never unpickled as code.

    ``transfer_fpn``: whether the FPN of a weights file is loaded, too (MODEL.FPN.TRANSFER);
    Detectron2 would match its names in any case.
    """

    def __init__(self, model, folder: str = "", transfer_fpn: bool = False, **checkpointed):
        super().__init__(model, folder, **checkpointed)
        self.transfer_fpn = transfer_fpn

    def save(self, name: str, **extra) -> None:
        if not (self.save_dir and self.save_to_disk):
            return
        held = {"model": self.model.state_dict(), **extra}
        held |= {key: each.state_dict() for key, each in self.checkpointables.items()}
        target = Path(self.save_dir) / f"{name}.pth"
        with files.full_disk_reported(target):
            checkpoint.save(target, held)
            files.write_text(Path(self.save_dir) / "last_checkpoint", target.name)
        for older in Path(self.save_dir).glob("model_*.pth"):
            if older != target:
                older.unlink()

    def _load_file(self, filename: str) -> dict:
        if filename.endswith(".pkl"):
            held = convert.read_weights(filename)
            if not self.transfer_fpn:
                kept = {k: v for k, v in held["model"].items() if fpn_name(k) is None}
                held = held | {"model": kept}
            return held
        return checkpoint.load(Path(filename), "remove it, and the trial begins anew")

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from, and not only the note of one."""
        return super().has_checkpoint() and Path(self.get_checkpoint_file()).is_file()


def steps_done(folder: str | os.PathLike) -> int:
    """How many steps the last checkpoint in a trial's folder has behind it; 0 without one.

    ``model_final.pth`` counts as 0: nothing is drawn from the data after it.
    """
    last = Path(folder) / "last_checkpoint"
    name = last.read_text(errors="replace").strip() if last.is_file() else ""
    found = re.search(r"model_(\d+)", name) if (last.parent / name).is_file() else None
    return int(found[1]) + 1 if found else 0
