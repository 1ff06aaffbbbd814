"""The order of samples: a function of the seed and the epoch, whatever runs it."""

import numpy as np

from densessl.core.order import epoch_order
from densessl.pretrain.engine.order import STREAM, BatchOrder, global_batch, step_seed


def test_an_epoch_visits_each_image_at_most_once_and_drops_the_rest():
    batches = list(BatchOrder(images=25, batch_size=8, seed=3, first=0, last=6))
    assert len(batches) == 6
    for epoch in (0, 1):
        keys = [key for batch in batches[3 * epoch : 3 * epoch + 3] for key in batch]
        assert {at for at, _ in keys} == {epoch}
        assert len({index for _, index in keys}) == 24


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(epoch_order(STREAM, seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 6
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(epoch_order(STREAM, 1, 2, 50)) == orders[-1]


def test_entering_at_any_step_gives_the_same_batches():
    whole = list(BatchOrder(25, 8, 3, first=0, last=9))
    for first in range(9):
        assert list(BatchOrder(25, 8, 3, first, last=9)) == whole[first:]


def test_processes_share_the_global_batch_by_turns():
    whole = list(BatchOrder(25, 8, 3, 0, 9))
    ranks = [list(BatchOrder(25, 8, 3, 0, 9, rank, world=4)) for rank in range(4)]
    for step, batch in enumerate(whole):
        for rank in range(4):
            assert ranks[rank][step] == batch[rank::4]
        assert [index for _, index in batch] == global_batch(3, step, 25, 8)


def test_orders_stay_what_they_were():
    # A run that an earlier version began must go on in the same order.
    assert epoch_order(STREAM, 0, 0, 8).tolist() == [3, 0, 5, 1, 6, 4, 2, 7]
    assert epoch_order(STREAM, 7, 3, 8).tolist() == [2, 3, 7, 4, 6, 5, 1, 0]
    assert epoch_order(STREAM, 0, 0, 8).dtype == np.int64


def test_each_step_and_process_has_a_seed_of_its_own():
    seeds = {step_seed(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)}
    assert len(seeds) == 8 and step_seed(0, 1, 0) == step_seed(0, 1, 0)
