"""What the engine knows of a method."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core.errors import InputError

from ..backbones import Backbone, build_backbone, last_level
from ..backbones.build import with_channels
from ..backbones.start import Start, starting_state
from ..views import NORMALIZATION, View
from ..views.normalization import given_normalization

logger = logging.getLogger("densessl")
_GIVEN: ContextVar[Iterator[Backbone] | None] = ContextVar("backbones", default=None)


class Method(nn.Module):
    """A method: :meth:`forward` gives the loss of a step, the rest keeps its state.

    The engine calls, at every step: ``before_step``, ``forward`` (through DDP where there are
    several processes), backward, ``after_backward``, the optimizer, ``after_step``. A step whose
    loss or gradient is not finite ends before the optimizer, and ``after_step`` is then not called.
    With ``SOLVER.ACCUMULATE`` forward and backward are called for each part of a step, and nothing
    but gradients, batch norm's statistics and :attr:`kept` may change in them.

    A loop of one's own leaves the counting to the method::

        for views in loader:
            loss = method(views)["loss"]
            optimizer.zero_grad()
            loss.backward()
            method.backward_done()
            optimizer.step()
            method.step_done()
    """

    backbone: Backbone  # what is pretrained
    dense: bool = False  # whether it compares positions, and so needs more than one
    multi_crop: bool = False  # whether it takes local views behind the two global ones
    pyramid: bool = False  # whether it needs maps at strides 4, 8, 16 and 32, which no ViT has
    same_flip: bool = False  # whether both views of an image must be mirrored, or none
    # whether a step may be computed in parts: no image's loss is computed from those of others
    accumulates: bool = False
    shuffles: bool = False  # whether keys are shuffled between the groups of batch norm
    momentum_option: str | None = None  # that holds m of its momentum encoder at the start
    queue_option: str | None = None  # that holds how many keys its queue keeps
    starts: tuple[tuple[str, str], ...] = ()  # options of what rests at first, each: in which unit
    steps: int = 1  # of the whole run, and of an epoch: the engine sets them before the first step
    steps_per_epoch: int = 1
    schedules: tuple[str, ...] = ()  # which of the two it reads
    step: int = 0  # that comes next, in a loop which calls step_done
    part: int = 0  # of the step, that is computed next
    # What a forward pass leaves for after_step, by any names: tensors with rows in front, so that
    # those of a step's parts can be joined.
    kept: Mapping[Any, Tensor] = MappingProxyType({})

    @cached_property
    def level(self) -> str:
        """The last map of the backbone it is built on, which most branches project."""
        return last_level(self.backbone.channels)

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise InputError for options that do not go together, before any work is done."""

    @classmethod
    def facts(cls, cfg: CfgNode) -> dict[str, Any]:
        """What records and tables show of a run by this method, beside the data and its length."""
        return {}

    def __call__(self, views: list[View], step: int | None = None) -> dict[str, Tensor]:
        """:meth:`forward`, of the step that comes next unless one is named."""
        return super().__call__(views, self.step if step is None else step)

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        """Float32 scalars of a step: ``"loss"``, detached terms ``"loss/…"`` and ``"stat/…"``."""
        raise NotImplementedError

    def backward_done(self) -> None:
        """Between backward and the optimizer: gradients of weights that rest are removed."""
        self.after_backward(self.step)

    def step_done(self) -> None:
        """After the optimizer: keys enter their queue, the momentum encoder follows."""
        self.after_step(self.step)
        self.step += 1
        self.before_step(self.step)

    def before_step(self, step: int) -> None:
        """What moves before the forward pass: a momentum encoder."""

    def after_backward(self, step: int) -> None:
        """Last change to the gradients: those of weights that rest are set to None."""

    def after_step(self, step: int) -> None:
        """What takes effect after the weights did: keys enter their queue."""

    def keys_kept(self) -> int:
        """How many keys of earlier steps are negatives; 0 without a queue."""
        return 0

    def ddp_ignored(self) -> list[str]:
        """Names of buffers that are equal on all processes anyway: DDP need not send them."""
        return []

    def at_peak_rate(self) -> list[nn.Module]:
        """Modules whose learning rate stays at its peak while that of the others falls."""
        return []

    def moved_weights(self) -> list[Tensor]:
        """Trained weights that :meth:`before_step` or :meth:`after_step` change, too."""
        return []

    def parameter_groups(self, cfg: CfgNode) -> list[dict]:
        """The groups for the optimizer: what is trained, with options of its own.

        ``fixed_lr``: the rate of the group stays at its peak. With ``SOLVER.PLAIN_1D``, tensors of
        one dimension (biases, norms) are neither decayed nor adapted by LARS.
        """
        resting = {id(p) for module in self.at_peak_rate() for p in module.parameters()}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                plain = cfg.SOLVER.PLAIN_1D and parameter.ndim <= 1
                groups.setdefault((id(parameter) in resting, plain), []).append(parameter)
        return [
            {"params": parameters, "fixed_lr": fixed}
            | ({"weight_decay": 0.0, "adapt": False} if plain else {})
            for (fixed, plain), parameters in groups.items()
        ]

    def compile_backbones(self) -> None:
        """``torch.compile`` every backbone in place; state dicts keep their names."""
        for name, module in self.named_children():
            if name.endswith("backbone"):
                module.compile()

    def backbone_state(self) -> dict[str, Tensor]:
        """The pretrained backbone under torchvision's names."""
        return self.backbone.state_dict()

    def fpn_state(self) -> dict[str, Tensor] | None:
        """The pretrained FPN (``fpn_lateral5.weight`` …), or None where a method has none."""
        return None


