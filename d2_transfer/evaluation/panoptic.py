"""Panoptic quality (Kirillov et al. 2019, 1801.00868), as COCO's rules have it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from densessl.core import watchdog
from densessl.core.errors import InputError
from densessl.core.files import read_json
from densessl.probes.label_images import BadLabels

from .. import compat
from ..datasets.coco_panoptic import read_segments

compat.setup()
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator  # noqa: E402
from detectron2.utils import comm  # noqa: E402

PARTS = {"": None, "_th": True, "_st": False}  # of all categories, of things, of stuff
OVERLAP = 0.5  # IoU above which segments match, and share of a segment that is not judged


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ in per cent, of all categories, of things (``_th``) and of stuff (``_st``).

    PQ of a category is the sum of the IoUs of its matches over TP + FP / 2 + FN / 2, SQ the mean
    IoU of the matches, RQ the rest; each is averaged over the categories that are there or were
    found. See :func:`matched` for what matches.

    ``output["panoptic_seg"]``: the number of the segment of each pixel [h, w], 0 for none, and of
    each its ``id``, ``isthing`` and ``category_id``, the class, as PanopticFPN gives them.
    """

    def __init__(self, dataset_name: str):
        metadata = MetadataCatalog.get(dataset_name)
        self._file, self._folder = Path(metadata.panoptic_json), Path(metadata.panoptic_root)
        stuff = metadata.stuff_dataset_id_to_contiguous_id
        things = metadata.thing_dataset_id_to_contiguous_id
        self._ids = [{label: id for id, label in kind.items()} for kind in (stuff, things)]

    def reset(self):
        self._counts: dict[int, np.ndarray] = {}
        self._truth: dict = {}

    def process(self, inputs, outputs):
        for entry, output in zip(inputs, outputs, strict=True):
            pixels, segments = output["panoptic_seg"]
            found = {
                each["id"]: self._ids[bool(each["isthing"])][each["category_id"]]
                for each in segments
            }
            file, truth = self._segments()[entry["image_id"]]
            try:
                labels = read_segments(self._folder / file)
            except BadLabels as error:
                raise InputError(str(error)) from None
            if labels.shape != tuple(pixels.shape):
                sizes = ["{1} x {0}".format(*each) for each in (labels.shape, pixels.shape)]
                raise InputError(f"{self._folder / file} is {sizes[0]}, its prediction {sizes[1]}")
            for category, counts in matched(labels, truth, pixels.cpu().numpy(), found).items():
                self._counts[category] = self._counts.get(category, 0) + counts

    @watchdog.unhurried()
    def _segments(self) -> dict:
        """Of each image its file, and of each segment its category and whether it is a crowd."""
        if not self._truth:
            self._truth = {
                each["image_id"]: (
                    each["file_name"],
                    {
                        one["id"]: (one["category_id"], bool(one.get("iscrowd")))
                        for one in each["segments_info"]
                    },
                )
                for each in read_json(self._file)["annotations"]
            }
        return self._truth

    def evaluate(self) -> dict | None:
        gathered = comm.gather(self._counts, dst=0)
        if not comm.is_main_process():
            return None
        total: dict[int, np.ndarray] = {}
        for counts in gathered:
            for category, row in counts.items():
                total[category] = total.get(category, 0) + row
        things = set(self._ids[True].values())
        return {"panoptic_seg": quality(total, things)}


def matched(
    truth: np.ndarray,
    segments: Mapping[int, tuple[int, bool]],
    predicted: np.ndarray,
    found: Mapping[int, int],
) -> dict[int, np.ndarray]:
    """Of each category the sum of IoUs, TP, FP and FN in an image, float64 [4].

    ``truth``, ``predicted`` [h, w]: numbers of segments, 0 for none; ``segments``: of each its
    category and whether it is a crowd; ``found``: of each predicted one its category. Segments
    match that have one category and an IoU above 0.5, where pixels without a true segment count
    neither way. A crowd is never missed. What matches nothing is no FP if more than half of it is
    on pixels without a segment or on crowds of its category.
    """
    pairs, areas = np.unique(
        np.stack([truth.ravel(), predicted.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    common = dict(zip(map(tuple, pairs.T.tolist()), areas.tolist(), strict=True))
    of_truth, of_found = (
        dict(zip(*(each.tolist() for each in np.unique(map_, return_counts=True)), strict=True))
        for map_ in (truth, predicted)
    )
    counts: dict[int, np.ndarray] = {}

    def row(category: int) -> np.ndarray:
        return counts.setdefault(category, np.zeros(4))

    matches: set[tuple[int, int]] = set()
    for (one, other), area in common.items():
        if one not in segments or other not in found or segments[one] != (found[other], False):
            continue
        union = of_truth[one] + of_found[other] - area - common.get((0, other), 0)
        if area / union > OVERLAP:
            matches.add((one, other))
            row(found[other])[:2] += (area / union, 1)
    hit = {one for one, _ in matches}
    for segment, (category, crowd) in segments.items():
        if not crowd and segment not in hit:
            row(category)[3] += 1
    true = {other for _, other in matches}
    for segment, category in found.items():
        if segment in true or segment not in of_found:
            continue
        crowds = [one for one, facts in segments.items() if facts == (category, True)]
        unjudged = sum(common.get((one, segment), 0) for one in (0, *crowds))
        if unjudged / of_found[segment] <= OVERLAP:
            row(category)[2] += 1
    return counts


def quality(counts: Mapping[int, np.ndarray], things: set[int]) -> dict[str, float]:
    """The metrics of :class:`PanopticEvaluator` from the sums of :func:`matched` by category; NaN
    where there is no category."""
    metrics = {}
    for part, thing in PARTS.items():
        rows = [
            row
            for category, row in counts.items()
            if (thing is None or (category in things) == thing) and row[1:].any()
        ]
        values = [
            (iou / (weight := tp + fp / 2 + fn / 2), iou / tp if tp else 0.0, tp / weight)
            for iou, tp, fp, fn in rows
        ]
        means = np.mean(values, axis=0) if values else np.full(3, np.nan)
        for name, value in zip(("PQ", "SQ", "RQ"), means, strict=True):
            metrics[name + part] = 100 * float(value)
    return metrics
