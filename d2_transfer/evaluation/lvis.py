"""LVIS's metrics of boxes and masks, by faster-coco-eval."""

from collections import defaultdict

from densessl.core import watchdog

from .coco import CocoEvaluator, mean_precision, means

MOST = 300  # detections of an image that count
RARITY = {"APr": "r", "APc": "c", "APf": "f"}  # the mark of a category: rare, common, frequent


class LvisEvaluator(CocoEvaluator):
    """LVIS's AP of boxes and masks, in per cent; that of rare, common and frequent categories, too.

    The numbers are those of the package ``lvis`` (Gupta et al. 2019), to which a test compares
    them. Of an image the best 300 detections count. Where the annotations do not say of a category
    whether an image shows it (neither an object nor ``neg_category_ids``), its detections are left
    out; where they do not show all of its objects (``not_exhaustive_category_ids``), those that
    find none are no error. Unlike COCO's there is no AP of each of the thousand categories.

    Raises EnvironmentLacks where faster-coco-eval is missing: pycocotools has no such metric.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        super().__init__(dataset_name, output_dir, fast=True)

    @watchdog.unhurried()
    def _metrics(self, task: str, truth, found: list[dict]) -> dict[str, float]:
        judge = self._judged(task, truth, _known(_best(found), truth), MOST, lvis_style=True)
        if judge is None:
            return {}
        categories = [truth.cats[category]["frequency"] for category in judge.params.catIds]
        by_category = judge.eval["precision"][:, :, :, 0, -1]
        return means(task, judge) | {
            name: mean_precision(by_category[:, :, [each == mark for each in categories]])
            for name, mark in RARITY.items()
        }


def _known(found: list[dict], truth) -> list[dict]:
    """Those of a category of which the annotations say whether the image shows it.

    faster-coco-eval leaves out the others, too, but first looks up the size of their images, which
    it has of images with an object or such a detection alone.
    """
    shown = {(each["image_id"], each["category_id"]) for each in truth.anns.values()}
    for image in truth.imgs.values():
        shown |= {(image["id"], category) for category in image.get("neg_category_ids", ())}
    return [each for each in found if (each["image_id"], each["category_id"]) in shown]


def _best(found: list[dict]) -> list[dict]:
    """Of each image the MOST detections of the highest scores; of equal ones the first."""
    of_image = defaultdict(list)
    for each in found:
        of_image[each["image_id"]].append(each)
    return [
        each
        for detections in of_image.values()
        for each in sorted(detections, key=lambda one: -one["score"])[:MOST]
    ]
