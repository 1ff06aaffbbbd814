"""Semantic segmentation's mean IoU, from one confusion matrix."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.decoding import unlimited
from densessl.probes import largest

from .. import compat

compat.setup()
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator  # noqa: E402
from detectron2.utils import comm  # noqa: E402


class SemanticEvaluator(DatasetEvaluator):
    """mIoU, fwIoU, mACC and pACC in per cent, with ``IoU-<class>`` and ``ACC-<class>``.

    Label images (``sem_seg_file_name``, a PNG of 8 bits) hold a class 0 … C-1 a pixel, or
    ``ignore_label``, where nothing counts, whatever is predicted. A prediction is
    ``output["sem_seg"]`` of the label image's size: logits [C, H, W] or integer classes [H, W], on
    any device; only counts leave it. See :func:`metrics` for the definitions.
    """

    def __init__(self, dataset_name: str):
        metadata = MetadataCatalog.get(dataset_name)
        self._name, self._classes = dataset_name, list(metadata.stuff_classes)
        self._ignored = metadata.ignore_label
        self._labels = {  # the dicts that a model is given need not name the label image any more
            entry["file_name"]: entry["sem_seg_file_name"]
            for entry in DatasetCatalog.get(dataset_name)
        }

    def reset(self):
        self._counts = np.zeros((len(self._classes), len(self._classes)), np.int64)

    def process(self, inputs, outputs):
        for entry, output in zip(inputs, outputs, strict=True):
            file = self._labels[entry["file_name"]]
            predicted = self._predicted(output["sem_seg"])
            labels = self._read(file)
            if labels.shape != predicted.shape:
                sizes = ["{1} x {0}".format(*each.shape) for each in (labels, predicted)]
                raise InputError(f"{file} is {sizes[0]}, its prediction {sizes[1]}")
            self._counts += self._count(torch.from_numpy(labels).to(predicted.device), predicted)

    def evaluate(self) -> dict | None:
        gathered = comm.gather(self._counts, dst=0)
        if not comm.is_main_process():
            return None
        return {"sem_seg": metrics(sum(gathered), self._classes)}

    def _predicted(self, output: torch.Tensor) -> torch.Tensor:
        """The predicted class of each pixel, [H, W] on the output's device."""
        count = len(self._classes)
        if output.ndim == 3:
            if len(output) != count:
                raise InputError(
                    f"{self._name} has {count} classes, the model predicts {len(output)}; set "
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {count}"
                )
            return largest(output, 0)
        least, most = output.aminmax()
        if output.is_floating_point() or least < 0 or most >= count:
            raise InputError(
                f"{self._name}: a prediction of {list(output.shape)} must hold classes from 0 to "
                f"{count - 1}; it is {output.dtype}, from {least} to {most}"
            )
        return output

    def _read(self, file: str) -> np.ndarray:
        """A label image: uint8 [H, W], no value but a class or the ignored one."""
        with unlimited(), Image.open(file) as image:
            labels, mode = np.array(image), image.mode
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise InputError(f"{file}: a label image has one channel of 8 bits; this is {mode}")
        count = len(self._classes)
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        wrong = present[(present >= count) & (present != self._ignored)]
        if len(wrong):
            raise InputError(
                f"{file}: pixels of {wrong[0]}; allowed are the classes 0 to {count - 1} of "
                f"{self._name}, and {self._ignored} for what is ignored"
            )
        return labels

    def _count(self, labels: torch.Tensor, predicted: torch.Tensor) -> np.ndarray:
        """Pixels of each class (rows) predicted as each (columns), int64 [C, C]."""
        count = len(self._classes)
        rows = labels.long().masked_fill_(labels == self._ignored, count)  # one row too many
        pairs = rows.mul_(count).add_(predicted).flatten()
        counts = torch.bincount(pairs, minlength=(count + 1) * count).view(count + 1, count)
        return counts[:count].cpu().numpy()


def metrics(counts: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The metrics, in per cent, of a confusion matrix [C, C]: rows labelled, columns predicted.

    A class's IoU is what is both labelled and predicted so, over what is either. mIoU is the mean
    over the classes that are either: a class that no label has but that is predicted counts as 0.
    That is the mean of mmsegmentation, which the papers use, and of Detectron2 0.5; Detectron2's
    main leaves such a class out. Where every class is labelled all three agree. mACC is the mean
    recall of the labelled classes, pACC the share of right pixels, fwIoU the mean IoU weighted by
    the labelled pixels. NaN where there is nothing to divide by.
    """
    counts = counts.astype(np.float64)
    right, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou = _ratio(right, labelled + predicted - right)
    recall = _ratio(right, labelled)
    found = {
        "mIoU": _mean(iou),
        "fwIoU": float(_ratio(np.nansum(labelled * iou), labelled.sum())),
        "mACC": _mean(recall),
        "pACC": float(_ratio(right.sum(), labelled.sum())),
    }
    found |= {f"IoU-{name}": value for name, value in zip(classes, iou.tolist(), strict=True)}
    found |= {f"ACC-{name}": value for name, value in zip(classes, recall.tolist(), strict=True)}
    return {name: 100 * value for name, value in found.items()}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN when nothing is left."""
    some = values[~np.isnan(values)]
    return float(some.mean()) if len(some) else float("nan")
