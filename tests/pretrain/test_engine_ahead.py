"""The host runs ahead of the device, as on a GPU: the next batch is taken and the next step asked
for during a step, whose values are read afterwards. The run, its end and bad steps are the same."""

import copy
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from densessl.core.errors import InputError, StoppedEarly
from densessl.pretrain.engine import train as training
from densessl.pretrain.engine.ahead import Ahead
from densessl.pretrain.engine.build import build_model
from densessl.pretrain.engine.optimizers import FusedSGD
from densessl.pretrain.engine.order import global_batch
from densessl.pretrain.engine.step import Stepper
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import METHODS
from tests.pretrain.test_engine_nonfinite import BAD, EIGHT, check_no_trace, poisoned
from tests.pretrain.test_methods import twin, views, with_other_steps
from tests.pretrain.test_methods_runs import SMALL_BACKBONE

CPU = torch.device("cpu")


@pytest.fixture
def ahead(monkeypatch):
    """Runs on the CPU do it, too; what the next batch gave, each time that it was taken early."""
    fetched = []

    class Counted(Ahead):
        def fetch(self):
            super().fetch()
            fetched.append(self._error)

    monkeypatch.setattr(torch.optim, "SGD", FusedSGD)
    monkeypatch.setattr(training, "runs_ahead", lambda device: True)
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
    monkeypatch.setattr(training, "runs_ahead", lambda device: False)
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


ONE_EACH = {twin(preset).METHOD.NAME: preset for preset in reversed(with_other_steps())}


@pytest.mark.parametrize("solver", ["sgd", "lars", "adamw"])
def test_a_bad_step_leaves_no_trace(tiny, ahead, monkeypatch, different, solver):
    monkeypatch.setitem(METHODS, "moco", poisoned(BAD))
    cfg = tiny("moco", None, *EIGHT, "SOLVER.OPTIMIZER", solver)
    train(cfg)
    check_no_trace(cfg, different)


def test_a_run_with_bad_steps_is_that_of_a_host_that_waits(
    tiny, ahead, monkeypatch, check_same_run
):
    monkeypatch.setitem(METHODS, "moco", poisoned(BAD))
    options = ("SOLVER.MAX_STEPS", 8, "CHECKPOINT.STEPS", 8, "LOG.PERIOD", 1)
    early, late = tiny("moco", None, *options), tiny("moco", None, *options)
    train(early)
    monkeypatch.setattr(training, "runs_ahead", lambda device: False)
    train(late)
    check_same_run(early.OUTPUT_DIR, late.OUTPUT_DIR)


def test_a_run_of_bad_steps_ends_at_the_same_one(tiny, ahead, monkeypatch):
    monkeypatch.setitem(METHODS, "moco", poisoned(dict.fromkeys((1, 3, 4, 5), "loss")))
    cfg = tiny("moco", None, "SOLVER.MAX_SKIPPED", 3, "CHECKPOINT.STEPS", 9)
    with pytest.raises(InputError, match="3 steps in a row .* at step 5 .*loss inf"):
        train(cfg)
    listed = (Path(cfg.OUTPUT_DIR) / "nonfinite_step_00000005.txt").read_text().split()
    order = global_batch(cfg.SEED, 5, images=24, batch_size=8)
    assert listed == [f"{index:02d}.jpg" for index in order]


@pytest.mark.parametrize("preset", ONE_EACH.values())
def test_every_method_is_left_as_it_was(preset, teacher, different):
    """By a step that is not finite, and moved by the next as if the host had waited."""
    states = []
    for ahead in (False, True):
        cfg = twin(preset)
        if cfg.BACKBONE.NAME.startswith("resnet"):
            _, cfg.BACKBONE.NAME = SMALL_BACKBONE
        cfg.DISTILL.TEACHER, cfg.SOLVER.OPTIMIZER = str(teacher), "adamw"
        torch.manual_seed(0)
        method, optimizer = build_model(cfg, CPU)
        stepper = Stepper(method, method, optimizer, CPU, clip_norm=0.5, ahead=ahead)
        seen = []
        for number, factor in enumerate((1.0, math.nan, 1.0), start=5):
            batch = views(seed=number)
            for _ in range(cfg.VIEWS.LOCAL_CROPS // 2):
                batch += views(seed=number, size=32)
            for view in batch:
                view.image[0] *= factor
            torch.manual_seed(number)  # of dropped paths
            outcome = stepper.launch([batch], number, lr=0.01).outcome()
            assert outcome.applied == math.isfinite(factor)
            state = {"model": method.state_dict(), "optimizer": optimizer.state_dict()}
            seen.append(copy.deepcopy(state))
        assert different(seen[0], seen[1]) == [] != different(seen[1], seen[2])
        states.append(seen[2])
    assert different(*states) == []
