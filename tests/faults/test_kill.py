"""Kill −9 at any moment: the run that resumes is the run that nothing disturbed, bit for bit."""

import os
import random
import shutil
import signal

import pytest

SEEDS = 24
FAST = 1  # of them is among the fast tests
STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGINT)  # the last one kills again
TWICE = 20  # seeds of a second signal


@pytest.fixture(scope="module")
def begin(server, tiny):
    """``begin(folder, workers)`` starts a run of seven steps that writes much of the time."""
    from densessl.pretrain.engine.train import train

    def begin(folder, workers):
        options = ("SOLVER.MAX_STEPS", 7, "CHECKPOINT.STEPS", 2, "LOG.PERIOD", 3)
        queue = ("MOCO.QUEUE", 200_000)  # of 13 MB, which take a while to be saved
        cfg = tiny("moco", folder, "DATA.WORKERS", workers, *queue, *options)
        process = server.Process(target=train, args=(cfg,))
        process.start()
        return process

    return begin


@pytest.fixture(scope="module")
def whole(begin, changes, tmp_path_factory):
    """The folder of an undisturbed run, and how often it was seen to change."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    folder.mkdir()
    process = begin(folder, workers=0)
    seen = sum(1 for _ in changes(process, folder))
    process.join()
    assert process.exitcode == 0
    return folder, seen


def kill_somewhere(begin, wait_for_change, folder, workers, rng, seen):
    """Kill a run −9 at a random one of the moments of its life; tries again if it got through."""
    while True:
        process = begin(folder, workers)
        at, delay = rng.randrange(seen), rng.choice([0, 0.001, 0.01, 0.1]) * rng.random()
        wait_for_change(process, folder, at, delay)
        process.kill()
        process.join()
        if process.exitcode != 0:
            return process.exitcode
        shutil.rmtree(folder)
        folder.mkdir()
        seen = max(seen // 2, 1)


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_killed_runs_go_on_as_if_nothing_had_happened(
    begin, wait_for_change, whole, check_same_run, different, tmp_path, seed
):
    import torch

    rng = random.Random(seed)
    expected, seen = whole
    folder = tmp_path / "run"
    folder.mkdir()
    for kill in range(1 + seed % 2):
        assert kill_somewhere(begin, wait_for_change, folder, (seed + kill) % 3, rng, seen) == -9
    last = begin(folder, workers=(seed + 2) % 3)
    last.join()
    assert last.exitcode == 0
    check_same_run(folder, expected)
    one, other = (
        torch.load(run / "backbone_final.pth", weights_only=True)["backbone"]
        for run in (folder, expected)
    )
    assert different(one, other) == []
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(TWICE)],
)
def test_a_second_signal_while_it_saves_damages_nothing(
    begin, changes, whole, check_same_run, tmp_path, seed
):
    from densessl.pretrain.engine.checkpoint import Checkpoints

    rng = random.Random(seed)
    expected, seen = whole
    folder = tmp_path / "run"
    folder.mkdir()
    process = begin(folder, workers=seed % 2)
    first, second = rng.choice(STOPS), STOPS[seed % 4]
    at = rng.randrange(seen // 4, seen // 2)
    then = at + rng.randrange(1, 6)  # it saves: a file changes with each piece that is written
    for count, _ in enumerate(changes(process, folder)):
        if count in (at, then):
            os.kill(process.pid, first if count == at else second)
    process.join()
    # 1 is StoppedEarly, which no verb turns to 75; it has saved before another signal can end it
    assert process.exitcode in (0, 1, -signal.SIGINT, -second)
    if process.exitcode == 1:
        assert Checkpoints(folder / "checkpoints").newest() is not None
    last = begin(folder, workers=0)
    last.join()
    assert last.exitcode == 0
    check_same_run(folder, expected)
    assert not list(folder.rglob("*.partial"))
