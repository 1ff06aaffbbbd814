"""COCO's metrics of boxes, masks and keypoints, by faster-coco-eval or by pycocotools."""

import json
import math
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from densessl.core import files, install, watchdog
from densessl.core.distributed import from_first_each
from densessl.core.errors import EnvironmentLacks, InputError

from .. import compat
from ..datasets.coco_content import no_garbage_collection, numbered, ordered

compat.setup()
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator  # noqa: E402
from detectron2.evaluation.coco_evaluation import instances_to_coco_json  # noqa: E402
from detectron2.utils import comm  # noqa: E402

# Task: the first of COCOeval's numbers, and what it is told of a detection. It takes the area from
# the box where it sees one, and a mask's area shall be the mask's.
METRICS = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}
KEPT = {"bbox": ("bbox",), "segm": ("segmentation",), "keypoints": ("bbox", "keypoints")}
FIELDS = {"segm": "pred_masks", "keypoints": "pred_keypoints"}  # of a model's instances
FILE = "coco_instances_results.json"
# Of an image and a category that COCOeval has in memory at a time: each takes about a kilobyte,
# whether or not anything is there. COCO's 5,000 images of 80 categories are fewer, LVIS's are 24
# million.
PAIRS = 2_000_000
# Of its arrays [threshold, recall, category, area, most], and [threshold, category, area, most].
MERGED = ("precision", "recall")


