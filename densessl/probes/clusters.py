"""Clusters of positions, matched to classes: how well features part by themselves.

After Leopart (Ziegler & Asano, CVPR 2022, arXiv 2204.13101; github.com/MkuuWaUjinga/leopart).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from densessl.core import knn

from .cells import largest
from .confusion import Confusion

ROWS = 4096  # positions whose distances to all centres exist at a time
CONSTANT = 1e-6  # a deviation of so little of the mean is rounding
NORMALISATIONS = ("none", "standard", "unit")
MATCHINGS = ("hungarian", "precision")
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Clustering:
    """``centres [K, C]``, each position's cluster (long ``[N]``), and the ``inertia``: the sum of
    squared distances to the centres. ``converged``: the last step changed no cluster."""

    centres: Tensor
    assignment: Tensor
    inertia: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Overclustering:
    """``matching [K]`` gives each cluster's class; ``confusion`` what that is worth; ``counts
    [K, classes]`` the pixels (or positions) of each class in each cluster."""

    clustering: Clustering
    matching: Tensor
    counts: Tensor
    confusion: Confusion

    @property
    def miou(self) -> float:
        """In per cent, over the classes that occur."""
        return self.confusion.miou()


@torch.no_grad()
def overcluster(
    features: Tensor,
    labels: Tensor,
    clusters: int,
    *,
    seed: int,
    classes: int | None = None,
    normalisation: str = "standard",
    pca: int | None = 50,
    matching: str | None = None,
    iterations: int = 100,
    restarts: int = 1,
    report: Report | None = None,
) -> Overclustering:
    """K-means of positions, each cluster given a class by the labels, and the mean IoU of that.

    Args:
        features: ``[N, C]``.
        labels: ``[N]`` whole numbers, of which those outside 0 … ``classes`` − 1 are not counted
            (they are clustered); or ``[N, classes]`` counts of pixels
            (:func:`probes.cell_counts`): then the IoU is that of pixels, each in its position's
            cluster.
        clusters: K. Leopart takes as many as classes, and 500 of VOC.
        seed: of the first centres. Leopart averages five.
        classes: their number; needed with labels ``[N]``.
        normalisation: "standard" (each channel to mean 0 and deviation 1, Leopart's; constant ones
            to 0), "unit" (each position to length 1: spherical K-means), "none".
        pca: principal components that are kept, Leopart's 50; None or no fewer than C: all channels
            as they are.
        matching: as :func:`match`; None takes "hungarian" for K ≤ classes, else "precision".
        iterations: at most so many, as :func:`kmeans`; Leopart's are 100.
        restarts: the best of so many, as :func:`kmeans`; Leopart's are 5.
        report: as :func:`kmeans`.

    Raises:
        ValueError: for names that are not known, shapes that do not fit, and fewer positions than
            clusters.
    """
    if labels.ndim == 1 and classes is not None:
        counted = (labels >= 0) & (labels < classes)
    elif labels.ndim == 2 and classes in (None, labels.shape[1]):
        counted, classes = None, labels.shape[1]
    else:
        raise ValueError(
            f"labels are {[*labels.shape]} and classes {classes}; needed: [N] and their number, "
            "or [N, classes]"
        )
    if len(labels) != len(features):
        raise ValueError(f"{len(features)} positions, {len(labels)} labels")
    x = prepared(features, normalisation, pca)
    found = kmeans(
        x,
        clusters,
        seed=seed,
        spherical=normalisation == "unit",
        iterations=iterations,
        restarts=restarts,
        report=report,
    )
    counts = torch.zeros(clusters, classes, dtype=torch.int64)
    place = found.assignment.cpu()
    if counted is None:
        counts.index_add_(0, place, labels.cpu().long())
    else:
        counted = counted.cpu()
        pairs = place[counted] * classes + labels.cpu()[counted].long()
        counts += pairs.bincount(minlength=clusters * classes).view(clusters, classes)
    to_class = match(counts, matching)
    confusion = Confusion(classes)
    confusion.counts.index_add_(1, to_class, counts.T.contiguous())
    return Overclustering(found, to_class, counts, confusion)


def match(counts: Tensor, matching: str | None = None) -> Tensor:
    """The class of each cluster, long ``[K]``, from the pixels ``counts [K, classes]`` they share.

    "hungarian": one cluster a class, so that the sum of their IoU is the largest there is; with
    more clusters than classes the rest go to class 0, in most data sets the background (Leopart's
    rule); with fewer, classes stay without. "precision": each cluster goes to the class with most
    of its pixels, the lower of equal ones, many to one. None: "hungarian" for K ≤ classes, else
    "precision".
    """
    if matching is None:
        matching = "hungarian" if counts.shape[0] <= counts.shape[1] else "precision"
    if matching == "precision":
        return counts.argmax(1)
    if matching != "hungarian":
        raise ValueError(f"matching '{matching}'; allowed: {', '.join(MATCHINGS)}")
    from scipy.optimize import linear_sum_assignment  # slow to import

    both = counts.double()
    either = both.sum(1, keepdim=True) + both.sum(0, keepdim=True) - both
    rows, columns = linear_sum_assignment((both / either.clamp(min=1)).numpy(), maximize=True)
    found = torch.zeros(len(counts), dtype=torch.int64)
    found[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return found


def prepared(features: Tensor, normalisation: str = "standard", pca: int | None = 50) -> Tensor:
    """What K-means is given: ``features`` normalised, and projected to ``pca`` components."""
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation '{normalisation}'; allowed: {', '.join(NORMALISATIONS)}")
    x = features.to(torch.promote_types(features.dtype, torch.float32))
    if not x.isfinite().all():
        raise ValueError("features hold values that are not finite")
    if normalisation == "unit":
        x = knn.unit(x)
    elif normalisation == "standard":
        deviation, mean = torch.std_mean(x.double(), dim=0, correction=0)
        scale = torch.where(deviation > CONSTANT * mean.abs(), deviation, 1.0)
        x = torch.cat([((part - mean) / scale).to(x.dtype) for part in x.split(ROWS)])
    if pca is not None and pca < x.shape[1]:
        mean = x.double().mean(0)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=x.device)
        for part in x.split(ROWS):
            part = part.double() - mean
            covariance += part.T @ part
        axes = torch.linalg.eigh(covariance / len(x)).eigenvectors[:, -pca:].flip(1)
        x = torch.cat([((part.double() - mean) @ axes).to(x.dtype) for part in x.split(ROWS)])
        x = knn.unit(x) if normalisation == "unit" else x
    return x


def kmeans(
    features: Tensor,
    clusters: int,
    *,
    seed: int = 0,
    initial: Tensor | None = None,
    spherical: bool = False,
    iterations: int = 100,
    restarts: int = 1,
    report: Report | None = None,
) -> Clustering:
    """Lloyd's K-means of ``features [N, C]`` in blocks: no N × K matrix exists.

    First centres: ``initial [K, C]``, or k-means++ (Arthur & Vassilvitskii 2007) by ``seed``; of
    ``restarts`` with further draws the one of least inertia is kept. An empty cluster takes the
    position that is farthest from its centre. ``spherical``: features have length 1, and so get the
    centres. Ends when no position changes its cluster, or after ``iterations``; ``report`` is
    called after each with its number and the inertia. Sums are float64.
    """
    if not 1 <= clusters <= len(features):
        raise ValueError(f"{clusters} clusters of {len(features)} positions")
    generator = torch.Generator().manual_seed(seed)
    best: Clustering | None = None
    for _ in range(restarts if initial is None else 1):
        centres = first_centres(features, clusters, generator) if initial is None else initial
        found = _lloyd(features, centres.to(features), spherical, iterations, report)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None, "restarts"
    return best


def first_centres(features: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is a position drawn by its squared distance to the nearest."""
    chosen = [int(torch.randint(len(features), (1,), generator=generator))]
    least = None
    while len(chosen) < clusters:
        last = features[chosen[-1]]
        new = torch.cat([(part - last).double().square().sum(1) for part in features.split(ROWS)])
        least = new if least is None else torch.minimum(least, new)
        reach = least.cumsum(0).cpu()
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * reach[-1]
        place = int(torch.searchsorted(reach, draw, right=True))
        chosen.append(min(place, len(features) - 1))
    return features[chosen]


