"""Detection by sliding windows: the objects of a large image, found window by window and merged."""

from __future__ import annotations

from collections.abc import Sequence

from densessl.core.watchdog import beat

from .. import compat, windows
from ..config import DETECTORS

compat.setup()
import torch  # noqa: E402
from detectron2.layers import batched_nms  # noqa: E402
from detectron2.structures import Boxes, Instances, pairwise_iou  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from ..datasets.detection_mapper import DetectionMapper, as_tensor  # noqa: E402
from .segmentor import SlidingWindowSegmentor  # noqa: E402

SEGMENTORS = {"SemanticSegmentor"}  # that of Detectron2's; FCNSegmentor has windows of its own
Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def by_windows(cfg, model: nn.Module) -> nn.Module:
    """The model as TEST.SLIDING_WINDOW says: as it is, or looking through windows.

    A network that is in neither ``DETECTORS`` nor ``SEGMENTORS`` reads the options by itself.
    """
    network = cfg.MODEL.META_ARCHITECTURE
    if cfg.TEST.SLIDING_WINDOW.ENABLED and network in DETECTORS:
        return SlidingWindowDetector(cfg, model)
    if cfg.TEST.SLIDING_WINDOW.ENABLED and network in SEGMENTORS:
        return SlidingWindowSegmentor(cfg, model)
    return model


class SlidingWindowDetector(nn.Module):
    """A detector that looks at an image through windows, one after the other.

    What a window shows is cut out of the image as it was read, resized as a whole image would be,
    and looked at by itself, so the detector needs memory for one. :func:`merged` makes one list of
    all that was found. An image that fits into one window has the detector's own output.
    """

    def __init__(self, cfg, model: nn.Module):
        super().__init__()
        self.model, self.window = model, windows.of(cfg)
        self.mapper = DetectionMapper(cfg, is_train=False)
        self.threshold = cfg.MODEL[DETECTORS[cfg.MODEL.META_ARCHITECTURE]].NMS_THRESH_TEST
        self.most = cfg.TEST.DETECTIONS_PER_IMAGE
        self.train(model.training)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """A dict with ``instances`` for each input, which has the ``image [C, h, w]`` as it was
        read, and ``height`` and ``width`` of the file."""
        return [{"instances": self._detect(each)} for each in batched_inputs]

    def _detect(self, entry: dict) -> Instances:
        (_, h, w), size = entry["image"].shape, (entry["height"], entry["width"])
        assert self.window  # by_windows
        cells = [
            (left, top, right, bottom)
            for top, bottom in windows.spans(h, *self.window)
            for left, right in windows.spans(w, *self.window)
        ]
        # The file has more pixels than the image where it was read at reduced scale.
        scale = (size[1] / w, size[0] / h) * 2
        locations = [
            tuple(round(x * s) for x, s in zip(cell, scale, strict=True)) for cell in cells
        ]
        if len(cells) == 1:
            return self._look(entry, cells[0], locations[0])
        found = []
        for cell, location in zip(cells, locations, strict=True):
            found.append(moved(self._look(entry, cell, location), location, size))
            beat()
        return merged(found, locations, self.threshold, self.most)

    def _look(self, entry: dict, cell: Window, location: Window) -> Instances:
        """What the detector finds in a cell of the image, in pixels of the file from the corner of
        ``location``, which is where the cell lies in it."""
        left, top, right, bottom = cell
        pixels = entry["image"][:, top:bottom, left:right].permute(1, 2, 0).numpy()
        shown = as_tensor(self.mapper.resized(pixels))
        height, width = location[3] - location[1], location[2] - location[0]
        (output,) = self.model([entry | {"image": shown, "height": height, "width": width}])
        return output["instances"]


