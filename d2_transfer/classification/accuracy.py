"""Accuracies, counted over all processes."""

import torch
from torch import Tensor

from densessl.core.distributed import all_reduce_sum
from densessl.core.knn.search import largest

TOP = 5


class Counts:
    """Hits and images of each class, for each of R classifiers.

    ``add(predictions [R, B, ≥1], labels [B])`` takes the likeliest classes, falling. The processes'
    counts are summed by :meth:`gathered`. Accuracies are per cent; top 5 is NaN with fewer than 5
    classes.
    """

    def __init__(self, classifiers: int, classes: int, device: torch.device):
        self.classes = classes
        self.hits = torch.zeros(classifiers, 2, classes, dtype=torch.long, device=device)
        self.images = torch.zeros(classes, dtype=torch.long, device=device)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        right = predictions == labels[None, :, None]
        for place, depth in enumerate((1, TOP)):
            hit = right[..., :depth].any(2)  # [R, B]
            for one, found in zip(self.hits, hit, strict=True):
                one[place] += torch.bincount(labels[found], minlength=self.classes)
        self.images += torch.bincount(labels, minlength=self.classes)

    def gathered(self) -> "Counts":
        """The same object with the counts of all processes."""
        self.hits, self.images = all_reduce_sum(self.hits), all_reduce_sum(self.images)
        return self

    def top1(self, classifier: int = 0) -> float:
        return self._share(classifier, 0)

    def top5(self, classifier: int = 0) -> float:
        return self._share(classifier, 1) if self.classes >= TOP else float("nan")

    def mean_class(self, classifier: int = 0) -> float:
        """The mean over the classes (that have images) of their accuracy."""
        seen = self.images > 0
        shares = self.hits[classifier, 0][seen].double() / self.images[seen]
        return 100 * shares.mean().item()

    def best(self) -> int:
        """The classifier with the highest accuracy, the first of equals."""
        values = [self.top1(number) for number in range(len(self.hits))]
        return values.index(max(values))

    def _share(self, classifier: int, place: int) -> float:
        return 100 * self.hits[classifier, place].sum().item() / max(self.images.sum().item(), 1)


def likeliest(logits: Tensor) -> Tensor:
    """The classes of the largest logits ``[…, classes]``, falling; −1 where one is not finite."""
    flat = logits.flatten(0, -2)
    found = largest(flat, min(TOP, flat.shape[1]))[1]
    found[~flat.isfinite().all(1)] = -1
    return found.unflatten(0, logits.shape[:-1])


def flat_metrics(task: str, counts: Counts) -> dict[str, float]:
    """``task/top1`` and ``task/top5``, of the first classifier."""
    return {f"{task}/top1": counts.top1(), f"{task}/top5": counts.top5()}
