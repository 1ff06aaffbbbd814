"""Segmentation by the nearest labelled positions: in-context retrieval.

The rule is that of "Towards In-context Scene Understanding" (Balažević et al., NeurIPS 2023, arXiv
2306.01667, "Hummingbird"), with the settings of its public form,
github.com/vpariza/open-hummingbird-eval (hbird/hbird_eval.py):

- 30 neighbours by cosine, softmax of cosine / 0.02, soft labels: the class shares of a patch's
  pixels. There ignored pixels become class 0 in the memory; here they count nowhere.
- images scaled to a square: 512 px with patches of 16, 504 with patches of 14; the memory also from
  random crops (of half the area or more), twice over the training images in its published table.
- a memory of 1024 · 10², 10³ or 10⁴ positions, the same number of each image and pass, chosen as in
  :func:`sample_positions`.
- probabilities are upsampled to the pixels (bilinear) before the largest is taken; mIoU over all
  pixels of the validation set that are not ignored.

Its mIoU on VOC (README; memories of 1024 · 10² / 10³ / 10⁴): DINO ViT-S/16 37.2 / 43.1 / 46.6,
ViT-B/16 44.9 / 50.8 / 55.7 (55.9 in the paper, 1024 · 10⁴); DINOv2 ViT-S/14 70.2 / 74.9 / 77.0,
ViT-B/14 69.1 / 74.6 / 76.9. Its search is approximate, ours exact.
"""

import random
from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
from torch import Tensor

from densessl.core import knn

K, TEMPERATURE = 30, 0.02  # of open-hummingbird-eval
SHARES = ("1/128", "1/64", "1/8", "1/1")  # of the images, in its lists of files
ROWS = 4096  # queries whose neighbours' labels are summed at a time


@torch.no_grad()
def knn_segment(
    queries: Tensor,
    keys: Tensor | Iterable[Tensor],
    labels: Tensor,
    k: int = K,
    temperature: float = TEMPERATURE,
    *,
    classes: int | None = None,
) -> Tensor:
    """The class probabilities of each query position: ``[Q, classes]``, rows add up to 1.

    A query's ``k`` nearest keys by cosine weigh softmax(cosine / ``temperature``), and its
    probabilities are the weighted mean of their labels. The search is exact.

    Args:
        queries: features ``[Q, C]`` of any length.
        keys: features ``[M, C]`` of the memory, or their rows in several tensors, one after the
            other (from files, say), each brought to the device of the queries.
        labels: ``[M]`` whole numbers, or ``[M, classes]`` shares of each class (soft labels), which
            are divided by their sum. A key without a class (outside 0 … ``classes`` − 1, or of
            zeros) is no neighbour of anything.
        classes: needed with ``[M]``.

    At most a block of knn.search's rows × columns similarities exists at a time; what grows with
    Q is Q × (k + classes). The result is float64 for float64 queries, else float32.

    Raises:
        ValueError: for shapes that do not fit, a k below 1, a temperature that is not positive, and
            where no key has a class.
    """
    classes = _classes(labels, classes)
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; needed: more than 0")
    labelled = (labels.sum(1) > 0) if labels.ndim == 2 else (labels >= 0) & (labels < classes)
    if not labelled.any():
        raise ValueError("no key has a class")
    parts = [keys] if isinstance(keys, Tensor) else keys
    similarity, index = knn.nearest(
        knn.unit(queries), _labelled_rows(parts, labelled.to(queries.device)), k
    )
    labels = labels[labelled.to(labels.device)].to(queries.device)
    labels = labels.long() if labels.ndim == 1 else labels
    kind = torch.promote_types(queries.dtype, torch.float32)
    found = queries.new_empty(len(queries), classes, dtype=kind)
    for first in range(0, len(queries), ROWS):
        part = slice(first, first + ROWS)
        if labels.ndim == 1:
            found[part] = knn.probabilities(
                similarity[part], labels[index[part]], classes, temperature
            )
        else:
            found[part] = _mean_label(similarity[part], index[part], labels, temperature)
    return found


def _classes(labels: Tensor, classes: int | None) -> int:
    if labels.ndim == 2 and classes in (None, labels.shape[1]):
        return labels.shape[1]
    if labels.ndim != 1 or classes is None:
        raise ValueError(
            f"labels are {[*labels.shape]} and classes {classes}; needed: [M] and their number, "
            "or [M, classes]"
        )
    return classes


def _labelled_rows(parts: Iterable[Tensor], labelled: Tensor) -> Iterator[Tensor]:
    """The rows that have a class, of length 1, in parts that are no larger than knn's blocks."""
    offset = 0
    for part in parts:
        for rows in part.split(knn.search.COLUMNS):
            kept = labelled[offset : offset + len(rows)].to(rows.device)
            offset += len(rows)
            if offset <= len(labelled):
                yield knn.unit(rows[kept])
    if offset != len(labelled):
        raise ValueError(f"the keys are {offset}, and their labels {len(labelled)}")


def _mean_label(similarity: Tensor, index: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``[n, classes]``: the neighbours' soft labels under the softmax of their similarities."""
    weights = (similarity.double() / temperature).softmax(1)
    found = weights.new_zeros(len(index), labels.shape[1])
    for j in range(index.shape[1]):  # never [n, k, classes]
        label = labels[index[:, j]].double()
        found += weights[:, j : j + 1] * (label / label.sum(1, keepdim=True))
    return found


def sample_positions(counts: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Which positions of an image go into a memory of bounded size: long, rising, ≤ ``count``.

    ``counts [P, classes]``: pixels (or shares) of each class in each position's cell. A position's
    score is the number of the image's positions that show a class of its own, summed over its
    classes, times a uniform random number; those of the lowest scores are taken, so that rare
    classes are kept more often. Positions without a class never are. (open-hummingbird-eval takes
    memory size / (images × passes) of each image.)
    """
    present = (counts > 0).cpu()
    frequency = present.sum(0)
    score = (present.double() @ frequency.double()) * torch.rand(
        len(present), generator=generator, dtype=torch.float64
    )
    labelled = present.any(1)
    score[~labelled] = torch.inf
    taken = score.argsort(stable=True)[: min(count, int(labelled.sum()))]
    return taken.sort().values.to(counts.device)


def subset(n: int, share: str | float, seed: int) -> list[int]:
    """A share ("1/128", 0.1) of ``n`` images by ``seed``: rising numbers, at least one.

    Of one seed the smaller share is part of the larger. As many as n times the share, rounded: 83
    of VOC's 10,582 images are 1/128 (open-hummingbird-eval's lists hold 80 for each of five seeds).
    Raises ValueError for a share outside (0, 1].
    """
    try:
        part = Fraction(share)
    except (ValueError, ZeroDivisionError, OverflowError):  # words, x/0, not finite
        part = Fraction(0)
    if not 0 < part <= 1:
        raise ValueError(f"a share of '{share}'; needed: above 0 and at most 1, as 1/8 or 0.1")
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return sorted(order[: max(1, round(n * part))])
