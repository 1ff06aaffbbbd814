"""What was predicted for what was labelled, counted, and the IoU of it."""

import torch
from torch import Tensor


class Confusion:
    """Counts of positions or pixels, long ``counts [classes, classes]``: rows are labels.

    The metrics are those of the fine-tuned protocols: a class's IoU is what is both labelled and
    predicted so over what is either, and a class that no label has but that is predicted counts as
    0, as in mmsegmentation. All are in per cent.
    """

    def __init__(self, classes: int):
        if classes < 1:
            raise ValueError(f"{classes} classes; needed: at least 1")
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Count ``predictions`` against ``labels``: whole numbers of one shape, on any device.

        Labels outside 0 … ``classes`` − 1 (255, −1) are ignored, whatever is predicted there.
        Raises ValueError for other shapes and for a counted prediction that is no class.
        """
        if predictions.shape != labels.shape:
            raise ValueError(f"predictions {[*predictions.shape]}, labels {[*labels.shape]}")
        labels, predictions = labels.long(), predictions.to(labels.device).long()
        counted = (labels >= 0) & (labels < self.classes)
        pairs = labels[counted], predictions[counted]
        if len(pairs[1]):
            least, most = (int(each) for each in pairs[1].aminmax())
            if least < 0 or most >= self.classes:
                raise ValueError(
                    f"predictions from {least} to {most}; allowed: 0 to {self.classes - 1}"
                )
        found = (pairs[0] * self.classes + pairs[1]).bincount(minlength=self.classes**2)
        self.counts += found.view(self.classes, self.classes).cpu()

    def iou(self) -> Tensor:
        """Per cent of each class, float64 ``[classes]``; NaN for one neither labelled nor
        predicted."""
        counts = self.counts.double()
        right = counts.diagonal()
        return _per_cent(right, counts.sum(1) + counts.sum(0) - right)

    def recall(self) -> Tensor:
        """Per cent of each class's labels that are predicted so, ``[classes]``; NaN without any."""
        counts = self.counts.double()
        return _per_cent(counts.diagonal(), counts.sum(1))

    def miou(self) -> float:
        """The mean of :meth:`iou` over the classes that occur; NaN if none does."""
        return float(self.iou().nanmean())

    def accuracy(self) -> float:
        """Per cent of the labelled positions that are right; NaN without labels."""
        return float(_per_cent(self.counts.diagonal().sum().double(), self.counts.sum().double()))


def _per_cent(part: Tensor, whole: Tensor) -> Tensor:
    return 100 * part / whole  # 0 / 0 is NaN
