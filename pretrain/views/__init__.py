"""Images → augmented views whose geometry is known."""

from .dataset import (
    Batch,
    Sample,
    ViewDataset,
    apply_photometric,
    build_dataset,
    collate,
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
]
