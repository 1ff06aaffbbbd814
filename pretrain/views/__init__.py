"""Images → augmented views whose geometry is known."""

from .dataset import (
    Batch,
    Sample,
    Sent,
    ViewDataset,
    apply_photometric,
    build_dataset,
    collate,
    photometric_views,
    send,
)
from .normalization import NORMALIZATION
from .recipes import RECIPES, Recipe, ViewRecipe, build_recipes, find_recipe
from .sources import ImageSource, build_source
from .transform import ViewTransform, collate_views
from .view import View

__all__ = [
    "NORMALIZATION",
    "RECIPES",
    "Batch",
    "ImageSource",
    "Recipe",
    "Sample",
    "Sent",
    "View",
    "ViewDataset",
    "ViewRecipe",
    "ViewTransform",
    "apply_photometric",
    "build_dataset",
    "build_recipes",
    "build_source",
    "collate",
    "collate_views",
    "find_recipe",
    "photometric_views",
    "send",
]
