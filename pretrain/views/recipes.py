"""Augmentation recipes, each with its source: a crop, a flip and photometric operations per view.

The flip is drawn with the crop, so that geometry is known before any colour is touched. The colour
operations and the symmetric blur commute with a flip, so recipes that flip last (MoCo-v1, MoCo-v2)
give the same images with it up front.
"""

from dataclasses import dataclass, replace

from console.errors import InputError

MAX_SIGMA = 2.0  # pixels: the blur's kernel is long enough for it, colour.MAX_REACH


@dataclass(frozen=True)
class ViewRecipe:
    """How one view is made. Probabilities are per image.

    ``scale``: area of the crop over that of the image; ``ratio``: width over height, log-uniform.
    ``jitter``: brightness, contrast, saturation, hue as torchvision's ColorJitter, in random order.
    ``blur_sigma``: pixels of the view. ``grayscale_first``: before the jitter instead of after.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    grayscale_first: bool = False
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self):
        if self.blur_sigma[1] > MAX_SIGMA:
            raise InputError(f"blur_sigma {self.blur_sigma}: at most {MAX_SIGMA} pixels")


MOCO_V1 = ViewRecipe(
    jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=1.0, grayscale_first=True, blur=0.0
)
MOCO_V2 = ViewRecipe()
BYOL_FIRST = ViewRecipe(scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur=1.0)
BYOL_SECOND = replace(BYOL_FIRST, blur=0.1, solarize=0.2)

Recipe = tuple[ViewRecipe, ViewRecipe]
RECIPES: dict[str, Recipe] = {
    "moco_v1": (MOCO_V1, MOCO_V1),  # He et al. 2020, the official code
    "moco_v2": (MOCO_V2, MOCO_V2),  # Chen et al. 2020, the official code
    "moco_v2_coord": (MOCO_V2, MOCO_V2),  # SetSim's: flips second, which gives the same images
    "byol": (BYOL_FIRST, BYOL_SECOND),  # Grill et al. 2020; PixPro's pair
}
