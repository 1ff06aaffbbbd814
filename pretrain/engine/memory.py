"""What a step keeps in memory for its backward pass, from shapes alone; whether a CPU's holds it.

The real model of a config and its real forward pass lie on the ``meta`` device: shapes, and no
numbers.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.optim import Optimizer

from densessl.core import distributed, limits
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.units import byte_size

from .. import config
from ..methods import Method
from ..views import View
from .build import build_model

META = torch.device("meta")
FLOAT32 = 4  # bytes
MOST = 1000  # times the bytes of its views that a step keeps, at most: of a ResNet-50 150 times
ROOM = 0.7  # of the free memory, for what is kept alone: whole steps took 1.1 to 1.4 times as much

logger = logging.getLogger("densessl")


def built(cfg: CfgNode, images: int) -> tuple[Method, Optimizer, list[View]]:
    """Model, optimizer and views of ``images`` images of a config, all on the meta device."""
    sides = [cfg.VIEWS.SIZE] * 2 + [cfg.VIEWS.LOCAL_SIZE] * cfg.VIEWS.LOCAL_CROPS
    with META:
        method, optimizer = build_model(cfg, META)
        views = [_view(images, cfg.DATA.CHANNELS, side) for side in sides]
    return method, optimizer, views


def _view(images: int, channels: int, side: int) -> View:
    image, box = torch.empty(images, channels, side, side), torch.empty(images, 4)
    return View(image, box, torch.empty(images, dtype=torch.bool), torch.empty(images, 2))


class Kept:
    """The tensors that a forward pass keeps for the backward pass."""

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}  # by storage; held, so that none is used again

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """In this block they are noted."""

        def keep(x: Tensor) -> Tensor:
            self._found[x.untyped_storage()._cdata] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            yield

    def bytes(self, but: Iterable[Tensor]) -> int:
        """Their bytes, without those that are ``but``'s: weights, which are there anyway."""
        own = {each.untyped_storage()._cdata for each in but}
        return sum(tensor_bytes(x) for where, x in self._found.items() if where not in own)


def tensor_bytes(x: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return x.numel() * x.element_size()


def kept_bytes(cfg: CfgNode, images: int) -> int:
    """Bytes that a step of ``images`` images keeps for its backward pass, in float32."""
    cfg = cfg.clone()
    cfg.BACKBONE.WEIGHTS = ""
    method, _, views = built(cfg, images)
    method.steps = method.steps_per_epoch = 1000
    method.before_step(0)
    kept = Kept()
    with kept.here():
        method(views, 0)
    return kept.bytes([*method.parameters(), *method.buffers()])


def check_memory(cfg: CfgNode, device: torch.device, begun: bool) -> None:
    """Raise EnvironmentLacks where a step on the CPU keeps more than this machine has free.

    The system would end the process without a word. What is kept is the least that a step takes.
    Several processes are not checked, nor COMPILE, which computes a part of it anew, nor a method
    that needs numbers for its forward pass. ``begun``: the run has checkpoints.
    """
    if device.type != "cpu" or distributed.world_size() > 1 or cfg.COMPILE:
        return
    free = limits.available_memory()
    pixels = 2 * cfg.VIEWS.SIZE**2 + cfg.VIEWS.LOCAL_CROPS * cfg.VIEWS.LOCAL_SIZE**2
    images = cfg.SOLVER.BATCH_SIZE // cfg.SOLVER.ACCUMULATE
    if free is None or images * pixels * cfg.DATA.CHANNELS * FLOAT32 * MOST <= free:
        return
    try:
        kept = kept_bytes(cfg, images)
    except Exception as error:  # of a user's own code, any
        logger.debug("what a step keeps in memory is not known beforehand: %s", error)
        return
    kept = kept if cfg.AMP == "off" else kept // 2
    parts = f" in {cfg.SOLVER.ACCUMULATE} parts" if cfg.SOLVER.ACCUMULATE > 1 else ""
    step = f"a step of SOLVER.BATCH_SIZE {cfg.SOLVER.BATCH_SIZE}{parts}"
    fixes = " or ".join(_smaller(cfg, kept / images, ROOM * free, begun))
    fixes = f"give {fixes}" if fixes else "give smaller views (VIEWS.SIZE)"
    if kept > free:
        raise EnvironmentLacks(
            f"{step} keeps {byte_size(kept)} in memory, and more for a moment, and "
            f"{byte_size(free)} are free; {fixes}, or close other programs"
        )
    if kept > ROOM * free:
        logger.warning(
            "%s keeps %s in memory, and more for a moment, and %s are free: the system may end the "
            "run; %s",
            step,
            byte_size(kept),
            byte_size(free),
            fixes,
        )


def _smaller(cfg: CfgNode, each: float, room: float, begun: bool) -> Iterator[str]:
    """Options with which a step fits into ``room`` bytes, at ``each`` an image."""
    batch = cfg.SOLVER.BATCH_SIZE
    change = " --change SOLVER.ACCUMULATE" if begun else ""
    for parts in range(cfg.SOLVER.ACCUMULATE + 1, batch // 2 + 1):
        if batch // parts * each <= room and _allowed(cfg, "ACCUMULATE", parts):
            yield f"SOLVER.ACCUMULATE {parts}{change} (the same batch, in so many parts)"
            break
    fitting = int(room / each) * cfg.SOLVER.ACCUMULATE
    for images in (2**power for power in range(fitting.bit_length() - 1, 0, -1)):
        if not begun and images < batch and _allowed(cfg, "BATCH_SIZE", images):
            yield f"SOLVER.BATCH_SIZE {images} (the rate follows)"
            break


def _allowed(cfg: CfgNode, option: str, value: int) -> bool:
    other = cfg.clone()
    other.SOLVER[option] = value
    with contextlib.suppress(InputError):
        config.validate(other)
        return True
    return False
