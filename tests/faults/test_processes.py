"""Processes that stop, die, fail or stand still: the others end, and say which one it was and why.

Each rank is a process of ``densessl pretrain``, started as SLURM starts them: the first keeps the
store through which they meet. With torchrun it keeps that itself.
"""

import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from densessl.core import watchdog
from densessl.core.peers import Peers

FAILING = '''
import os
import time

from densessl.core import distributed
from densessl.pretrain.methods.moco import MoCo


class Failing(MoCo):
    """Fails at step 3 in process 1, in the way that FAILS names."""

    def before_step(self, step):
        if step == 3 and distributed.rank() == 1:
            if os.environ["FAILS"] == "raise":
                raise ValueError("a bug in process 1")
            if os.environ["FAILS"] == "exit":
                os._exit(7)
            time.sleep(3600)
        super().before_step(step)
'''
PATIENCE = 600  # seconds after which a test gives up, also on a busy machine
TIMEOUT = 10  # seconds: more than a step on a busy machine takes
SLOW = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def pretrain(config: Path, said: Path, cwd: Path, environment: dict[str, str]) -> None:
    """A process of the run, as ``densessl pretrain`` is."""
    import densessl

    with open(said, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.update(environment)
    os.chdir(cwd)
    sys.exit(densessl.main(["pretrain", "--config", str(config)]))


def work(kind: str, log: Path, limit: float = 1.0) -> None:
    """A process that is watched with a limit in seconds, and works or waits for three."""
    from densessl.core import checkpoint, progress
    from densessl.core.knn import nearest

    with watchdog.watched(watchdog.Limit(limit, "STALL_TIMEOUT", log)):
        ends = time.monotonic() + 3
        if kind == "nothing":
            time.sleep(3600)
        elif kind == "a file":
            with watchdog.doing(lambda: "it is still at 03.jpg"):
                time.sleep(3600)
        elif kind == "a library":
            with watchdog.unhurried():
                time.sleep(3)
        elif kind == "a bar":
            with progress.Bar("evaluate", 10) as bar:
                for _ in range(10):
                    time.sleep(0.3)
                    bar.advance()
        elif kind == "a search":
            while time.monotonic() < ends:
                nearest(torch.ones(64, 64), torch.ones(100_000, 64), 20)
        elif kind == "one step":
            log.with_name("begun").touch()
            ends = time.process_time() + 0.5  # which does not pass while it is stopped
            while time.process_time() < ends:
                pass
        elif kind == "a slow disk":
            checkpoint.PIECE = 1 << 18
            os.fsync = lambda file: time.sleep(0.3)
            pieces = [torch.ones(1 << 16) for _ in range(12)]
            checkpoint.save(log.with_name("state.pth"), pieces, checked=True)


class Ranks:
    """The processes of a run; :meth:`end` waits for them, and returns their exit codes."""

    def __init__(self, folder: Path, processes: list[multiprocessing.Process], said: list[Path]):
        self.folder, self.processes, self.said = folder, processes, said

    def end(self) -> list[int]:
        for process in self.processes:
            process.join(PATIENCE)
        return [process.exitcode for process in self.processes]

    def step(self) -> int:
        """Lines of metrics.jsonl so far: one a step."""
        lines = self.folder / "metrics.jsonl"
        return lines.read_bytes().count(b"\n") if lines.exists() else 0

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def output(self, rank: int) -> str:
        return self.said[rank].read_text()


@pytest.fixture
def config(tiny, tmp_path):
    """``config("KEY", value, …)``: the file of a run that is long enough."""

    def write(*options, method="moco"):
        long = ("SOLVER.EPOCHS", 2000, "LOG.PERIOD", 1, "STALL_TIMEOUT", TIMEOUT)
        file = tmp_path / "config.yaml"
        file.write_text(tiny(method, tmp_path / "run", *long, *options).dump())
        return file

    return write


@pytest.fixture
def begin(server, config, tmp_path):
    """``begin("KEY", value, …)`` starts a run of two processes; ``fails`` is for Failing, ``cwds``
    are where they run."""
    begun = []

    def begin(*options, fails="", cwds=(tmp_path, tmp_path)):
        method = "moco"
        if fails:
            (tmp_path / "failing.py").write_text(FAILING)
            method = f"{tmp_path}/failing.py:Failing"
        file, port = config(*options, method=method), free_port()
        said = [tmp_path / f"said_{rank}.txt" for rank in (0, 1)]
        for rank, cwd in enumerate(cwds):
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
            meet |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
            arguments = (file, said[rank], cwd, meet | {"FAILS": fails})
            begun.append(server.Process(target=pretrain, args=arguments))
            begun[-1].start()
        return Ranks(tmp_path / "run", begun, said)

    yield begin
    for process in begun:
        process.kill()
        process.join()


def is_whole(folder: Path) -> bool:
    """Whether the newest checkpoint is there, whole, and no half of one is left behind."""
    from densessl.pretrain.engine.checkpoint import Checkpoints

    return Checkpoints(folder / "checkpoints").newest() is not None


@pytest.mark.parametrize("kind", ["a library", "a bar", "a search", "a slow disk"])
def test_long_work_is_no_standstill(server, tmp_path, kind):
    process = server.Process(target=work, args=(kind, tmp_path / "log.txt"))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0 and not (tmp_path / "log.txt").exists()


@pytest.mark.parametrize("kind", ["nothing", "a file"])
def test_a_process_alone_that_stands_still_is_ended(server, tmp_path, kind):
    process = server.Process(target=work, args=(kind, tmp_path / "log.txt"))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 1
    said = (tmp_path / "log.txt").read_text()
    assert f"no progress for 1 s (STALL_TIMEOUT): process 0 ({process.pid}) stands still" in said
    assert "it is still at 03.jpg" in said or kind == "nothing"
    assert "test_processes.py" in said and "in work" in said


def test_a_job_that_is_suspended_and_resumes_is_not_ended(server, until, tmp_path):
    process = server.Process(target=work, args=("one step", tmp_path / "log.txt", 2.0))
    process.start()
    until((tmp_path / "begun").exists)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_processes_know_each_other_before_they_look_at_the_clock(monkeypatch, until):
    """One that stops right away is killed, for which its id must be known."""
    monkeypatch.setattr(watchdog, "SELDOM", 3600.0)
    store = dist.HashStore()
    peers = [Peers(rank, 2, store) for rank in (0, 1)]
    first, second = (watchdog.watched(watchdog.Limit(), each) for each in peers)
    with first, second:
        until(lambda: all(each.met for each in peers))
    assert peers[1].name(0).startswith("process 0 (")


@pytest.mark.parametrize("stopped", [0, pytest.param(1, marks=SLOW)])
def test_a_stopped_rank_is_named_and_all_are_ended(begin, until, stopped):
    ranks = begin()
    until(lambda: ranks.step() >= 5)
    os.kill(ranks.processes[stopped].pid, signal.SIGSTOP)
    codes = ranks.end()
    assert codes[1 - stopped] == 1 and codes[stopped] == -signal.SIGKILL
    other = f"process {stopped} ({ranks.processes[stopped].pid} on "
    said = ranks.log
    if stopped == 0:  # it keeps what the other would have asked
        other = "process 0"
    assert f"no progress for {TIMEOUT} s (STALL_TIMEOUT): {other}" in said
    assert "does not answer" in said and "same command resumes" in said
    assert f"process {1 - stopped} ({ranks.processes[1 - stopped].pid}) stands still" in said
    assert "train.py" in said and "in loop" in said
    assert is_whole(ranks.folder)


@SLOW
def test_a_rank_that_stands_still_shows_its_stack(begin):
    ranks = begin(fails="sleep")
    assert ranks.end() == [1, 1]
    said = ranks.log
    assert "failing.py" in said and "before_step" in said
    assert said.count("stands still for") == 3  # who is to blame, and each of the two


@pytest.mark.parametrize(
    ("fails", "said", "codes"),
    [
        ("raise", 'raise ValueError("a bug in process 1")', [1, 1]),
        pytest.param("exit", "was killed, most often because memory", [1, 7], marks=SLOW),
    ],
)
def test_what_fails_in_one_rank_stands_in_the_log_of_the_first(begin, fails, said, codes):
    ranks = begin("STALL_TIMEOUT", 600, fails=fails)
    assert ranks.end() == codes
    assert said in ranks.log and "process 1" in ranks.log
    assert "densessl pretrain: process 1" in ranks.output(0)
    assert "Connection closed" not in ranks.output(0)


@SLOW
def test_a_killed_rank_of_torchrun_ends_the_others(config, until, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "densessl", "pretrain", "--config"]
    file, run = config("STALL_TIMEOUT", 600), tmp_path / "run"
    with open(tmp_path / "said.txt", "w") as out:
        process = subprocess.Popen([*command, file], stdout=out, stderr=out)
    ranks = Ranks(run, [], [])
    try:
        until(lambda: ranks.step() >= 5)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(listed[-1]), signal.SIGKILL)
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait()
    assert "was killed, most often because memory ran out" in ranks.log
    summary = (tmp_path / "said.txt").read_text().rpartition("ChildFailedError")[2]
    assert "traceback : densessl pretrain: process " in summary  # below torchrun's own traceback
    assert is_whole(run)