def _lloyd(x: Tensor, centres: Tensor, spherical: bool, iterations: int, report) -> Clustering:
    before, done, converged = None, 0, False
    assignment, distance = _assigned(x, centres)
    while done < iterations:
        done += 1
        centres = _means(x, assignment, distance, centres, spherical)
        before = assignment
        assignment, distance = _assigned(x, centres)
        if report:
            report(done, float(distance.sum()))
        if torch.equal(assignment, before):
            converged = True
            break
    return Clustering(centres, assignment, float(distance.sum()), done, converged)


def _assigned(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Each position's nearest centre (the lower of equal ones) and its squared distance."""
    middle = centres.mean(0)  # far from 0 the products would lose digits
    moved = centres - middle
    half = moved.square().sum(1) / -2
    nearest = torch.cat(
        [largest(torch.addmm(half, part - middle, moved.T), 1) for part in x.split(ROWS)]
    )
    parts = zip(x.split(ROWS), nearest.split(ROWS), strict=True)
    distance = [(part - centres[near]).double().square().sum(1) for part, near in parts]
    return nearest, torch.cat(distance)


def _means(x, assignment, distance, centres, spherical: bool) -> Tensor:
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=x.device)
    for part, near in zip(x.split(ROWS), assignment.split(ROWS), strict=True):
        sums.index_add_(0, near, part.double())
    sizes = assignment.bincount(minlength=len(centres))
    means = sums / sizes.clamp(min=1)[:, None]
    empty = (sizes == 0).nonzero()[:, 0]
    if len(empty):
        means[empty] = x[distance.argsort(descending=True, stable=True)[: len(empty)]].double()
    return (knn.unit(means) if spherical else means).to(x.dtype)