class CocoEvaluator(DatasetEvaluator):
    """COCO's AP of boxes, masks (``pred_masks``) and keypoints (``pred_keypoints``), in per cent.

    The numbers are pycocotools'. ``fast`` takes them from faster-coco-eval; the tests compare the
    two on random detections and on crowds, empty images and absent categories. As with Detectron2's
    evaluator: NaN where the ground truth has nothing to measure on (no small object, a category
    without objects), ``AP-<category>`` beside the means. Unlike there, a model that detects nothing
    has an AP of 0 in each of its tasks, the ids of images, categories and annotations may be any
    numbers and texts, and ``iscrowd`` and ``area`` may be left out.

    A category's numbers depend on no other's. So each process judges some of the categories, and
    process 0 puts their precisions together: bit for bit what it would find alone.

    ``output_dir`` takes the detections as ``coco_instances_results.json``, with the ids of the
    data set. ``oks_sigmas``: one a keypoint; empty means COCO's own 17. ``json_file``: the
    annotations, where they are not those of the metadata.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        fast: bool = False,
        oks_sigmas: Sequence[float] = (),
        json_file: str | os.PathLike | None = None,
    ):
        metadata = MetadataCatalog.get(dataset_name)
        self._name, self._json_file = dataset_name, Path(json_file or metadata.json_file)
        numbers = metadata.get("thing_dataset_id_to_contiguous_id")
        self._categories = sorted(numbers, key=numbers.get) if numbers else None
        self._file = Path(output_dir) / FILE if output_dir else None
        self._dataset_class, self._judge_class = _library(fast)
        self._oks_sigmas = tuple(oks_sigmas)

    def reset(self):
        self._found: list[dict] = []
        self._tasks = {"bbox"}

    def process(self, inputs, outputs):
        for entry, output in zip(inputs, outputs, strict=True):
            found = output["instances"].to("cpu")
            self._tasks |= {task for task, field in FIELDS.items() if found.has(field)}
            self._found += instances_to_coco_json(found, entry["image_id"])

    def evaluate(self) -> dict | None:
        gathered = comm.gather((self._found, self._tasks), dst=0)  # elsewhere empty
        found = list(chain(*(each for each, _ in gathered)))
        if (ids := self._categories) is not None:
            found = [{**each, "category_id": ids[each["category_id"]]} for each in found]
        if self._file and comm.is_main_process():
            files.write_text(self._file, json.dumps(found))
        truth, found = self._numbered(found)
        tasks = comm.all_gather(sorted(set().union(*(each for _, each in gathered))))[0]
        metrics = {task: self._metrics(task, truth, found) for task in tasks}
        return metrics if comm.is_main_process() else None

    @watchdog.unhurried()
    def _numbered(self, found: list[dict]) -> tuple[object, list[dict]]:
        """The ground truth and the detections, with numbers of our own for the data set's ids."""
        with no_garbage_collection():
            content = files.read_json(self._json_file)
        categories = self._categories
        if categories is None:
            categories = ordered(each["id"] for each in content["categories"])
        truth, images, kinds = numbered(content, categories)
        found = [
            {
                **each,
                "image_id": images[each["image_id"]],
                "category_id": kinds[each["category_id"]],
            }
            for each in found
        ]
        return self._dataset(truth), found

    def _dataset(self, content: dict):
        made = self._dataset_class()
        made.dataset = content
        made.createIndex()
        return made

    @watchdog.unhurried()
    def _metrics(self, task: str, truth, found: list[dict]) -> dict[str, float]:
        judge = self._judged(task, truth, found)
        if judge is None:
            return {}
        metrics = means(task, judge)
        # [threshold, recall, category, area, most detections]: of all areas, of most detections
        by_category = judge.eval["precision"][:, :, :, 0, -1]
        for place, category in enumerate(sorted(truth.getCatIds())):
            metrics[f"AP-{truth.cats[category]['name']}"] = mean_precision(by_category[:, :, place])
        return metrics

    def _judged(self, task: str, truth, found: list[dict], most: int | None = None, **how):
        """COCOeval, once it has compared and summed up; None but in process 0, whose ``found`` are
        all detections. ``most``: of a category that it looks at in an image, where not COCO's own;
        ``how``: other arguments of it."""
        categories, processes = sorted(truth.getCatIds()), comm.get_world_size()
        at_once = max(PAIRS // max(len(truth.getImgIds()), 1), 1)
        of_category: dict[int, list[dict]] = {category: [] for category in categories}
        for each in found:
            of_category[each["category_id"]].append(each)
        counts = {category: len(some) for category, some in of_category.items()}
        parts = shared(counts, max(math.ceil(len(categories) / at_once), processes), at_once)
        given = [
            [(part, [each for one in part for each in of_category[one]]) for part in own]
            for own in (parts[process::processes] for process in range(processes))
        ]
        judge: Any = None
        evaluated = []
        for part, some in from_first_each(given):
            judge = self._compared(task, truth, some, part, most, how)
            evaluated.append((part, [judge.eval[name] for name in MERGED]))
        gathered = comm.gather(evaluated, dst=0)
        if not comm.is_main_process():
            return None
        judge.eval |= _merged(list(chain(*gathered)), categories)
        judge.params.catIds = categories
        judge.summarize()
        return judge

    def _compared(
        self, task: str, truth, found: list[dict], categories: list, most: int | None, how: dict
    ):
        """COCOeval of some categories, before it sums up."""
        kept = ("image_id", "category_id", "score", *KEPT[task])
        found = [{key: each[key] for key in kept} for each in found]
        if found:
            detections = truth.loadRes(found)
        else:  # pycocotools' loadRes wants one at least
            detections = self._dataset({**truth.dataset, "annotations": []})
        judge = self._judge_class(truth, detections, task, **how)
        judge.params.catIds = categories
        if most is not None:
            judge.params.maxDets = [most]
        if task == "keypoints":
            if self._oks_sigmas:
                judge.params.kpt_oks_sigmas = np.array(self._oks_sigmas)
            self._check_keypoints(len(judge.params.kpt_oks_sigmas), truth, found)
        judge.evaluate()
        judge.accumulate()
        return judge

    def _check_keypoints(self, sigmas: int, truth, found: list[dict]) -> None:
        counts = {
            "the annotations have": {len(a["keypoints"]) // 3 for a in truth.anns.values()},
            "the detections have": {len(each["keypoints"]) // 3 for each in found},
        }
        for whose, numbers in counts.items():
            if wrong := numbers - {sigmas}:
                raise InputError(
                    f"{self._name}: {whose} {min(wrong)} keypoints, the metric has {sigmas} OKS "
                    "sigmas; they must agree. Set TEST.KEYPOINT_OKS_SIGMAS, one a keypoint"
                )


def _library(fast: bool) -> tuple[type, type]:
    """The classes COCO and COCOeval."""
    try:
        if fast:
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as COCOeval
        else:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise EnvironmentLacks(f"{error}; fix it with: {install.command('transfer')}") from None
    return COCO, COCOeval


def shared(counts: dict[int, int], parts: int, most: int) -> list[list[int]]:
    """The categories in so many parts (fewer where there are not as many) of at most ``most`` each,
    of about as many detections: each to the lightest, the heaviest first. The lightest part is the
    first, for process 0, which has other work."""
    made: list[list[int]] = [[] for _ in range(max(min(parts, len(counts)), 1))]
    weights = [0] * len(made)
    for category in sorted(counts, key=lambda category: -counts[category]):
        free = (part for part in range(len(made)) if len(made[part]) < most)
        lightest = min(free, key=lambda part: (weights[part], len(made[part])))
        made[lightest].append(category)
        weights[lightest] += counts[category]
    return [sorted(made[part]) for part in np.argsort(weights, kind="stable")]


def _merged(parts: list, categories: list[int]) -> dict[str, np.ndarray]:
    """COCOeval's arrays of all categories, of those of each part of them."""
    merged = {}
    for place, name in enumerate(MERGED):
        *first, _, areas, counts = parts[0][1][place].shape
        merged[name] = np.empty((*first, len(categories), areas, counts))
        for part, arrays in parts:
            places = np.searchsorted(categories, part)
            merged[name][..., places, :, :] = arrays[place]
    return merged


def means(task: str, judge) -> dict[str, float]:
    """What COCOeval has summed up, by its name."""
    return dict(zip(METRICS[task], map(_per_cent, judge.stats), strict=False))


def mean_precision(values: np.ndarray) -> float:
    """An AP in per cent of some of COCOeval's precisions, of which those of -1 have no object."""
    return _per_cent(values[values > -1].mean() if (values > -1).any() else -1.0)


def _per_cent(value: float) -> float:
    """COCOeval's number as ours: it says -1 where there is nothing to measure."""
    return float(value) * 100 if value > -1 else float("nan")
