"""The batches of a trial: Detectron2's own, and the same after a stop, with any workers."""

import itertools

import numpy as np
import pytest
import torch

from densessl.core.order import seed_of
from densessl.d2_transfer import compat
from densessl.d2_transfer.sampling import (
    GroupedOrder,
    repeat_factors,
    training_loader,
    wide_images,
)

compat.setup()

SIZES = [(4, 3), (3, 4), (4, 4), (9, 2), (2, 9), (5, 4), (3, 3), (4, 5), (6, 1), (1, 6), (7, 6)]
DICTS = [{"image_id": n, "width": w, "height": h} for n, (w, h) in enumerate(SIZES)]
FACTORS = torch.tensor([1.0, 2.5, 1.0, 3.25, 1.1, 1.0, 1.0, 1.9, 1.0, 2.0, 1.0])


def batches(count: int, **changed) -> list[list[int]]:
    options = {"size": len(DICTS), "batch": 3, "seed": 7, "wide": wide_images(DICTS)} | changed
    found = itertools.islice(GroupedOrder(**options), count)
    return [[index for _, index in batch] for batch in found]


@pytest.mark.parametrize("rank, world", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("factors", [None, FACTORS])
def test_the_batches_are_those_of_detectron2(rank, world, factors, monkeypatch):
    from detectron2.data import samplers
    from detectron2.data.common import AspectRatioGroupedDataset
    from detectron2.utils import comm

    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world)
    theirs = samplers.TrainingSampler(len(DICTS), shuffle=True, seed=7)
    if factors is not None:
        theirs = samplers.RepeatFactorTrainingSampler(factors, shuffle=True, seed=7)
    stream = (DICTS[int(index)] for index in theirs)
    grouped = itertools.islice(AspectRatioGroupedDataset(stream, 3), 40)
    expected = [[each["image_id"] for each in batch] for batch in grouped]
    assert batches(40, rank=rank, world=world, factors=factors) == expected


def test_an_image_is_repeated_by_the_rarest_of_its_categories():
    objects = [[0], [0], [0, 1], [0, 0], [0], [0], [0], [2, 1]]  # shares 7/8, 2/8, 1/8
    dicts = [{"annotations": [{"category_id": n} for n in each]} for each in objects]
    found = repeat_factors([*dicts, {}], 0.5)
    one, two = (0.5 / (1 / 9)) ** 0.5, (0.5 / (2 / 9)) ** 0.5
    torch.testing.assert_close(found, torch.tensor([1.0, 1, two, 1, 1, 1, 1, one, 1]))


def test_a_batch_holds_images_of_one_kind_and_an_epoch_every_image_once():
    wide = wide_images(DICTS)
    for batch in batches(30):
        assert len({wide[index] for index in batch}) == 1
    plain = [index for batch in batches(11, wide=None, batch=1) for index in batch]
    assert sorted(plain) == list(range(len(DICTS)))


def test_a_resumed_order_goes_on_where_it_was():
    whole = batches(25)
    for first in (1, 7, 20):
        assert batches(25 - first, first=first) == whole[first:]
    repeated = batches(25, factors=FACTORS)
    assert batches(18, factors=FACTORS, first=7) == repeated[7:] and repeated != whole
    assert batches(25, seed=8) != whole


def test_unknown_sizes_are_not_grouped():
    assert wide_images([{"width": 3, "height": 2}, {"file_name": "a"}]) is None


def draw(entry: dict) -> dict:
    """A mapper that augments with what Detectron2 draws from."""
    return entry | {"drawn": np.random.uniform(size=2).tolist()}  # noqa: NPY002


def drawn(workers: int, first: int = 0, count: int = 6) -> list:
    order = GroupedOrder(len(DICTS), 2, seed=3, first=first)
    loader = training_loader(DICTS, draw, order, workers)
    return [[each["drawn"] for each in batch] for batch in itertools.islice(iter(loader), count)]


def test_augmentations_depend_on_the_place_in_the_stream_alone():
    whole = drawn(workers=0)
    assert len({tuple(each) for batch in whole for each in batch}) == 12
    assert drawn(workers=2) == whole
    assert drawn(workers=0, first=2, count=4) == whole[2:]


def test_seeds_differ_for_every_number():
    seeds = {seed_of(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert seed_of(1, 2) != seed_of(2, 1)
    assert 0 <= seed_of(2**31) < 2**32
    torch.manual_seed(seed_of(1))  # is a seed for torch and for numpy