@contextmanager
def built_on(backbone: Backbone) -> Iterator[None]:
    """A method that is built within takes ``backbone``, not the one that its config describes.

    Where it needs a second one, that is a copy.
    """

    def given() -> Iterator[Backbone]:
        yield backbone
        while True:
            yield copy.deepcopy(backbone)

    before = _GIVEN.set(given())
    try:
        yield
    finally:
        _GIVEN.reset(before)


def new_backbone(cfg: CfgNode, drop_path: float = 0.0) -> Backbone:
    """The backbone that ``cfg.BACKBONE`` describes; InputError for WEIGHTS that do not fit it.

    ``drop_path`` is for a ViT. Within :func:`built_on` it is the one given there.
    """
    if given := _GIVEN.get():
        return next(given)
    options = cfg.BACKBONE
    backbone = build_backbone(
        options.NAME,
        norm=options.NORM,
        group_size=options.GROUP_SIZE,
        zero_init_residual=options.ZERO_INIT_RESIDUAL,
        drop_path=drop_path,
    )
    backbone = with_channels(backbone, cfg.DATA.CHANNELS)
    if options.WEIGHTS:
        start = starting_weights(cfg)
        logger.info("BACKBONE.WEIGHTS: %s", start.summary)
        backbone.load_state_dict(start.state)
    return backbone


def starting_weights(cfg: CfgNode) -> Start:
    """The backbone in ``BACKBONE.WEIGHTS``; InputError unless it is one of ``BACKBONE.NAME``."""
    options = cfg.BACKBONE
    return _weights(cfg, options.WEIGHTS, options.NAME, "BACKBONE.WEIGHTS", "BACKBONE.NAME")


def frozen_backbone(cfg: CfgNode, path: str, name: str, option: str, named: str) -> Backbone:
    """The network in a file that ``option`` names, in evaluation mode and without gradients, for
    the images of the run.

    ``name``: of timm's networks, whose files do not say it, by the option ``named``; else empty.
    Raises InputError as :func:`starting_weights`.
    """
    start = _weights(cfg, path, name, option, named)
    logger.info("%s: %s", option, start.summary)
    backbone = with_channels(build_backbone(start.network, norm="BN"), cfg.DATA.CHANNELS)
    backbone.load_state_dict(start.state)
    return backbone.eval().requires_grad_(False)


def _weights(cfg: CfgNode, path: str, name: str, option: str, named: str) -> Start:
    where = f"{option}: {path}"
    if not Path(path).is_file():
        raise InputError(f"{where} is no file (looked from {Path.cwd()})")
    normalization = given_normalization(cfg.DATA) or NORMALIZATION
    return starting_state(path, name, normalization, where, cfg.DATA.CHANNELS, named)


@torch.no_grad()
def feature_std(embedding: Tensor) -> Tensor:
    """Spread of unit vectors ``[M, D]``: mean over channels of their deviation, times √D.

    About 1 for embeddings spread over the sphere, 0 for collapsed ones. Source: SimSiam, 4.1.
    """
    return embedding.float().std(0, correction=0).mean() * embedding.shape[1] ** 0.5
