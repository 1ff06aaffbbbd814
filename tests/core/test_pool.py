"""Processes that share out work: in order, explained when killed, gone when the block is left."""

import multiprocessing
import os
import signal
import sys
import time

import pytest

from densessl.core import pool
from densessl.core.errors import EnvironmentLacks, InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="functions of this file are forked")


@pytest.mark.parametrize("workers, forked", [(0, False), (1, False), (2, True), (2, False)])
def test_results_come_in_the_order_of_the_items(workers, forked):
    with pool.results(abs, range(-5, 3), workers, forked=forked) as found:
        assert list(found) == [5, 4, 3, 2, 1, 0, 1, 2]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers):
    def refuse(number):
        raise InputError(f"not {number}")

    with (
        pytest.raises(InputError, match="not 0"),
        pool.results(refuse, range(3), workers, forked=True) as found,
    ):
        list(found)
    assert not multiprocessing.active_children()


def test_a_killed_process_is_explained():
    def die(number):
        os.kill(os.getpid(), signal.SIGKILL)

    with (
        pytest.raises(EnvironmentLacks, match="--workers 2"),
        pool.results(die, range(8), 4, forked=True, option="--workers") as found,
    ):
        list(found)


def test_processes_that_hang_are_killed_at_once_also_by_a_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(KeyboardInterrupt),
        pool.results(time.sleep, [0, 600, 600], 2, forked=True, at_once=True) as found,
    ):
        next(found)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGTERM)  # theirs to ignore
        os.kill(os.getpid(), signal.SIGTERM)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGTERM) == before


def test_work_that_has_begun_is_finished_where_the_block_is_left(tmp_path):
    def write(number):
        (tmp_path / f"begun {number}").touch()
        time.sleep(0.3)
        (tmp_path / f"done {number}").touch()

    with pytest.raises(KeyboardInterrupt), pool.results(write, range(40), 2, forked=True) as found:
        next(found)
        raise KeyboardInterrupt
    begun = len(list(tmp_path.glob("begun *")))
    assert begun == len(list(tmp_path.glob("done *"))) < 40
