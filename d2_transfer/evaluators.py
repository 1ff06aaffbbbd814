"""Evaluators: Detectron2's own, where classes may be absent, with progress, and quiet."""

import contextlib
import importlib.util
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from console.errors import StoppedEarly
from console.progress import Bar
from d2_transfer import compat
from d2_transfer.stops import StopRequest

compat.setup()
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import (  # noqa: E402
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
)
from detectron2.utils import comm  # noqa: E402


class OccurringClassesVOCEvaluator(PascalVOCDetectionEvaluator):
    """Detectron2's PASCAL VOC evaluator, averaged over the classes that occur in the ground truth.

    A class without a single (not difficult) object has no AP; the original counts it as 0. On the
    real VOC, where all 20 classes occur, it is the original.
    """

    def __init__(self, dataset_name: str):
        super().__init__(dataset_name)
        occurring = _classes_with_objects(Path(self._image_set_path), self._anno_file_template)
        self._all_names = list(self._class_names)
        self._class_names = [name for name in self._all_names if name in occurring]

    def evaluate(self):
        ids = {self._all_names.index(name): new for new, name in enumerate(self._class_names)}
        self._predictions = {
            ids[old]: lines for old, lines in self._predictions.items() if old in ids
        }
        return super().evaluate()


def _classes_with_objects(listed: Path, annotation: str) -> set[str]:
    found = set()
    for name in listed.read_text().split():
        for item in ElementTree.parse(annotation.format(name)).iter("object"):
            if not int(item.findtext("difficult", "0")):
                found.add(item.findtext("name"))
    return found


class Progress(DatasetEvaluator):
    """Counts images on a bar, and looks for stop requests; measures nothing."""

    def __init__(self, description: str, images: int):
        self.description, self.images = description, images
        self.bar: Bar | None = None

    def reset(self):
        if comm.is_main_process():
            self.bar = Bar(self.description, self.images).__enter__()

    def process(self, inputs, outputs):
        if self.bar:
            self.bar.advance(len(inputs))
        if StopRequest.asked() and comm.get_world_size() == 1:  # others would wait for this one
            self.close()
            raise StoppedEarly("stopped in the evaluation; the same command evaluates again")

    def evaluate(self):
        self.close()

    def close(self):
        if self.bar:
            self.bar.__exit__(None, None, None)
            self.bar = None


class Quiet(DatasetEvaluators):
    """Several evaluators as one, without what pycocotools prints."""

    def evaluate(self):
        with contextlib.redirect_stdout(io.StringIO()):
            return super().evaluate()


def build_evaluator(dataset_name: str, output_dir: str, images: int) -> DatasetEvaluator:
    """The evaluator that the data set's metadata asks for (``evaluator_type``).

    ``images``: how many this process will see.
    """
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    builders = {
        "pascal_voc": lambda: OccurringClassesVOCEvaluator(dataset_name),
        "coco": lambda: compat.coco_evaluator(dataset_name, output_dir, fast=fast_coco()),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = builders[kind]()
    return Quiet([Progress(f"evaluate on {dataset_name}", images), evaluator])


def fast_coco() -> bool:
    """Whether faster-coco-eval is installed: pycocotools' numbers in a fraction of the time."""
    return importlib.util.find_spec("faster_coco_eval") is not None


def flat_metrics(results: dict) -> dict[str, float]:
    """``{"bbox": {"AP": …}}`` as ``{"bbox/AP": …}``, without the rows of single classes.

    A detector that detects nothing has an AP of 0, not none: Detectron2's NaN for AP, AP50 and
    AP75 becomes 0. Other NaNs (APs where there is no small object) stay.
    """
    flat: dict[str, float] = {}
    for task, metrics in results.items():
        for name, value in metrics.items():
            if not name.startswith("AP-"):
                flat[f"{task}/{name}"] = float(value)
        if all(flat[key] != flat[key] for key in flat if key.startswith(f"{task}/")):
            for name in ("AP", "AP50", "AP75"):
                flat[f"{task}/{name}"] = 0.0
    return flat
