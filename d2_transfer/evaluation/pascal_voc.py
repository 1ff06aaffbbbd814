"""PASCAL VOC's average precision, with Detectron2's numbers in a fraction of its time."""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from densessl.annotations.reading import require_xml
from densessl.core.files import read_text

from .. import compat

compat.setup()
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator  # noqa: E402
from detectron2.utils import comm  # noqa: E402

THRESHOLDS = tuple(percent / 100.0 for percent in range(50, 100, 5))
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class OccurringClassesVOCEvaluator(DatasetEvaluator):
    """AP, AP50 and AP75 in per cent: the means over the classes that occur, AP over ten thresholds.

    The numbers are those of Detectron2's PascalVOCDetectionEvaluator to the last bit, for boxes and
    scores of 32 bits or less: the devkit's AP (of 11 points for 2007, the area under the
    curve for later years) at IoU 0.50, 0.55, …, 0.95, pixel boxes that include their last pixel,
    difficult objects neither found nor missed, detections as VOC's result files hold them (a
    score of three decimals, corners of one).

    One thing differs: a class without a single (not difficult) object has no AP and does not
    count, where Detectron2 counts it as 0. On the real VOC, where all 20 classes occur, that is
    the same; on a small stand-in it is the only sensible mean. Without any object: NaN.
    ``AP-<class>`` is there too, NaN for a class without an object.
    """

    def __init__(self, dataset_name: str):
        metadata = MetadataCatalog.get(dataset_name)
        base = Path(metadata.dirname)
        self._annotations = base / "Annotations"
        self._list = base / "ImageSets" / "Main" / f"{metadata.split}.txt"
        self._classes = list(metadata.thing_classes)
        self._eleven_points = metadata.year == 2007

    def reset(self):
        self._found: list[tuple] = []  # of an image: its id, then scores, classes and boxes

    def process(self, inputs, outputs):
        for entry, output in zip(inputs, outputs, strict=True):
            self._found.append((entry["image_id"], *_as_in_result_files(output["instances"])))

    def evaluate(self) -> dict | None:
        gathered = comm.gather(self._found, dst=0)
        if not comm.is_main_process():
            return None
        names = read_text(self._list).split()
        truth = read_objects(self._annotations, names, self._classes)
        found = _joined(list(chain(*gathered)), names)
        precisions: dict[str, list[float]] = {}
        for label, name in enumerate(self._classes):
            objects = truth.of_class(label)
            if objects.counted.any():
                detections = found.of_class(label)
                precisions[name] = class_precisions(objects, detections, self._eleven_points)
        undefined = float("nan")
        of_classes = {
            f"AP-{name}": float(np.mean(precisions.get(name, undefined))) for name in self._classes
        }
        if not precisions:
            return {"bbox": dict.fromkeys(("AP", "AP50", "AP75"), undefined) | of_classes}
        means = [float(np.mean(column)) for column in zip(*precisions.values(), strict=True)]
        at = dict(zip(THRESHOLDS, means, strict=True))
        metrics = {"AP": float(np.mean(means)), "AP50": at[0.5], "AP75": at[0.75]}
        return {"bbox": metrics | of_classes}


@dataclass(frozen=True)
class Rows:
    """Objects or detections, a row each, in the order of the list of images or as they came.

    ``image`` int [N]: the place in the list of images. ``label`` int [N]: the class. ``box``
    float64 [N, 4]: x1, y1, x2, y2 in pixels counted from 1, inclusive. ``counted`` bool [N]: of
    objects, whether not difficult. ``score`` float64 [N]: of detections. Each is empty where it is
    not known.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    counted: np.ndarray = field(default_factory=lambda: np.empty(0))
    score: np.ndarray = field(default_factory=lambda: np.empty(0))

    def of_class(self, label: int) -> "Rows":
        return self.take(np.flatnonzero(self.label == label))

    def take(self, rows: np.ndarray) -> "Rows":
        return Rows(*(each[rows] if len(each) else each for each in vars(self).values()))


def read_objects(annotations: Path, names: list[str], classes: list[str]) -> Rows:
    """The objects of ``classes`` in the XML files ``annotations/<name>.xml``, image by image."""
    labels = {word: label for label, word in enumerate(classes)}
    rows = []
    for image, name in enumerate(names):
        for item in require_xml(annotations / f"{name}.xml").iterfind("object"):
            label = labels.get(item.findtext("name", ""))
            if label is not None:
                counted = not int(item.findtext("difficult", "0"))
                box = (float(item.findtext(f"bndbox/{corner}", "")) for corner in CORNERS)
                rows.append((image, label, counted, *box))
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    image, label = table[:, :2].astype(np.int64).T
    return Rows(image, label, table[:, 3:], counted=table[:, 2].astype(bool))


def _as_in_result_files(instances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [N], classes [N] and boxes [N, 4] as Detectron2 writes them for VOC, and reads them.

    A decimal shift of a 32-bit number is exact in 64 bits, so rounding to even rounds as printing
    does.
    """
    boxes = instances.pred_boxes.tensor.cpu().numpy().copy()
    boxes[:, :2] += 1  # VOC's first pixel is 1, and a box includes its last one
    scores = instances.scores.cpu().numpy().astype(np.float64)
    classes = instances.pred_classes.cpu().numpy()
    return np.rint(scores * 1000) / 1000, classes, np.rint(boxes.astype(np.float64) * 10) / 10


