"""Augmentation recipes, each with its source: a crop, a flip and photometric operations per view.

The flip is drawn with the crop, so that geometry is known before any colour is touched. The colour
operations and the symmetric blur commute with a flip, so recipes that flip last (MoCo-v1, MoCo-v2)
give the same images with it up front.
"""

from dataclasses import dataclass, replace

from fvcore.common.config import CfgNode

from densessl.core.errors import InputError
from densessl.core.external import MARK, load_object

from ..config import crop_scale
from ..options import RECIPES as NAMES

MAX_SIGMA = 2.0  # pixels: the blur's kernel is long enough for it, colour.MAX_REACH


@dataclass(frozen=True)
class ViewRecipe:
    """How one view is made. Probabilities are per image.

    ``scale``: area of the crop over that of the image; ``ratio``: width over height, log-uniform.
    ``jitter``: brightness, contrast, saturation, hue as torchvision's ColorJitter, in random order.
    ``blur_sigma``: pixels of the view. ``grayscale_first``: before the jitter instead of after;
    ``blur_first``: before all colour. ``flip_of_first``: mirrored when the first view is.
    ``bicubic``: how the crop is scaled (bilinear otherwise).
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    flip_of_first: bool = False
    bicubic: bool = False
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    grayscale_first: bool = False
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_first: bool = False
    solarize: float = 0.0

    def __post_init__(self):
        if self.blur_sigma[1] > MAX_SIGMA:
            raise InputError(f"blur_sigma {self.blur_sigma}: at most {MAX_SIGMA} pixels")


MOCO_V1 = ViewRecipe(
    jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=1.0, grayscale_first=True, blur=0.0
)
MOCO_V2 = ViewRecipe()
PIXPRO_FIRST = ViewRecipe(scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur=1.0)
PIXPRO_SECOND = replace(PIXPRO_FIRST, blur=0.1, solarize=0.2)
BYOL_FIRST, BYOL_SECOND = (replace(r, bicubic=True) for r in (PIXPRO_FIRST, PIXPRO_SECOND))
DINO_LOCAL = replace(BYOL_FIRST, blur=0.5)
SIMCLR = ViewRecipe(scale=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2))
SWAV = replace(SIMCLR, scale=(0.14, 1.0))
MOCO_V2_SAME_FLIP = replace(MOCO_V2, flip_of_first=True)
RESIM = replace(MOCO_V2_SAME_FLIP, blur_first=True)

Recipe = tuple[ViewRecipe, ...]
RECIPES: dict[str, Recipe] = {  # of the two global views; a third one is for local views
    "moco_v1": (MOCO_V1, MOCO_V1),  # He et al. 2020, the official code
    "moco_v2": (MOCO_V2, MOCO_V2),  # Chen et al. 2020, the official code
    "moco_v2_coord": (MOCO_V2, MOCO_V2),  # SetSim's: flips second, which gives the same images
    "byol": (BYOL_FIRST, BYOL_SECOND),  # Grill et al. 2020
    "pixpro": (PIXPRO_FIRST, PIXPRO_SECOND),  # BYOL's pair, bilinear
    "simclr": (SIMCLR, SIMCLR),  # Chen et al. 2020
    "dino": (BYOL_FIRST, BYOL_SECOND, DINO_LOCAL),  # Caron et al. 2021
    "swav": (SWAV, SWAV),  # Caron et al. 2020; its local crops by VIEWS.LOCAL_CROPS
    "resim": (RESIM, RESIM),  # Xiao et al. 2021, the official code: blur first, one flip for both
    "moco_v2_same_flip": (MOCO_V2_SAME_FLIP, MOCO_V2_SAME_FLIP),  # ReSim as its paper says it
}

assert tuple(RECIPES) == NAMES


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or your own by ``path/to/file.py:Name``: a :class:`ViewRecipe` for all
    views, or a tuple of two or three, as :data:`RECIPES` has them. InputError for anything else."""
    if MARK not in name:
        return RECIPES[name]
    found = load_object(name, "recipe", "VIEWS.RECIPE")
    recipe = (found, found) if isinstance(found, ViewRecipe) else found
    views = isinstance(recipe, tuple) and all(isinstance(each, ViewRecipe) for each in recipe)
    if not views or len(recipe) not in (2, 3):
        raise InputError(
            f"VIEWS.RECIPE: {name} is '{found}'; it must be a ViewRecipe, or a tuple of two or "
            "three: of the first view, of the second, and of local ones"
        )
    return recipe


def build_recipes(views: CfgNode) -> tuple[Recipe, Recipe]:
    """The recipes of the global and of the local views that ``cfg.VIEWS`` asks for.

    Raises InputError for crop scales that are no range within (0, 1].
    """
    recipe = find_recipe(views.RECIPE)
    global_views, local = recipe[:2], recipe[-1]
    if views.SCALE:
        scale = crop_scale(views.SCALE, "VIEWS.SCALE")
        global_views = tuple(replace(recipe, scale=scale) for recipe in global_views)
    local = replace(local, scale=crop_scale(views.LOCAL_SCALE, "VIEWS.LOCAL_SCALE"))
    return global_views, (local,) * views.LOCAL_CROPS
