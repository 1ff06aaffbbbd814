"""Checkpoints: whole, or not there, or known to be damaged."""

import logging
import multiprocessing
import os
import resource
import signal

import pytest
import torch

from densessl.core.checkpoint import sidecar
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.pretrain.engine.checkpoint import Checkpoints


def state(step):
    values = torch.arange(4000, dtype=torch.float32) + step
    return {"model": {"weight": values}, "iteration": step, "config": "SEED: 0\n", "list": [1, 2]}


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (2, 4, 6):
        made.save(step, state(step))
    return made


def steps(checkpoints):
    return [step for step, _ in checkpoints.found()]


def test_the_newest_comes_back_as_it_was(checkpoints):
    path, found = checkpoints.newest()
    assert path == checkpoints.path(6)
    assert torch.equal(found["model"]["weight"], state(6)["model"]["weight"])
    assert {key: found[key] for key in ("iteration", "config", "list")} == {
        "iteration": 6,
        "config": "SEED: 0\n",
        "list": [1, 2],
    }


def test_a_new_run_has_none(tmp_path):
    assert Checkpoints(tmp_path / "checkpoints").newest() is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def garbage(path):
    path.write_bytes(os.urandom(3000))


def no_sidecar(path):
    sidecar(path).unlink()


def empty_sidecar(path):
    sidecar(path).write_text("")


@pytest.mark.parametrize("harm", [truncate, empty, flip, garbage, no_sidecar, empty_sidecar])
def test_a_damaged_one_is_named_and_the_one_before_is_used(checkpoints, harm, caplog):
    harm(checkpoints.path(6))
    logging.getLogger("densessl").propagate = True
    with caplog.at_level(logging.WARNING, "densessl"):
        path, found = checkpoints.newest()
    assert path == checkpoints.path(4) and found["iteration"] == 4
    assert str(checkpoints.path(6)) in caplog.text


def test_two_damaged_ones_in_a_row(checkpoints):
    flip(checkpoints.path(6))
    truncate(checkpoints.path(4))
    assert checkpoints.newest()[1]["iteration"] == 2


def test_all_damaged_is_an_error_and_never_a_new_run(checkpoints):
    for _, path in checkpoints.found():
        flip(path)
    with pytest.raises(InputError, match=r"every checkpoint .* damaged \(3 of 3\)"):
        checkpoints.newest()
    assert steps(checkpoints) == [2, 4, 6]


def test_old_ones_go_and_those_for_good_stay(tmp_path):
    kept = Checkpoints(tmp_path, keep=2, keep_every=4)
    for step in range(1, 11):
        kept.save(step, state(step))
    assert steps(kept) == [4, 8, 9, 10]
    assert len(list(tmp_path.iterdir())) == 8  # four files and their sidecars, nothing else


def test_damaged_ones_do_not_push_out_the_good_one(checkpoints):
    flip(checkpoints.path(6))
    flip(checkpoints.path(4))
    going_on = Checkpoints(checkpoints.folder, keep=2)
    assert going_on.newest()[1]["iteration"] == 2
    going_on.save(3, state(3))
    assert steps(going_on) == [2, 3, 4, 6]  # 4 and 6 are remains of a future that never was
    going_on.save(5, state(5))
    assert steps(going_on) == [3, 5, 6]
    assert Checkpoints(checkpoints.folder).newest()[1]["iteration"] == 5
    going_on.save(6, state(6))
    assert Checkpoints(checkpoints.folder).newest()[1]["iteration"] == 6


def test_remains_of_a_killed_writer_are_cleaned_away(checkpoints):
    (checkpoints.folder / ".step_00000008.pth.4711.partial").write_bytes(b"half")
    sidecar(checkpoints.path(8)).write_text("0" * 64)
    checkpoints.clean()
    assert steps(checkpoints) == [2, 4, 6]
    assert len(list(checkpoints.folder.iterdir())) == 6
    assert checkpoints.newest()[1]["iteration"] == 6


def test_a_full_disk_is_one_message_and_leaves_the_earlier_ones(checkpoints):
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))  # a real refusal by the kernel
    try:
        with pytest.raises(EnvironmentLacks, match="cannot write .*step_00000008.pth"):
            checkpoints.save(8, state(8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    checkpoints.save(8, state(8))
    assert checkpoints.newest()[1]["iteration"] == 8


def write_until_killed(folder, cut):
    """Save step 4 and be killed, without any clean-up, at the ``cut``-th system-level moment."""
    moments = iter(range(1000))

    def moment(function):
        def counted(*args, **kwargs):
            if next(moments) == cut:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted

    from densessl.core import checkpoint, files

    checkpoint._Hashing.write = moment(checkpoint._Hashing.write)
    files.os.fsync, files.os.replace = moment(os.fsync), moment(os.replace)
    checkpoint.Path.unlink = moment(checkpoint.Path.unlink)
    Checkpoints(folder, keep=1).save(4, state(4))
    os._exit(0)


def test_a_kill_at_every_moment_of_writing_leaves_a_whole_checkpoint(tmp_path):
    fork = multiprocessing.get_context("fork")
    folder, cut, ends = tmp_path / "checkpoints", 0, []
    while not ends or ends[-1] != 0:
        for file in folder.glob("*"):
            file.unlink()
        Checkpoints(folder).save(2, state(2))
        writer = fork.Process(target=write_until_killed, args=(folder, cut))
        writer.start()
        writer.join()
        ends.append(writer.exitcode)
        again = Checkpoints(folder)
        again.clean()
        path, found = again.newest()
        step = found["iteration"]
        assert path == again.path(step) and not again.damaged
        assert torch.equal(found["model"]["weight"], state(step)["model"]["weight"])
        cut += 1
    assert len(ends) > 20 and set(ends[:-1]) == {-signal.SIGKILL}
    assert step == 4