def test_a_rank_whose_images_are_all_bad_stops_all_with_its_message(begin, pictures, tmp_path):
    for rank in (0, 1):
        shutil.copytree(pictures, tmp_path / f"disk_{rank}" / "pictures")
    for file in (tmp_path / "disk_1" / "pictures").iterdir():
        file.write_bytes(b"")
    places = tuple(tmp_path / f"disk_{rank}" for rank in (0, 1))
    ranks = begin("DATA.PATH", "pictures", "STALL_TIMEOUT", 600, cwds=places)
    assert ranks.end() == [2, 2]
    messages = [ranks.output(rank).strip().splitlines()[-1] for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert "none can be read" in messages[0]


@pytest.fixture
def starve():
    """``starve(pid)``: the kernel kills the process as soon as it takes memory, for its cgroup."""
    root = Path("/sys/fs/cgroup")
    group = (root / "memory" if (root / "memory").is_dir() else root) / f"densessl_{os.getpid()}"
    name = "memory.max" if (root / "cgroup.controllers").exists() else "memory.limit_in_bytes"
    try:
        group.mkdir()
        (group / name).write_text("100000")
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    group.rmdir()


@SLOW
@pytest.mark.parametrize("fault", ["killed", "stopped", "starved"])
def test_a_loader_process_that_is_killed_stopped_or_starved_is_named(
    server, config, until, request, fault
):
    harm = {
        "killed": lambda pid: os.kill(pid, signal.SIGKILL),
        "stopped": lambda pid: os.kill(pid, signal.SIGSTOP),
        "starved": lambda pid: request.getfixturevalue("starve")(pid),
    }[fault]
    file = config("DATA.WORKERS", 1, "DATA.TIMEOUT", 5)
    folder, said = file.parent, file.with_name("said.txt")
    process = server.Process(target=pretrain, args=(file, said, folder, {}))
    process.start()
    ranks = Ranks(folder / "run", [process], [said])
    until(lambda: ranks.step() >= 5)
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    harm(int(listed[-1]))
    assert ranks.end() == [3], said.read_text()
    died = "a loader process died" in ranks.output(0) and "memory ran out" in ranks.output(0)
    assert died == (fault != "stopped")
    assert (f"(stopped: {listed[-1]})" in ranks.output(0)) == (fault == "stopped")
    assert is_whole(ranks.folder)


def starved(file: Path, said: Path, folder: Path, more: int) -> None:
    """A run that may have so many bytes of addresses more than it has at its start."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    pretrain(file, said, folder, {})


@pytest.mark.parametrize("more", [50 << 20, pytest.param(400 << 20, marks=SLOW)])
def test_too_little_memory_is_one_message(server, config, tmp_path, more):
    file = config("MOCO.QUEUE", 1 << 20, "MOCO.DIM", 128)  # of the second half a gigabyte
    process = server.Process(target=starved, args=(file, tmp_path / "said.txt", tmp_path, more))
    process.start()
    process.join(PATIENCE)
    said = (tmp_path / "said.txt").read_text()
    assert process.exitcode == 3 and "Traceback" not in said
    assert "memory ran out; ulimit -v allows" in said.strip().splitlines()[-1]


def test_a_port_in_use_is_one_message(server, config, tmp_path):
    """torchrun --standalone and transfer choose a free one; where others must know it, none can."""
    file, said = config(), tmp_path / "said.txt"
    meet = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = (file, said, tmp_path, meet | {"MASTER_PORT": str(port)})
        process = server.Process(target=pretrain, args=arguments)
        process.start()
        process.join(PATIENCE)
    assert process.exitcode == 3 and "Traceback" not in said.read_text()
    assert f"cannot meet at 127.0.0.1:{port} (" in said.read_text()
