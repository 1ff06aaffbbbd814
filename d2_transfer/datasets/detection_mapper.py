"""From a detection data set's dict to the model's input: Detectron2's mapper on our pixels."""

import copy
from pathlib import Path

import numpy as np
import torch

from densessl.core.errors import InputError
from densessl.probes import label_images
from densessl.weight_files.images import AS_STORED

from .. import compat

compat.setup()
from detectron2.data import DatasetMapper  # noqa: E402
from detectron2.data import detection_utils as utils  # noqa: E402
from detectron2.data import transforms as T  # noqa: E402

from .reading import Reading  # noqa: E402


class PlanesInput(T.AugInput):
    """An image whose channels are no colours ``[h, w, C]``: Pillow, which resizes, has none of
    several such channels, and takes the fourth for transparency. So each is transformed alone."""

    image: np.ndarray

    def transform(self, tfm: T.Transform) -> None:
        planes = np.ascontiguousarray(self.image.transpose(2, 0, 1))
        self.image = np.stack([tfm.apply_image(plane) for plane in planes], axis=2)


class CropWithoutPadding(T.FixedSizeCrop):
    """Detectron2's random crop to at most a size; 0.5 would also fill a smaller image up, with a
    colour that the model takes for pixels of the image."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return super().get_transform(image).transforms[0]


class DetectionMapper(DatasetMapper):
    """Detectron2's mapper (boxes, masks, keypoints, stuff) with images from the one decoder.

    Annotations are in pixels of the upright image, as EXIF's orientation says and as Detectron2
    takes them. Those of an image that was read at reduced scale shrink with it; its ``height`` and
    ``width`` stay the file's, so that predictions are in pixels of the file. An image that is
    evaluated by windows stays as it was read; what they show is :meth:`resized`. Raises InputError
    for a file that cannot be read, and for one whose size is not the annotations'.
    """

    def __init__(self, cfg, is_train: bool = True):
        super().__init__(cfg, is_train)
        self.read = Reading.of(cfg)
        self.by_windows = cfg.TEST.SLIDING_WINDOW.ENABLED and not is_train

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        """Detectron2's, or with large-scale jitter (INPUT.LSJ) in training, as Detectron2's own
        config of it has it: flip, resize, crop."""
        side = cfg.INPUT.LSJ.SIZE if "LSJ" in cfg.INPUT else 0
        if not (side and is_train):
            return super().from_config(cfg, is_train)
        (low, high), flip = cfg.INPUT.LSJ.SCALE, cfg.INPUT.RANDOM_FLIP
        augmentations: list[T.Augmentation] = [
            T.ResizeScale(low, high, side, side),
            CropWithoutPadding((side, side)),
        ]
        if flip != "none":
            across, down = flip == "horizontal", flip == "vertical"
            augmentations.insert(0, T.RandomFlip(horizontal=across, vertical=down))
        return super().from_config(cfg, False) | {
            "is_train": True,
            "augmentations": augmentations,
            "recompute_boxes": cfg.MODEL.MASK_ON,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        entry = copy.deepcopy(dataset_dict)
        pixels, size = self.read(entry["file_name"])
        _check_size(entry, size)
        entry["width"], entry["height"] = size
        if self.by_windows:
            entry.pop("annotations", None)
            return entry | {"image": as_tensor(pixels)}
        image, transforms = self._augmented(pixels)
        if (height := pixels.shape[0], width := pixels.shape[1]) != size[::-1]:
            reduction = T.ResizeTransform(size[1], size[0], height, width)
            transforms = T.TransformList([reduction]) + transforms
        entry["image"] = as_tensor(image)
        if self.proposal_topk is not None:
            utils.transform_proposals(
                entry, image.shape[:2], transforms, proposal_topk=self.proposal_topk
            )
        if (labels := entry.pop("sem_seg_file_name", None)) and self.is_train:
            stuff = transforms.apply_segmentation(_stuff(labels))
            entry["sem_seg"] = torch.as_tensor(stuff.astype(np.int64))
        annotations = entry.pop("annotations", None)
        if self.is_train and annotations is not None:
            entry["instances"] = self._instances(annotations, transforms, image.shape[:2])
        return entry

    def resized(self, pixels: np.ndarray) -> np.ndarray:
        """What a window shows ``[h, w, C]`` at the size that an image of its size would get."""
        return self._augmented(pixels)[0]

    def _augmented(self, pixels: np.ndarray) -> tuple[np.ndarray, T.TransformList]:
        augmented = PlanesInput(pixels) if self.read.format == AS_STORED else T.AugInput(pixels)
        transforms = self.augmentations(augmented)
        return augmented.image, transforms

    def _instances(self, annotations: list[dict], transforms, size: tuple[int, int]):
        """The objects that are no crowds, as the augmented image of ``size`` (h, w) shows them."""
        unused = {"segmentation"} if not self.use_instance_mask else set()
        unused |= {"keypoints"} if not self.use_keypoint else set()
        objects = [
            utils.transform_instance_annotations(
                {key: value for key, value in each.items() if key not in unused},
                transforms,
                size,
                keypoint_hflip_indices=self.keypoint_hflip_indices,
            )
            for each in annotations
            if each.get("iscrowd", 0) == 0
        ]
        # A crop may leave nothing of an object, of which Detectron2 makes no mask.
        objects = [each for each in objects if not _is_gone(each)]
        instances = utils.annotations_to_instances(objects, size, self.instance_mask_format)
        if self.recompute_boxes and objects:  # a crop may leave less of an object than of its box
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)


def _is_gone(annotation: dict) -> bool:
    polygons = annotation.get("segmentation")
    return isinstance(polygons, list) and not polygons


def _stuff(file: str) -> np.ndarray:
    try:
        return label_images.read(Path(file), palette=False)
    except label_images.BadLabels as error:
        raise InputError(str(error)) from None


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """``[h, w, C]`` as a model's input, ``[C, h, w]``."""
    return torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _check_size(entry: dict, size: tuple[int, int]) -> None:
    annotated = entry.get("width", size[0]), entry.get("height", size[1])
    if annotated == size:
        return
    turned = ""
    if annotated == size[::-1]:
        turned = (
            ". Its EXIF data may turn it, and annotations must be those of the upright picture: "
            "annotate it again, or save the picture without its orientation"
        )
    stated, real = ("x".join(map(str, each)) for each in (annotated, size))
    raise InputError(
        f"{entry['file_name']} has {real} pixels, but its annotations are of {stated}{turned}"
    )
