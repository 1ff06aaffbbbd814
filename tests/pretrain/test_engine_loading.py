"""Loader processes: they start at any step, end with the run, and their death is explained."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.loader import Loader, Options
from densessl.pretrain.engine.order import BatchOrder


class Squares(torch.utils.data.Dataset):
    """index² for every key (epoch, index); 7 cannot be had."""

    def __init__(self, forbidden=None):
        self.forbidden = forbidden

    def __getitem__(self, key):
        if key[1] == self.forbidden:
            raise InputError("seven is not to be had")
        return torch.tensor(key[1] ** 2)


def loading(workers, forbidden=None, first=0):
    order = BatchOrder(images=10, batch_size=4, seed=0, first=first, last=6)
    options = Options(workers)
    return iter(Loader(Squares(forbidden), torch.stack, str, options, batch_sampler=order)), order


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 3])
def test_batches_come_in_order_from_any_step(workers, first):
    opened, order = loading(workers, first=first)
    with opened as batches:
        for keys in order:
            assert next(batches).tolist() == [index**2 for _, index in keys]
            assert batches.waited >= 0
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_for_people_comes_through_as_it_was(workers):
    opened, _ = loading(workers, forbidden=7)
    with pytest.raises(InputError) as failed, opened as batches:
        for _ in range(6):
            next(batches)
    assert str(failed.value) == "seven is not to be had"
    assert multiprocessing.active_children() == []  # though the traceback is still there


def test_workers_outlive_signals_to_the_group_and_their_death_is_explained():
    opened, order = loading(2)
    with pytest.raises(EnvironmentLacks, match="a loader process died"), opened as batches:
        workers = multiprocessing.active_children()
        next(batches)  # they have started, then
        next(batches)
        for worker in workers:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
                os.kill(worker.pid, number)
        time.sleep(0.2)
        assert all(worker.is_alive() for worker in workers)
        os.kill(workers[0].pid, signal.SIGKILL)
        for _ in range(600):  # PyTorch hears of it by a signal
            time.sleep(0.1)
    assert multiprocessing.active_children() == []
