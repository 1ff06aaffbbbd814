"""Logs that cannot be written end no run; a checkpoint that cannot, says so itself."""

import json
import os
import resource
from pathlib import Path

import pytest

from densessl.core.errors import EnvironmentLacks
from densessl.pretrain.engine.train import train

LOGS = ("metrics.jsonl", "log.txt")


def fill(folder):
    """From now on the logs of a run lie on a full device."""
    for name in LOGS:
        (folder / name).rename(folder / f"{name}.before")
        (folder / name).symlink_to("/dev/full")
    (folder / "tensorboard").rename(folder / "tensorboard.before")
    (folder / "tensorboard").symlink_to("/dev/full")


def empty(folder):
    for name in (*LOGS, "tensorboard"):
        (folder / name).unlink()
        (folder / f"{name}.before").rename(folder / name)


def test_logs_wait_for_room_and_lack_nothing(tiny, check_same_run, capsys):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = tiny("moco", None, "LOG.PERIOD", 1, "CHECKPOINT.STEPS", 3, "SOLVER.MAX_STEPS", 7)
    out = Path(cfg.OUTPUT_DIR)

    def full_for_a_while(step):
        {2: fill, 5: empty}.get(step, lambda folder: None)(out)

    train(cfg, full_for_a_while)
    assert capsys.readouterr().err.count("cannot write") == 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(1, 8))
    log = (out / "log.txt").read_bytes()
    assert log.count(b"cannot write") == 1 and b"done: " in log
    events = reading.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 8))
    whole = tiny("moco", None, "LOG.PERIOD", 1, "CHECKPOINT.STEPS", 3, "SOLVER.MAX_STEPS", 7)
    train(whole)
    check_same_run(out, whole.OUTPUT_DIR)


def test_lines_that_wait_are_in_the_checkpoint(tiny):
    options = ("LOG.PERIOD", 1, "CHECKPOINT.STEPS", 3, "SOLVER.MAX_STEPS", 6)
    cfg = tiny("moco", None, *options)
    out = Path(cfg.OUTPUT_DIR)

    class Killed(BaseException):
        pass

    def kill(step):
        if step == 1:
            fill(out)
        if step == 4:
            empty(out)
            raise Killed

    with pytest.raises(Killed):
        train(cfg, kill)
    (out / "metrics.jsonl").write_text((out / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    train(cfg)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(1, 7))


def test_the_message_of_the_checkpoint_comes_first(tiny):
    cfg = tiny("moco", None, "LOG.PERIOD", 1, "CHECKPOINT.STEPS", 3, "SOLVER.MAX_STEPS", 6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(step):
        if step == 2:
            fill(Path(cfg.OUTPUT_DIR))
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))

    try:
        with pytest.raises(EnvironmentLacks, match="cannot write .*step_00000003.pth"):
            train(cfg, full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(Path(cfg.OUTPUT_DIR) / "checkpoints") == []
