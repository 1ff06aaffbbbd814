"""Checkpoints of detectors in training."""

from pathlib import Path

from densessl.core import checkpoint

from . import compat, convert
from .saved import CURE, FINAL, Saved
from .weights import fpn_name

compat.setup()
from detectron2.checkpoint import DetectionCheckpointer  # noqa: E402


class AtomicCheckpointer(DetectionCheckpointer):
    """Checkpoints that are whole or not there, that are known when they are damaged, and that are
    never unpickled as code.

    ``transfer_fpn``: whether the FPN of a weights file is loaded, too (MODEL.FPN.TRANSFER);
    Detectron2 would match its names in any case. ``resumed``: the checkpoint to resume from.
    """

    def __init__(
        self,
        model,
        folder: str = "",
        transfer_fpn: bool = False,
        resumed: Path | None = None,
        **checkpointed,
    ):
        super().__init__(model, folder, **checkpointed)
        self.saved, self.transfer_fpn, self.resumed = Saved(folder), transfer_fpn, resumed

    def save(self, name: str, **extra) -> None:
        if not (self.save_dir and self.save_to_disk):
            return
        model = self.model.state_dict()
        if f"{name}.pth" == FINAL:
            self.saved.save_final(model)
            return
        held = {key: each.state_dict() for key, each in self.checkpointables.items()}
        number = self.saved.number(Path(f"{name}.pth"))
        assert number is not None  # Detectron2 names it by its step
        self.saved.save(number, {"model": model, **extra, **held})

    def _load_file(self, filename: str) -> dict:
        if filename.endswith(".pkl"):
            held = convert.read_weights(filename)
            if not self.transfer_fpn:
                kept = {k: v for k, v in held["model"].items() if fpn_name(k) is None}
                held = held | {"model": kept}
            return held
        return checkpoint.load(Path(filename), CURE)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from: that which was found to be whole."""
        return self.resumed is not None

    def get_checkpoint_file(self) -> str:
        return str(self.resumed or "")
