"""The next batch is taken during a step, as on a GPU: the run and its end are the same."""

import os
import signal
from pathlib import Path

import pytest
import torch

from densessl.core.errors import InputError, StoppedEarly
from densessl.pretrain.engine import train as training
from densessl.pretrain.engine.ahead import Ahead
from densessl.pretrain.engine.train import train

CPU = torch.device("cpu")


@pytest.fixture
def ahead(monkeypatch):
    """Runs on the CPU take the next batch during a step, too; counts how often one was."""
    fetched = []

    class Counted(Ahead):
        def fetch(self):
            super().fetch()
            fetched.append(self._error)

    monkeypatch.setattr(training, "fetches_ahead", lambda device: True)
    monkeypatch.setattr(training, "Ahead", Counted)
    return fetched


class Loaded:
    """Batches of a loader that fails after ``last`` of them."""

    def __init__(self, last):
        self.given, self.last, self.waited = 0, last, 0.0

    def __next__(self):
        if self.given == self.last:
            raise InputError("no image can be read")
        self.given += 1
        self.waited = float(self.given)
        return self.given


def test_what_fails_ahead_is_raised_when_it_is_asked_for():
    batches = Ahead(Loaded(2), lambda batch: [], CPU)
    assert next(batches) == (1, []) and batches.waited == 1.0
    batches.fetch()
    assert batches.waited == 1.0  # of the batch that was given
    assert next(batches) == (2, []) and batches.waited == 2.0
    batches.fetch()
    with pytest.raises(InputError, match="no image can be read"):
        next(batches)


def test_batches_come_in_their_order_fetched_or_not():
    batches = Ahead(Loaded(5), lambda batch: [], CPU)
    given = []
    for number in range(5):
        given.append(next(batches)[0])
        if number % 2:
            batches.fetch()
    assert given == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_is_the_same(tiny, ahead, monkeypatch, check_same_run, workers):
    options = ("DATA.WORKERS", workers, "SOLVER.ACCUMULATE", 2, "SOLVER.MAX_STEPS", 5)
    early, late = tiny("simsiam", None, *options), tiny("simsiam", None, *options)
    train(early)
    assert [error is None for error in ahead] == [True] * 4 + [False]  # no batch after the last
    monkeypatch.setattr(training, "fetches_ahead", lambda device: False)
    train(late)
    check_same_run(early.OUTPUT_DIR, late.OUTPUT_DIR)


def test_a_run_that_is_stopped_goes_on_with_the_batch_that_was_taken(tiny, ahead, check_same_run):
    options = ("SOLVER.MAX_STEPS", 5)
    cfg, whole = tiny("moco", None, *options), tiny("moco", None, *options)

    def stop(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly, match="after step 3 of 5"):
        train(cfg, stop)
    train(cfg)
    train(whole)
    check_same_run(Path(cfg.OUTPUT_DIR), whole.OUTPUT_DIR)