def _joined(found: list[tuple], names: list[str]) -> Rows:
    """All images' detections, in the order in which they were found."""
    place = {name: image for image, name in enumerate(names)}
    images = np.array([place[name] for name, *_ in found], dtype=np.int64)
    counts = [len(scores) for _, scores, _, _ in found]
    empty = (np.empty(0), np.empty(0, np.int64), np.empty((0, 4)))
    parts = zip(empty, *(each[1:] for each in found), strict=True)
    score, label, box = (np.concatenate(part) for part in parts)
    return Rows(np.repeat(images, counts), label, box, score=score)


def class_precisions(truth: Rows, found: Rows, eleven_points: bool) -> list[float]:
    """The APs, in per cent, of one class at each of THRESHOLDS.

    ``truth`` in the order of its images, with at least one counted object. Which object is nearest
    to a detection does not depend on the threshold, so IoUs are taken once.
    """
    # Equal scores, of which three decimals make many, keep the order that numpy's default sort
    # leaves them in: it is Detectron2's, and another order gives other numbers.
    found = found.take(np.argsort(-found.score))
    overlap, nearest = nearest_objects(truth, found)
    precisions = []
    for threshold in THRESHOLDS:
        hit = overlap > threshold
        candidates = np.flatnonzero(hit & truth.counted[nearest])
        _, first = np.unique(nearest[candidates], return_index=True)
        true = np.zeros(len(hit), dtype=bool)
        true[candidates[first]] = True  # the first to find an object; those after it are false
        false = ~hit
        false[candidates] = ~true[candidates]
        tp, fp = np.cumsum(true, dtype=np.float64), np.cumsum(false, dtype=np.float64)
        recall = tp / float(truth.counted.sum())
        precision = tp / np.maximum(tp + fp, np.finfo(np.float64).eps)
        precisions.append(average_precision(recall, precision, eleven_points) * 100)
    return precisions


def nearest_objects(truth: Rows, found: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Of each detection the largest IoU with an object of its image, and that object's row.

    Float64 [N] and int [N]; -inf and 0 where the image has no object. Of equal IoUs the first.
    """
    overlap = np.full(len(found.image), -np.inf)
    nearest = np.zeros(len(found.image), dtype=np.int64)
    start = np.searchsorted(truth.image, found.image, "left")
    count = np.searchsorted(truth.image, found.image, "right") - start
    some = np.flatnonzero(count)  # detections on images with objects
    if not len(some):
        return overlap, nearest
    start, count = start[some], count[some]
    first = np.cumsum(count) - count  # of a detection's pairs, in the list of all pairs
    pairs = np.arange(count.sum()) + np.repeat(start - first, count)  # objects
    iou = pixel_iou(np.repeat(found.box[some], count, axis=0), truth.box[pairs])
    overlap[some] = np.maximum.reduceat(iou, first)
    largest = np.flatnonzero(iou == np.repeat(overlap[some], count))
    nearest[some] = pairs[largest[np.searchsorted(largest, first)]]
    return overlap, nearest


def pixel_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [N] of boxes [N, 4] that include their last pixel: a side is x2 - x1 + 1."""
    width = np.maximum(np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1.0, 0.0)
    height = np.maximum(np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1.0, 0.0)
    common = width * height
    area_a, area_b = ((x[:, 2] - x[:, 0] + 1.0) * (x[:, 3] - x[:, 1] + 1.0) for x in (a, b))
    return common / (area_a + area_b - common)


def average_precision(recall: np.ndarray, precision: np.ndarray, eleven_points: bool) -> float:
    """The devkit's AP of a class, from 0 to 1: 11 points until VOC 2007, the area since.

    ``recall`` [N] does not fall. Both take the best precision at a recall or beyond it.
    """
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_points:
        places = np.searchsorted(recall, np.arange(0.0, 1.1, 0.1), "left")
        ap = 0.0
        for value in np.append(best, 0.0)[places]:  # 0 beyond the last recall
            ap += value / 11.0
        return float(ap)
    edges = np.concatenate(([0.0], recall, [1.0]))
    heights = np.concatenate((best, [0.0]))
    moves = np.flatnonzero(edges[1:] != edges[:-1])
    return float(np.sum((edges[moves + 1] - edges[moves]) * heights[moves]))
