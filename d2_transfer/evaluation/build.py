"""From a data set's name to its evaluator, and from results to a record's flat metrics."""

import contextlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from densessl.core import waiting
from densessl.core.errors import InputError, Interrupted, unknown
from densessl.core.external import MARK, load_object
from densessl.core.progress import Bar

from .. import compat
from ..stops import STOPPED
from .cityscapes import CityscapesInstanceEvaluator
from .coco import CocoEvaluator
from .lvis import LvisEvaluator
from .panoptic import PanopticEvaluator
from .pascal_voc import OccurringClassesVOCEvaluator
from .semantic import SemanticEvaluator

compat.setup()
from detectron2 import evaluation  # noqa: E402
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.data.datasets.coco import convert_to_coco_json  # noqa: E402
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators  # noqa: E402
from detectron2.utils import comm  # noqa: E402

NOT_RECORDED = ("ACC-",)  # of single classes there is the IoU


def build_evaluator(
    dataset_name: str,
    output_dir: str,
    images: int,
    oks_sigmas: Sequence[float] = (),
    named: str = "",
    maker: Callable[[str], Any] | None = None,
) -> DatasetEvaluator:
    """The evaluator that is ``named`` (``TEST.EVALUATOR``), else what ``maker`` (of a LazyConfig's
    ``dataloader.evaluator``) makes for the data set, else the one of its metadata
    (``evaluator_type``; COCO's where the user's code registered it without one).

    ``output_dir`` takes the detections in COCO's format; where it is empty, nothing is evaluated.
    ``images``: how many this process will see. ``oks_sigmas`` (``TEST.KEYPOINT_OKS_SIGMAS``): one a
    keypoint; empty means COCO's own.

    Raises InputError for a type or a name that is none, and EnvironmentLacks where the type needs
    what is not installed.
    """
    builders: dict[str, Callable[[], DatasetEvaluator]] = {
        "pascal_voc": lambda: OccurringClassesVOCEvaluator(dataset_name),
        "coco": lambda: _of_coco(dataset_name, output_dir, oks_sigmas),
        "coco_panoptic_seg": lambda: DatasetEvaluators(
            [PanopticEvaluator(dataset_name), _of_coco(dataset_name, output_dir, ())]
        ),
        "lvis": lambda: LvisEvaluator(dataset_name, output_dir),
        "cityscapes_instance": lambda: CityscapesInstanceEvaluator(dataset_name),
        "sem_seg": lambda: SemanticEvaluator(dataset_name),
    }
    if named or maker:
        found = own(named, dataset_name, maker)
        return Quiet([Progress(f"evaluate on {dataset_name}", images), found])
    default = "coco" if dataset_name in DatasetCatalog.list() else None
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", default)
    if kind not in builders:
        raise unknown("evaluator_type", kind, builders, f"the metadata of {dataset_name}")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = builders[kind]()
    return Quiet([Progress(f"evaluate on {dataset_name}", images), evaluator])


def own(
    named: str, dataset_name: str, maker: Callable[[str], Any] | None = None
) -> DatasetEvaluator:
    """The evaluator that TEST.EVALUATOR names, else what ``maker`` makes, with the data set's name;
    InputError."""
    option = "TEST.EVALUATOR" if named else "dataloader.evaluator"
    if MARK in named:
        maker = load_object(named, "evaluator", option)
    elif named:
        known = {
            name: each
            for name, each in vars(evaluation).items()
            if isinstance(each, type) and issubclass(each, DatasetEvaluator)
        }
        if named not in known:
            raise unknown("evaluator", named, known, option)
        maker = known[named]
    assert maker is not None
    what = f"{option} {named}".rstrip()
    try:
        made = maker(dataset_name)
    except Exception as error:  # the user's own raises anything
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{what} cannot be made for {dataset_name}: {reason}") from error
    if not isinstance(made, DatasetEvaluator):
        raise InputError(f"{what} makes a {type(made).__name__}, no DatasetEvaluator")
    return made


def _of_coco(dataset_name: str, output_dir: str, oks_sigmas: Sequence[float]) -> CocoEvaluator:
    """With the annotations as a file of COCO's where the data set is registered without one."""
    metadata = MetadataCatalog.get(dataset_name)
    file = Path(output_dir) / f"{dataset_name}.json"
    if not metadata.get("json_file") and output_dir and comm.is_main_process():
        file.parent.mkdir(parents=True, exist_ok=True)
        convert_to_coco_json(dataset_name, str(file), allow_cached=False)
    return CocoEvaluator(
        dataset_name,
        output_dir,
        fast_coco(),
        oks_sigmas,
        metadata.get("json_file") or file,
    )


def fast_coco() -> bool:
    """Whether faster-coco-eval is installed: pycocotools' numbers in a fraction of the time."""
    return importlib.util.find_spec("faster_coco_eval") is not None


def flat_metrics(results: dict) -> dict[str, float]:
    """``{"bbox": {"AP": …}}`` as ``{"bbox/AP": …}``; of single classes AP and IoU.

    NaN stays NaN: it says that the ground truth has nothing to measure the metric on.
    """
    groups = {  # a user's own evaluator may give numbers without a task
        task: metrics if isinstance(metrics, dict) else {"value": metrics}
        for task, metrics in results.items()
    }
    return {
        f"{task}/{name}": float(value)
        for task, metrics in groups.items()
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
