"""What FCOS learns at each location of its feature maps, and the boxes that its distances mean.

Sources: Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection", section 3, and
its journal version (2021, "FCOS: A Simple and Strong Anchor-free Object Detector"), which has
centre sampling and distances in strides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from densessl.core.distributed import all_reduce_sum, world_size

from .. import compat

compat.setup()
import torch  # noqa: E402
from fvcore.nn import giou_loss, sigmoid_focal_loss  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402


@dataclass(frozen=True)
class Locations:
    """The locations of all levels, the finest first and each row by row.

    ``points [R, 2]``: x and y in pixels of the network's input, the centre of a location's cell.
    ``strides [R]``: of their levels. ``sizes [R, 2]``: the least and the largest distance to the
    farthest side of a box that the level is for. ``counts``: locations of each level.
    """

    points: Tensor
    strides: Tensor
    sizes: Tensor
    counts: list[int]


def locations_of(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], limits: Sequence[float], device
) -> Locations:
    """Those of levels of the ``shapes`` (height, width).

    ``limits``: the sizes that divide one level from the next, in pixels, one less than levels.
    """
    bounds = [0.0, *limits, float("inf")]
    points = []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y, x = ((torch.arange(n, device=device) + 0.5) * stride for n in (height, width))
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=2)
        points.append(grid.flatten(0, 1))
    counts = [len(each) for each in points]
    of_level = torch.arange(len(counts), device=device)
    of_level = of_level.repeat_interleave(torch.tensor(counts, device=device))
    sizes = torch.tensor([*zip(bounds, bounds[1:], strict=False)], device=device)
    return Locations(
        torch.cat(points),
        torch.tensor([float(each) for each in strides], device=device)[of_level],
        sizes[of_level],
        counts,
    )


def assign(
    locations: Locations, boxes: Tensor, classes: Tensor, background: int, radius: float
) -> tuple[Tensor, Tensor]:
    """The class that each location learns, ``[R]`` (``background`` where no box is its own), and
    its distances to that box's sides, ``[R, 4]`` (left, top, right, bottom, in strides).

    ``boxes [M, 4]``: corners in pixels; ``classes [M]``. A box is a location's if the location is
    in it, less than ``radius`` strides from its centre along both axes, and its farthest side is at
    a distance that the location's level is for. Of several the one of least area is taken.
    """
    points, strides = locations.points[:, None], locations.strides[:, None]
    if not len(boxes):
        labels = torch.full((len(points),), background, device=points.device)
        return labels, points.new_zeros(len(points), 4)
    distances = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=2)  # [R, M, 4]
    from_centre = (points - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(2)
    farthest = distances.amax(2)
    own = (distances.amin(2) > 0) & (from_centre < radius * strides)
    own &= (farthest >= locations.sizes[:, :1]) & (farthest <= locations.sizes[:, 1:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    least, which = torch.where(own, areas, float("inf")).min(1)
    labels = torch.where(least.isfinite(), classes[which], background)
    return labels, distances[torch.arange(len(points)), which] / strides


def centerness_of(distances: Tensor) -> Tensor:
    """1 in the centre of a box, towards 0 at its sides: ``[P, 4]`` positive distances → ``[P]``."""
    left, top, right, bottom = distances.unbind(1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def boxes_at(points: Tensor, distances: Tensor) -> Tensor:
    """Corners ``[P, 4]`` of the boxes whose sides lie at ``distances [P, 4]`` from ``points``."""
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def losses(
    logits: Tensor,
    distances: Tensor,
    centerness: Tensor,
    labels: Tensor,
    targets: Tensor,
    alpha: float,
    gamma: float,
) -> dict[str, Tensor]:
    """The three losses of a batch; their sum is what is minimised.

    ``logits [N, R, K]``, ``distances [N, R, 4]`` (in strides, not negative) and ``centerness
    [N, R]`` (logits) are predicted; ``labels [N, R]`` (K: background) and ``targets [N, R, 4]`` of
    :func:`assign`. Classes have the focal loss (``alpha``, ``gamma``) over all locations,
    centerness has binary cross entropy where there is a box, both divided by the number of these
    locations. Boxes have the generalised IoU loss there, weighted by the targets' centerness and
    divided by its sum. Number and sum are means over the processes, so the gradients are those of
    the whole batch.
    """
    classes = logits.shape[2]
    has_box = labels < classes
    targets = targets[has_box]
    weights = centerness_of(targets)
    totals = torch.stack([has_box.sum().to(weights.dtype), weights.sum()])
    count, weight = all_reduce_sum(totals) / world_size()
    count, weight = count.clamp(min=1), weight.clamp(min=1e-6)
    one_hot = F.one_hot(labels, classes + 1)[..., :classes].to(logits.dtype)
    origin = targets.new_zeros(len(targets), 2)
    found, wanted = (boxes_at(origin, each) for each in (distances[has_box].float(), targets))
    in_boxes = centerness[has_box].float()
    return {
        "loss_cls": sigmoid_focal_loss(logits, one_hot, alpha, gamma, "sum") / count,
        "loss_box_reg": (giou_loss(found, wanted) * weights).sum() / weight,
        "loss_centerness": F.binary_cross_entropy_with_logits(in_boxes, weights, reduction="sum")
        / count,
    }
