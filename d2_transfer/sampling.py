"""Which images make which batch, and how each is augmented: functions of (seed, step).

Detectron2 shuffles with a seed, too, but its augmentations go on from wherever numpy's generator
is, and its groups by aspect ratio start empty after a stop: a resumed run is another one. Here a
trial that was stopped has the very batches of one that was not, whatever the number of workers.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from densessl.core.errors import InputError
from densessl.core.files import require_file
from densessl.core.loader import GRACE, Loader, Options
from densessl.core.order import Draw, seed_of
from densessl.core.reading import reading
from densessl.core.waiting import TIMEOUT

from . import compat

compat.setup()
from detectron2.data import DatasetFromList  # noqa: E402
from detectron2.data.samplers import (  # noqa: E402
    InferenceSampler,
    RepeatFactorTrainingSampler,
)


def shuffled(size: int, seed: int) -> Iterator[int]:
    """Detectron2's endless stream: one shuffle of all images after the other."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(size, generator=generator).tolist()


def repeated(factors: torch.Tensor, seed: int) -> Iterator[int]:
    """Detectron2's endless stream of RepeatFactorTrainingSampler: of each image as many copies as
    its factor says, float32 [N], where a fraction is the chance of one more; shuffled each time."""
    generator = torch.Generator().manual_seed(seed)
    whole = factors.trunc()
    while True:
        more = torch.rand(len(factors), generator=generator) < factors - whole
        images = torch.repeat_interleave((whole + more).long())
        yield from images[torch.randperm(len(images), generator=generator)].tolist()


def repeat_factors(dicts: Sequence[dict], threshold: float) -> torch.Tensor:
    """How often each image is there: sqrt(threshold / share) of its rarest category, where a
    smaller share of the images than ``threshold`` has it, else once (LVIS, appendix B)."""
    objects = [{"annotations": each.get("annotations", [])} for each in dicts]
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(objects, threshold)


class GroupedOrder:
    """The batches of one rank, for ever, from batch number ``first`` on.

    ``wide``: of each image whether it is wider than high. A batch holds images of one kind, as with
    Detectron2's ASPECT_RATIO_GROUPING; None leaves them ungrouped. ``batch``: images of this rank.
    ``factors``: of each image how often it is there (:func:`repeat_factors`); None: once.
    The ranks deal the one shuffled stream out among themselves. Not densessl.core's order, whose
    batches are not Detectron2's: they have no groups, and a group's batches must be counted.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        seed: int,
        wide: Sequence[bool] | None = None,
        rank: int = 0,
        world: int = 1,
        first: int = 0,
        factors: torch.Tensor | None = None,
    ):
        self.size, self.batch, self.seed, self.wide = size, batch, seed, wide
        self.rank, self.world, self.first, self.factors = rank, world, first, factors

    def __iter__(self) -> Iterator[list[Draw]]:
        groups: tuple[list[Draw], list[Draw]] = ([], [])
        done = 0
        stream = shuffled(self.size, self.seed)
        if self.factors is not None:
            stream = repeated(self.factors, self.seed)
        for position, index in enumerate(stream):
            if position % self.world != self.rank:
                continue
            group = groups[bool(self.wide[index])] if self.wide is not None else groups[0]
            group.append((position, index))
            if len(group) == self.batch:
                if done >= self.first:
                    yield list(group)
                group.clear()
                done += 1


def mapped(mapper: Callable[[dict], dict], entry: dict) -> dict:
    """``mapper(entry)``; InputError where it cannot be read."""
    try:
        for key in ("file_name", "sem_seg_file_name"):
            if key in entry:
                require_file(entry[key])
        return mapper(entry)
    except (OSError, SyntaxError) as error:  # Pillow raises either for damaged files
        raise InputError(f"{entry.get('file_name')} cannot be read: {error}") from None


class TrainingImages(Dataset):
    """Images by draw; each position in the stream has augmentations of its own."""

    def __init__(self, dicts: Sequence[dict], mapper: Callable[[dict], dict], seed: int):
        self.dicts = DatasetFromList(list(dicts), copy=True)  # serialised: the workers share it
        self.mapper, self.seed = mapper, seed

    def __len__(self) -> int:
        return len(self.dicts)

    def name(self, index: int) -> str:
        """The file of an image, for messages."""
        return str(self.dicts[index].get("file_name", index))

    def __getitem__(self, draw: Draw) -> dict:
        position, index = draw
        seed = seed_of(self.seed, position)
        np.random.seed(seed)  # noqa: NPY002  (what Detectron2's augmentations draw from)
        random.seed(seed)
        reading(index)
        return mapped(self.mapper, self.dicts[index])


class TestImages(Dataset):
    """Images by index."""

    __test__ = False  # not a test of pytest's

    def __init__(self, dicts: Sequence[dict], mapper: Callable[[dict], dict]):
        self.dicts, self.mapper = DatasetFromList(list(dicts), copy=True), mapper

    def __len__(self) -> int:
        return len(self.dicts)

    def name(self, index: int) -> str:
        """The file of an image, for messages."""
        return str(self.dicts[index].get("file_name", index))

    def __getitem__(self, index: int) -> dict:
        reading(index)
        return mapped(self.mapper, self.dicts[index])


class ImageLoader(Loader):
    """A loader of lists of mapped dicts; InputError for the first that cannot be read.

    Its workers end with :func:`densessl.core.loader.close_all`.
    """

    def __init__(self, dataset: TrainingImages | TestImages, workers: int, timeout: float, **order):
        options = Options(workers, timeout, GRACE, "DATALOADER", "NUM_WORKERS")
        super().__init__(dataset, list, dataset.name, options, **order)

    def __iter__(self) -> Iterator[list[dict]]:  # type: ignore[override]
        yield from super().__iter__()  # begun with the first batch: a trial may be refused before


def training_loader(
    dicts: Sequence[dict],
    mapper: Callable[[dict], dict],
    order: GroupedOrder,
    workers: int,
    timeout: float = TIMEOUT,
) -> ImageLoader:
    """The endless loader of lists of mapped dicts that Detectron2's trainers take."""
    images = TrainingImages(dicts, mapper, order.seed)
    return ImageLoader(images, workers, timeout, batch_sampler=order)


def test_loader(
    dicts: Sequence[dict], mapper: Callable[[dict], dict], workers: int, timeout: float = TIMEOUT
) -> ImageLoader:
    """Each image once, one at a time, the ranks sharing them: for Detectron2's evaluation."""
    order = InferenceSampler(len(dicts))
    return ImageLoader(TestImages(dicts, mapper), workers, timeout, sampler=order)


def wide_images(dicts: Sequence[dict]) -> list[bool] | None:
    """Of each image whether it is wider than high; None where a size is not known."""
    if not all("width" in each and "height" in each for each in dicts):
        return None
    return [each["width"] > each["height"] for each in dicts]
