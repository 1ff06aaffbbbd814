"""What a backbone makes of one image: two views of it, local crops, and their features."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from densessl.core.errors import InputError

from ..config import around
from ..correspondence import Pair
from ..options import PATCH
from ..views import (
    ImageSource,
    View,
    ViewDataset,
    apply_photometric,
    build_recipes,
    collate,
)
from .methods import LOCAL_CROPS, NEEDS_POSITIONS

if TYPE_CHECKING:
    from .by_classes import Voters
    from .checkpoint import Pretrained

LEAST_LOCAL = 32  # pixels
MOST_POSITIONS = 4096  # of a view: matches are between all of them


@dataclass
class Look:
    """Two views of an image and a backbone's features of them, B = 1.

    ``query`` and ``key`` are maps ``[1, C, h, w]`` of ``level``; ``local`` are local crops, and
    ``crops [1, Q, C]`` the mean feature of each. There are none where no method wants them.
    """

    model: "Pretrained"
    image: Path
    source: ImageSource  # of the image alone
    level: str
    seed: int
    views: list[View]
    local: list[View]
    query: Tensor
    key: Tensor
    crops: Tensor
    beside: tuple["Pretrained", ...] = ()  # other networks, for pictures that compare
    voters: "Voters | None" = None  # labelled images, for pictures of class probabilities

    @cached_property
    def pair(self) -> Pair:
        """What correspondences are computed from; view 1 looks for its positions in view 2."""
        return Pair(self.query, self.key, self.views[0], self.views[1])

    def forget(self) -> None:
        """Let go of what was computed between all positions; it would be computed again."""
        self.__dict__.pop("pair", None)

    @property
    def grid(self) -> tuple[int, int]:
        return self.query.shape[2], self.query.shape[3]

    @property
    def options(self) -> Any:
        """The options that the backbone was trained with, or the defaults."""
        return self.model.cfg

    @property
    def scale(self) -> float:
        """The side of these views over that of the views in the pretraining."""
        return self.views[0].image.shape[3] / self.options.VIEWS.SIZE

    def pixels(self, view: View) -> Tensor:
        """A view as people see it: ``[H, W, 3]`` in 0 to 1."""
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (self.model.mean, self.model.std))
        return (view.image[0] * std + mean).clamp(0, 1).permute(1, 2, 0)


@torch.no_grad()
def look_at(
    model: "Pretrained",
    image: Path,
    size: int | None,
    seed: int,
    level: str,
    methods: tuple[str, ...],
    beside: tuple["Pretrained", ...] = (),
    voters: "Voters | None" = None,
    *,
    source: ImageSource | None = None,
) -> Look:
    """Cut two views of ``size`` pixels by the checkpoint's recipe, and run the backbone on them.

    The views are a function of ``seed`` and of the image's size. ``size`` None is the
    pretraining's. ``source`` has the image alone: its file, unless it is given. Raises InputError
    for a size that gives too few or too many positions.
    """
    size = size or model.cfg.VIEWS.SIZE
    if model.network.startswith("vit") and size % PATCH:
        raise InputError(
            f"--size is {size}; {model.network} cuts views into patches of {PATCH} pixels; "
            f"nearest: {around(size, PATCH)}"
        )
    source = source or ImageSource(image.parent, [image.name], str(image))
    local = max(LOCAL_CROPS.get(method, 0) for method in methods)
    views = views_of(model, source, size, seed, local)
    query, key = (_features(model, view, level) for view in views[:2])
    _check_grid(query, size, level, methods)
    means = [_features(model, view, level).mean((2, 3)) for view in views[2:]]
    crops = torch.stack(means, 1) if means else query.new_empty(1, 0, query.shape[1])
    both, rest = views[:2], views[2:]
    features = (query, key, crops)
    return Look(model, image, source, level, seed, both, rest, *features, beside, voters)


def _features(model: "Pretrained", view: View, level: str) -> Tensor:
    return model.backbone(view.image)[level]  # [1, C, h, w]


def _check_grid(features: Tensor, size: int, level: str, methods: tuple[str, ...]) -> None:
    h, w = features.shape[2:]
    if h * w > MOST_POSITIONS:
        raise InputError(
            f"{level} of views of {size} pixels has {h} × {w} positions, too many to match with "
            f"each other (at most {MOST_POSITIONS}); give a smaller --size or a later --level"
        )
    unfit = [method for method in methods if method in NEEDS_POSITIONS]
    if h * w == 1 and unfit:
        raise InputError(
            f"{level} of views of {size} pixels has one position, and {unfit[0]} compares "
            "positions; give a larger --size or an earlier --level"
        )


def views_of(
    model: "Pretrained", source: ImageSource, size: int, seed: int, local: int = 0
) -> list[View]:
    """Two global views of the first image of ``source`` by the checkpoint's recipe, then ``local``
    local ones; B = 1."""
    options = model.cfg.VIEWS.clone()
    options.LOCAL_CROPS = local
    global_recipe, local_recipe = build_recipes(options)
    # In proportion to the views, and whole patches.
    side = round(options.LOCAL_SIZE * size / options.SIZE / PATCH) * PATCH
    dataset = ViewDataset(
        source,
        global_recipe,
        size,
        seed,
        local_recipe,
        max(LEAST_LOCAL, side),
        model.bounds,
    )
    return apply_photometric(collate([dataset[(0, 0)]]), "cpu", model.mean, model.std)
