"""Views for a loop of one's own: a transform for any data set of images, and what collates."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image

from densessl.core.errors import InputError, unknown
from densessl.core.external import MARK

from . import colour
from .dataset import draw_view
from .normalization import NORMALIZATION
from .recipes import RECIPES, build_recipes
from .view import View


class ViewTransform:
    """An image → its views, as a method takes them once :func:`collate_views` has joined them.

    Each is a :class:`View` without B: ``image [3, size, size]``, normalised as ImageNet is;
    ``box [4]``, ``flip []``, ``size [2]``. Two global views come first, then the local ones. What
    is drawn follows torch's generator, so ``torch.manual_seed`` and a loader's workers govern it.

    Args:
        recipe: a name of :data:`RECIPES`, or ``path/to/file.py:Name``.
        size: side of a global view in pixels.
        scale: least and largest area of a global crop over that of the image; the recipe's unless
            given.
        local_crops: how many local views, of ``local_size`` pixels and ``local_scale`` areas.

    Raises:
        InputError: for an unknown recipe, and for what is no range within (0, 1].

    Example::

        data = torchvision.datasets.ImageFolder("images", ViewTransform("moco_v2", size=224))
        loader = torch.utils.data.DataLoader(data, 64, shuffle=True, collate_fn=collate_views)
    """

    def __init__(
        self,
        recipe: str = "moco_v2",
        size: int = 224,
        *,
        scale: tuple[float, float] | None = None,
        local_crops: int = 0,
        local_size: int = 96,
        local_scale: tuple[float, float] = (0.05, 0.14),
    ):
        if recipe not in RECIPES and MARK not in recipe:
            raise unknown("recipe", recipe, RECIPES)
        options = {"RECIPE": recipe, "SCALE": scale or (), "LOCAL_CROPS": local_crops}
        views = CfgNode(options | {"LOCAL_SCALE": local_scale})
        self.recipes, local = build_recipes(views)
        self.sizes = [size] * len(self.recipes) + [local_size] * len(local)
        self.recipes += local

    def __call__(self, image: Image.Image) -> list[View]:
        image = image if image.mode == "RGB" else image.convert("RGB")
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        mean, std = (torch.tensor(NORMALIZATION[key])[:, None, None] for key in ("mean", "std"))
        views: list[View] = []
        for recipe, size in zip(self.recipes, self.sizes, strict=True):
            first_flip = [bool(view.flip) for view in views[:1]]
            pixels, box, flip, drawn = draw_view(rng, image, recipe, size, first_flip)
            (x,) = colour.photometric(pixels[None].float().div_(255), drawn[None])
            edges, whole = (torch.tensor(each, dtype=torch.float32) for each in (box, image.size))
            views.append(View((x - mean) / std, edges, torch.tensor(flip), whole))
        return views


def collate_views(samples: Sequence[Any]) -> list[View]:
    """The views of a batch, a :class:`View` of B images each: what a method takes.

    ``samples``: what :class:`ViewTransform` gave, one an image; or tuples that begin with it, as
    data sets with labels return, of which the rest is left out.
    """
    of_images = [sample[0] if isinstance(sample, tuple) else sample for sample in samples]
    if not all(isinstance(each, View) for views in of_images for each in views):
        raise InputError("collate_views takes what ViewTransform gives: a list of views an image")
    return [_joined(views) for views in zip(*of_images, strict=True)]


def _joined(views: Sequence[View]) -> View:
    names = [field.name for field in fields(View)]
    return View(**{name: torch.stack([getattr(view, name) for view in views]) for name in names})