def moved(found: Instances, window: Window, size: tuple[int, int]) -> Instances:
    """Boxes, masks and keypoints of a window in the pixels of its image of ``size`` (h, w)."""
    found, (left, top) = found.to("cpu"), window[:2]
    made = Instances(size, scores=found.scores, pred_classes=found.pred_classes)
    made.pred_boxes = Boxes(found.pred_boxes.tensor + torch.tensor([left, top, left, top]))
    if found.has("pred_masks"):
        made.pred_masks = CutMasks.of(found.pred_masks, left, top, size)
    if found.has("pred_keypoints"):  # x, y, score
        made.pred_keypoints = found.pred_keypoints + torch.tensor([left, top, 0])
    return made


def merged(
    found: Sequence[Instances], locations: Sequence[Window], threshold: float, most: int
) -> Instances:
    """The objects that windows of an image show, each once, at most ``most`` of the best scores.

    ``found``: of each window, in pixels of the image. A box is left out for a larger one of the
    same class from another window that reaches beyond this window and, cut at its edge, overlaps
    the box by an IoU above ``threshold``: then the box is the part of that object which the window
    shows. What is left goes through NMS, class by class, with that threshold. So an object is found
    once, and whole, if a window holds it whole; one that is larger than the overlap of two windows
    may be left in parts.
    """
    of_window = torch.cat([torch.full((len(each),), n) for n, each in enumerate(found)])
    every = Instances.cat(list(found))
    kept = ~_are_parts(every, of_window, locations, threshold)
    every = every[kept.nonzero()[:, 0]]
    best = batched_nms(every.pred_boxes.tensor, every.scores, every.pred_classes, threshold)
    return every[best[:most]]


def _are_parts(
    found: Instances, of_window: Tensor, locations: Sequence[Window], threshold: float
) -> Tensor:
    """Which boxes are the part of an object that their window shows, bool ``[n]``."""
    boxes, classes = found.pred_boxes.tensor, found.pred_classes
    areas, parts = found.pred_boxes.area(), torch.zeros(len(found), dtype=torch.bool)
    for number, window in enumerate(locations):
        edges = torch.tensor(window, dtype=boxes.dtype)
        cut = torch.cat([boxes[:, :2].max(edges[:2]), boxes[:, 2:].min(edges[2:])], dim=1)
        beyond = (cut != boxes).any(1) & (cut[:, 2:] > cut[:, :2]).all(1)
        own = (of_window == number).nonzero()[:, 0]
        others = (beyond & (of_window != number)).nonzero()[:, 0]
        same = pairwise_iou(Boxes(boxes[own]), Boxes(cut[others])) > threshold
        same &= classes[own, None] == classes[others]
        parts[own] = (same & (areas[own, None] < areas[others])).any(1)
    return parts


class CutMasks(Sequence):
    """Masks of an image's objects, of each but the part that is not empty: as whole bitmaps those
    of a large image would be gigabytes.

    By number a mask is bool ``[h, w]``; by numbers (a tensor, a slice) it is the masks of these.
    """

    def __init__(self, size: tuple[int, int], cuts: Sequence[tuple[Tensor, int, int]]):
        self.size, self.cuts = size, list(cuts)  # bool [height, width], left, top

    @classmethod
    def of(cls, masks: Tensor, left: int, top: int, size: tuple[int, int]) -> CutMasks:
        """Those of a window ``[n, height, width]`` whose corner is at (left, top)."""
        return cls(size, [_cut(mask, left, top) for mask in masks])

    @staticmethod
    def cat(several: Sequence[CutMasks]) -> CutMasks:
        """Several of one image as one, as Detectron2 joins its own structures."""
        return CutMasks(several[0].size, [cut for each in several for cut in each.cuts])

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, which):
        if isinstance(which, int):
            cut, left, top = self.cuts[which]
            mask = torch.zeros(self.size, dtype=torch.bool)
            mask[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
            return mask
        return CutMasks(self.size, [self.cuts[n] for n in torch.arange(len(self))[which].tolist()])


def _cut(mask: Tensor, left: int, top: int) -> tuple[Tensor, int, int]:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return mask[:0, :0], left, top
    y, x = int(rows[0]), int(columns[0])
    cut = mask[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1]
    return cut.clone(), left + x, top + y
