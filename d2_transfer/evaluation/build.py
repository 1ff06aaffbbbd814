"""From a data set's name to its evaluator, and from results to a record's flat metrics."""

import contextlib
import importlib.util
import io
from collections.abc import Sequence

from densessl.core import waiting
from densessl.core.errors import Interrupted, unknown
from densessl.core.progress import Bar

from .. import compat
from ..stops import STOPPED
from .cityscapes import CityscapesInstanceEvaluator
from .coco import CocoEvaluator
from .pascal_voc import OccurringClassesVOCEvaluator
from .semantic import SemanticEvaluator

compat.setup()
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators  # noqa: E402
from detectron2.utils import comm  # noqa: E402

NOT_RECORDED = ("ACC-",)  # of single classes there is the IoU


def build_evaluator(
    dataset_name: str, output_dir: str, images: int, oks_sigmas: Sequence[float] = ()
) -> DatasetEvaluator:
    """The evaluator that the data set's metadata asks for (``evaluator_type``).

    ``output_dir`` takes the detections in COCO's format. ``images``: how many this process will
    see. ``oks_sigmas`` (``TEST.KEYPOINT_OKS_SIGMAS``): one a keypoint; empty means COCO's own.

    Raises InputError for a type it has no evaluator for, and EnvironmentLacks where the type needs
    what is not installed.
    """
    builders = {
        "pascal_voc": lambda: OccurringClassesVOCEvaluator(dataset_name),
        "coco": lambda: CocoEvaluator(dataset_name, output_dir, fast_coco(), oks_sigmas),
        "cityscapes_instance": lambda: CityscapesInstanceEvaluator(dataset_name),
        "sem_seg": lambda: SemanticEvaluator(dataset_name),
    }
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in builders:
        raise unknown("evaluator_type", kind, builders, f"the metadata of {dataset_name}")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = builders[kind]()
    return Quiet([Progress(f"evaluate on {dataset_name}", images), evaluator])


def fast_coco() -> bool:
    """Whether faster-coco-eval is installed: pycocotools' numbers in a fraction of the time."""
    return importlib.util.find_spec("faster_coco_eval") is not None


def flat_metrics(results: dict) -> dict[str, float]:
    """``{"bbox": {"AP": …}}`` as ``{"bbox/AP": …}``; of single classes AP and IoU.

    NaN stays NaN: it says that the ground truth has nothing to measure the metric on.
    """
    return {
        f"{task}/{name}": float(value)
        for task, metrics in results.items()
        for name, value in metrics.items()
        if not name.startswith(NOT_RECORDED)
    }


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
        if waiting.asked():
            self.close()
            raise Interrupted(STOPPED)

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

    def close(self) -> None:
        """Take away the bar of an evaluation that did not come to its end."""
        for each in self._evaluators:
            if isinstance(each, Progress):
                each.close()
