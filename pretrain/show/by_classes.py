"""Class probabilities of views, a local crop and its feature-augmented sample: SCFS's Figure 1.

The paper takes them from its trained classifier, which a checkpoint does not hold; here the nearest
of some labelled images vote, as in online k-NN.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from densessl.core import knn
from densessl.core.errors import InputError
from densessl.core.progress import track

from ..correspondence import feature_search
from ..engine.online_knn import UNREADABLE, ClassFolders
from . import matches
from .panels import GOOD, LOCAL, NONE, VIEW_COLOURS, Panel, show_pixels
from .section import Section, pixels_of, searched, shown

if TYPE_CHECKING:
    from .checkpoint import Pretrained
    from .look import Look

BATCH = 32
BARS = 5  # classes of a panel
NAME = 26  # letters of a class's name beside its bar
OTHER, TRUE = "#c9ced6", "#7fd0b4"  # of bars, below dark letters
SAMPLES = ("view 1", "view 2", "local crop", "feature-augmented sample")


@dataclass(frozen=True)
class Voters:
    """Labelled images: features of length 1 ``[M, C]``, labels ``[M]``, the names of classes."""

    features: Tensor
    labels: Tensor
    classes: list[str]

    def probabilities(self, queries: Tensor, options: Any) -> Tensor:
        """Float64 ``[N, classes]`` of features ``[N, C]``: the vote by ``cfg.KNN``'s K and τ."""
        found, index = knn.nearest(knn.unit(queries), self.features, options.K)
        labels = self.labels[index]
        return knn.probabilities(found, labels, len(self.classes), options.TEMPERATURE)

    def class_of(self, image: Path) -> int | None:
        """The class that an image's own folder names; None where that is none of the classes."""
        name = image.absolute().parent.name
        return self.classes.index(name) if name in self.classes else None


def voters_of(model: "Pretrained", level: str, args) -> Voters:
    """The images of ``args.train``, at most ``args.train_limit`` of a class, centre crops.

    Raises InputError for a folder with fewer than two classes of readable images.
    """
    size = args.size or model.cfg.VIEWS.SIZE
    images = ClassFolders(
        Path(args.train),
        0,
        size,
        "--train",
        model.bounds,
        model.cfg.DATA.MAX_PIXELS,
        each=args.train_limit,
    )
    parts, labels = [], []
    for pixels, of_batch in track(_batches(images), "labelled images", -(-len(images) // BATCH)):
        readable = of_batch != UNREADABLE
        if readable.any():
            parts.append(_pooled(model, level, pixels[readable]))
            labels.append(of_batch[readable])
    known = torch.cat(labels) if labels else torch.empty(0, dtype=torch.long)
    if len(known.unique()) < 2:
        raise InputError(f"--train: {args.train} has readable images of fewer than two classes")
    return Voters(knn.unit(torch.cat(parts)), known, images.classes)


def _batches(images: ClassFolders) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(images), BATCH):
        some = [images[number] for number in range(first, min(first + BATCH, len(images)))]
        pixels, labels = zip(*some, strict=True)
        yield torch.stack(pixels), torch.tensor(labels)


@torch.no_grad()
def _pooled(model: "Pretrained", level: str, pixels: Tensor) -> Tensor:
    """Mean features ``[N, C]`` of uint8 images ``[N, 3, H, W]``."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (model.mean, model.std))
    return model.backbone((pixels.float() / 255 - mean) / std)[level].mean((2, 3))


def samples(look: "Look") -> Tensor:
    """Mean features ``[4, C]`` of view 1, view 2, the local crop and its augmented sample.

    That is view 1's map, weighted with the cosine of its positions with the crop (SCFS eqs. 5 to
    7), then pooled. Final weights have no head, which is the method's next step (eq. 8).
    """
    crop = look.crops[:, 0]  # [1, C]
    _, augmented = feature_search(crop[None], look.query)  # [1, 1, C, h, w]
    means = (look.query.mean((2, 3)), look.key.mean((2, 3)), crop, augmented[0].mean((2, 3)))
    return torch.cat(means)


def classes(look: "Look") -> Section:
    """What is searched and found, and the likeliest classes of all four samples."""
    voters, crop = look.voters, look.local[0]
    assert voters is not None, "the section is chosen together with --train"
    p = voters.probabilities(samples(look), look.options.KNN)
    found = matches.searches(look.crops[:, :1], look.query, [crop], look.views[0])[0]
    low, high = float(found.attention.min()), float(found.attention.max())
    draw = partial(show_pixels, pixels=look.pixels(crop).numpy(), colour=LOCAL)
    first = [
        Panel("the local crop", draw, columns=3),
        Panel(
            f"in view 1 ({found.share:.0%} lies there)",
            partial(searched, pixels=pixels_of(look)[0], found=found, low=low, high=high),
            legend=((NONE, f"cosine with the crop: dark {low:.2f}, bright {high:.2f}"),),
            sheet=False,
        ),
    ]
    true = voters.class_of(look.image)
    label = "" if true is None else f"its class, {shown(voters.classes[true], NAME)}"
    colours = (*VIEW_COLOURS, LOCAL, GOOD)
    bars = [
        Panel(
            name,
            partial(_bars, p=p[row], voters=voters, true=true, colour=colours[row]),
            legend=() if true is None else ((TRUE, f"{label}: {float(p[row, true]):.0%}"),),
        )
        for row, name in enumerate(SAMPLES)
    ]
    text = (
        f"class probabilities: the vote of the {min(look.options.KNN.K, len(voters.labels))} "
        f"nearest of {len(voters.labels)} labelled images (the paper: its trained classifier)"
    )
    note = "augmented: view 1 weighted with the search"
    return Section("Classes", text, [first, bars], note)


def _bars(axes, p: Tensor, voters: Voters, true: int | None, colour: str) -> None:
    """The likeliest classes of one sample from above, the name of each upon its bar."""
    order = p.argsort(descending=True, stable=True)[:BARS].tolist()
    values = [float(p[number]) for number in order]
    axes.set_axis_off()
    inner = axes.inset_axes((0.02, 0.04, 0.96, 0.92))
    inner.barh(range(len(order)), values, color=[TRUE if n == true else OTHER for n in order])
    for row, number in enumerate(order):
        label = f"{shown(voters.classes[number], NAME)}  {values[row]:.0%}"
        inner.text(0.02, row, label, fontsize=9, va="center", parse_math=False)
    inner.set(xlim=(0, 1), ylim=(BARS - 0.5, -0.5), xticks=[], yticks=[])
    inner.spines[:].set(color=colour, linewidth=2)
