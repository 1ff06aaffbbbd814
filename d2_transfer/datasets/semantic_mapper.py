"""From a semantic segmentation data set's dict to the model's input."""

from pathlib import Path

import numpy as np

from densessl.core.errors import InputError, unknown

from .. import compat

compat.setup()
import torch  # noqa: E402

from densessl.probes import label_images  # noqa: E402

from . import semantic_transforms as transforms  # noqa: E402
from .reading import Reading  # noqa: E402

FLIPPED = {"none": None, "horizontal": 2, "vertical": 1}  # dimension of [C, h, w]


class SemanticMapper:
    """Detectron2's mapper for the semantic protocols: one data set's dict → one input dict.

    In training: ``image`` (uint8 ``[3, h, w]`` in INPUT.FORMAT) and ``sem_seg`` (long ``[h, w]``),
    resized, cropped, flipped, distorted and padded to INPUT.CROP.SIZE: the image with the mean
    colour MODEL.PIXEL_MEAN as whole numbers, which is 0 but for 0.01 after the model's
    normalisation, the labels with SEM_SEG_HEAD.IGNORE_VALUE. Randomness comes from numpy's global
    generator, one draw a sample.

    Otherwise: ``image``, resized into INPUT.SCALE, with the original ``height`` and ``width``; the
    labels are left to the evaluator.

    Raises InputError for config values that it has no meaning for, and for labels that are not a
    single channel of the image's size with categories below SEM_SEG_HEAD.NUM_CLASSES.
    """

    def __init__(self, cfg, is_train: bool = True):
        _check(cfg)
        self.is_train = is_train
        self.read, self.scale = Reading.of(cfg), tuple(cfg.INPUT.SCALE)
        self.ratios = tuple(cfg.INPUT.RATIO_RANGE)
        height, width = map(int, cfg.INPUT.CROP.SIZE)
        self.crop = (height, width) if cfg.INPUT.CROP.ENABLED else None
        self.largest = cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA
        self.flipped = FLIPPED[cfg.INPUT.RANDOM_FLIP]
        self.distorted = cfg.INPUT.PHOTOMETRIC_DISTORTION
        self.mean = [round(value) for value in cfg.MODEL.PIXEL_MEAN]
        self.ignore = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        self.classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES

    def __call__(self, dataset_dict: dict) -> dict:
        image, (width, height) = self.read(dataset_dict["file_name"])  # [h, w, 3]
        given = dataset_dict | {"height": height, "width": width}
        if not self.is_train:
            size = image.shape[:2]  # of what was read, which may be less than the file has
            if self.scale:
                size = transforms.resized((height, width), self.scale)
            whole = transforms.Window(size, 0, 0, *size)
            return given | {"image": _channels_first(transforms.crop_image(image, whole))}
        whole_labels = read_labels(dataset_dict["sem_seg_file_name"])
        if whole_labels.shape != (height, width):
            rows, columns = whole_labels.shape
            raise InputError(
                f"{dataset_dict['sem_seg_file_name']} has {columns}x{rows} "
                f"pixels, its image {dataset_dict['file_name']} {width}x{height}; allowed: the same"
            )
        seed = np.random.randint(2**32, dtype=np.uint64)  # noqa: NPY002  (seeded by the loader)
        pixels, labels = self.augment(image, whole_labels, np.random.default_rng(seed))
        self._check_labels(labels, dataset_dict["sem_seg_file_name"])
        return given | {"image": pixels, "sem_seg": labels}

    def augment(
        self, image: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 image ``[h, w, 3]`` and labels ``[h, w]`` → image ``[3, H, W]``, long labels.

        The image may be smaller than its labels, where it was read at reduced scale.
        """
        ratio = generator.uniform(*self.ratios)
        size = transforms.resized(labels.shape, self.scale, ratio)
        crop = self.crop or size
        window = transforms.draw_window(labels, size, crop, self.largest, self.ignore, generator)
        pixels = _channels_first(transforms.crop_image(image, window))
        kept = torch.from_numpy(transforms.crop_labels(labels, window).astype(np.int64))[None]
        if self.flipped and generator.random() < 0.5:
            pixels, kept = pixels.flip(self.flipped), kept.flip(self.flipped)
        if self.distorted:
            pixels = transforms.distort(pixels, generator)
        pixels = transforms.pad(pixels, crop, self.mean)
        return pixels, transforms.pad(kept, crop, [self.ignore])[0]

    def _check_labels(self, labels: torch.Tensor, file: str) -> None:
        wrong = labels[(labels >= self.classes) & (labels != self.ignore)]
        if len(wrong):
            raise InputError(
                f"{file} has the label {int(wrong[0])}; allowed: 0 to {self.classes - 1} "
                f"(MODEL.SEM_SEG_HEAD.NUM_CLASSES {self.classes}) and {self.ignore}, which is "
                "ignored"
            )


def read_labels(file: str) -> np.ndarray:
    """The pixels of a label PNG as they are stored, ``[h, w]``.

    A PNG with a palette (VOC's masks) gives its indices. Raises InputError for a picture in colour.
    """
    try:
        return label_images.read(Path(file))
    except label_images.BadLabels as error:
        raise InputError(str(error)) from None


def _channels_first(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _check(cfg) -> None:
    """Refuse what this mapper would otherwise silently leave out."""
    given = cfg.INPUT
    if given.RANDOM_FLIP not in FLIPPED:
        raise unknown("flip", given.RANDOM_FLIP, FLIPPED, "INPUT.RANDOM_FLIP")
    scale, ratios, crop = tuple(given.SCALE), tuple(given.RATIO_RANGE), given.CROP
    if scale and (len(scale) != 2 or min(scale) < 1):
        raise InputError(
            f"INPUT.SCALE is {scale}; allowed: the long and the short edge in pixels, or () for "
            "the image's own size"
        )
    if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
        raise InputError(f"INPUT.RATIO_RANGE is {ratios}; allowed: two rising numbers above 0")
    if not crop.ENABLED:
        return
    size = tuple(crop.SIZE)
    if crop.TYPE != "absolute" or len(size) != 2 or any(e < 1 or e != int(e) for e in size):
        raise InputError(
            f"INPUT.CROP.TYPE is '{crop.TYPE}' and SIZE {size}; allowed for semantic "
            "segmentation: 'absolute' with the height and the width in pixels"
        )
    if not 0 < crop.SINGLE_CATEGORY_MAX_AREA <= 1:
        raise InputError(
            f"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA is {crop.SINGLE_CATEGORY_MAX_AREA}; allowed: "
            "above 0 up to 1, which bounds nothing"
        )
