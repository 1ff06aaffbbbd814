"""What a run writes about itself."""

import json
import math
import time

import pytest

from densessl.pretrain.engine.logs import TIME_FIELDS, Logs, Meter
from densessl.pretrain.engine.train import train


def write(folder, first, last, state=None, period=3):
    """Steps ``first`` to ``last`` of a run; returns the state after them."""
    folder.mkdir(exist_ok=True)
    with Logs(folder, period, batch_size=4, start=first) as logs:
        if state:
            logs.load_state_dict(state)
        for iteration in range(first + 1, last + 1):
            values = {"loss": 1 / iteration, "grad_norm": float(iteration)}
            facts = {"epoch": iteration / 5, "lr": 0.1}
            logs.step(iteration, values, facts, waited=0.0, last=iteration == 11)
        return logs.state_dict()


def lines(folder):
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIME_FIELDS} for line in read]


def test_a_line_holds_the_means_since_the_line_before(tmp_path):
    write(tmp_path, 0, 11)
    found = lines(tmp_path)
    assert [line["iteration"] for line in found] == [3, 6, 9, 11]
    assert found[0]["loss"] == (1 + 1 / 2 + 1 / 3) / 3
    assert found[3]["grad_norm"] == 10.5
    assert found[3]["epoch"] == 11 / 5


@pytest.mark.parametrize("at", range(1, 11))
def test_going_on_at_any_step_gives_the_same_file(tmp_path, at):
    write(tmp_path / "whole", 0, 11)
    state = write(tmp_path / "parts", 0, at)
    write(tmp_path / "parts", at, min(at + 4, 11), state)  # killed: beyond its checkpoint
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 12, "lo')
    write(tmp_path / "parts", at, 11, state)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_values_that_are_not_finite_stay_out_of_the_means():
    meter = Meter()
    for value in (1.0, math.nan, 3.0, math.inf):
        meter.add({"loss": value, "other": 1.0, "never": math.nan})
    means = meter.take()
    assert math.isnan(means.pop("never")) and means == {"loss": 2.0, "other": 1.0}
    assert meter.take() == {}


def test_a_line_is_json_whatever_the_values(tmp_path):
    with Logs(tmp_path, 1, batch_size=4, start=0) as logs:
        logs.step(1, {"loss": 2.0, "stat": math.nan}, {"epoch": 1.0, "lr": 0.1}, waited=0.0)
        logs.step(2, {}, {"epoch": 2.0, "lr": 0.1}, waited=0.0)  # a skipped step
    assert lines(tmp_path) == [
        {"iteration": 1, "epoch": 1.0, "lr": 0.1, "loss": 2.0},
        {"iteration": 2, "epoch": 2.0, "lr": 0.1},
    ]


def test_tensorboard_has_the_same_numbers(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    state = write(tmp_path, 0, 7)
    begun = int(time.time())
    while int(time.time()) == begun:  # TensorBoard orders its files by the second in their names
        time.sleep(0.01)
    write(tmp_path, 4, 11, state)  # resumed from step 4: steps 5 to 7 are replaced
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("loss")]
    assert steps == sorted(set(steps)) and set(steps) == {3, 6, 9, 11}


def test_a_run_says_where_max_steps_stands_in_for_epochs(tiny, tmp_path):
    for name, steps in (("by_epochs", 0), ("by_steps", 1)):
        options = ("SOLVER.EPOCHS", 1, "SOLVER.MAX_STEPS", steps, "SOLVER.BATCH_SIZE", 24)
        train(tiny("simsiam", tmp_path / name, *options))
        log = (tmp_path / name / "log.txt").read_text()
        assert "1 steps (1 epochs of 1" in log
        assert ("; by SOLVER.MAX_STEPS, not SOLVER.EPOCHS)" in log) == (steps == 1)
