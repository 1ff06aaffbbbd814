"""A wall clock that is set ten years back or forward during a run, and disks that rename late."""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

import pytest

SEEDS = 20
FAST = 1  # of them are among the fast tests
YEARS = 10 * 365.25 * 86400
LATE = 0.05  # seconds that a rename takes
# Trains what each line of its input names, in a process of its own; says its number and its end.
SERVER = """
import os, sys, traceback
import torch
from densessl.pretrain import config
from densessl.pretrain.engine.train import train
import torch.utils.tensorboard
from densessl.pretrain.engine.facts import config_names
torch.set_num_threads(1)
config_names(config.defaults())  # reads all configs that come with it, once
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            train(config.load(line.strip(), []))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Clock:
    """What the processes under the double take for the time is off by so many seconds."""

    def __init__(self, file):
        self.file = file
        file.write_bytes(struct.pack("d", 0))

    def set(self, seconds: float) -> None:
        with open(self.file, "r+b") as stream:  # the file that they have mapped
            stream.write(struct.pack("d", seconds))


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock") / "seconds")


@pytest.fixture(scope="module")
def train(bad_libc, clock, tiny, tmp_path_factory):
    """``with train(folder) as run:`` a run of five steps under that clock, on a disk that renames
    late; ``run.pid`` and, at its end, ``run.code``."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env=bad_libc(CLOCK=clock.file, RENAME=LATE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    class Run:
        def __init__(self, folder):
            options = ("SOLVER.MAX_STEPS", 5, "CHECKPOINT.STEPS", 2, "LOG.PERIOD", 2)
            cfg = tiny("moco", folder, "MOCO.QUEUE", 48, *options)
            file = tmp_path_factory.mktemp("config") / "tiny.yaml"
            file.write_text(cfg.dump())
            server.stdin.write(f"{file}\n")
            server.stdin.flush()
            self.pid = int(server.stdout.readline())

        def lives(self) -> bool:
            return os.path.exists(f"/proc/{self.pid}/exe")

        def end(self) -> int:
            return int(server.stdout.readline())

    yield Run
    server.communicate()


def seen(folder):
    return lambda: sorted(file.name for file in folder.rglob("*"))


@pytest.fixture(scope="module")
def whole(train, clock, moments, tmp_path_factory):
    """The folder of a run with a clock that nobody sets, and how often it was seen to change."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    clock.set(0)
    run = train(folder)
    count = sum(1 for _ in moments(run.lives, seen(folder)))
    assert run.end() == 0
    return folder, count


seeds = pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)


@seeds
def test_a_clock_set_back_and_forward_changes_nothing(
    train, clock, moments, whole, check_same_run, tmp_path, seed
):
    """Half of the runs are killed as well, and resume in another year."""
    rng = random.Random(seed)
    expected, count = whole
    clock.set(rng.choice([0, -YEARS, YEARS]))
    run = train(tmp_path)
    first, second, last = sorted(rng.choices(range(count), k=3))
    for number, _ in enumerate(moments(run.lives, seen(tmp_path))):
        if number in (first, second):
            clock.set(rng.choice([-YEARS, YEARS]))
        if number == last and seed % 2:
            os.kill(run.pid, signal.SIGKILL)
            break
    code = run.end()
    if seed % 2 and code == -signal.SIGKILL:
        clock.set(rng.choice([-YEARS, YEARS]))
        code = train(tmp_path).end()
    assert code == 0
    check_same_run(tmp_path, expected)
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert all(0 <= line["seconds"] < 86400 for line in lines)


@seeds
def test_killed_while_a_rename_is_late_a_run_resumes(
    train, clock, moments, whole, check_same_run, tmp_path, seed
):
    """Killed between the last byte of a file and its name, at one of the files of a run."""
    rng = random.Random(seed)
    clock.set(0)
    run = train(tmp_path)
    wanted = rng.randrange(8)
    halves = moments(run.lives, lambda: sorted(each.name for each in tmp_path.rglob(".*.partial")))
    for number, _ in enumerate(each for each in halves if each):
        if number == wanted:
            time.sleep(LATE * rng.random())
            os.kill(run.pid, signal.SIGKILL)
            break
    assert run.end() in (0, -signal.SIGKILL)
    assert train(tmp_path).end() == 0
    check_same_run(tmp_path, whole[0])
    assert not list(tmp_path.rglob("*.partial"))


QUICK = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1])
file.with_suffix(".begun").touch()
while not file.with_suffix(".go").exists():
    time.sleep(0.02)
file.write_text("done")
"""


@pytest.mark.parametrize("years", [-10, pytest.param(10, marks=pytest.mark.slow)])
def test_a_pipeline_measures_no_years(bad_libc, clock, densessl, until, tmp_path, years):
    (tmp_path / "quick.py").write_text(QUICK)
    (tmp_path / "one.yaml").write_text(
        "jobs:\n  - {name: job, module: quick, run: $dir/out, outputs: [$dir/out]}\n"
    )
    clock.set(0)
    env, folder = bad_libc(CLOCK=clock.file, RENAME=LATE), tmp_path / "run"
    words = ["reproduce", "one.yaml", "--local", "-o", str(folder)]
    command = [sys.executable, "-m", "densessl", *words]
    process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=-3, stderr=-3)
    until((folder / "out.begun").exists, "the job")
    clock.set(years / 10 * YEARS)
    (row,) = map(json.loads, densessl("status", folder, "--json", env=env).splitlines())
    assert row["state"] == "running" and (row["seconds"] is None or row["seconds"] > 0)
    (folder / "out.go").touch()
    assert process.wait() == 0
    said = json.loads((folder / "state" / "job.json").read_text())
    assert said["started"][:4] != said["updated"][:4]  # the double was there
    (row,) = map(json.loads, densessl("status", folder, "--json").splitlines())
    assert row["state"] == "done" and 0 <= row["seconds"] < 86400
