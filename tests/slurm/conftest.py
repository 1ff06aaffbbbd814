"""A real SLURM for the tests that are marked slow, one for all of a session."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densessl.slurm import state
from densessl.slurm.graph import Job
from densessl.slurm.settings import Cluster

HERE = Path(__file__).parent
PATIENCE = 600  # seconds after which a test gives up, also on a busy machine


def _server():
    spec = importlib.util.spec_from_file_location("slurm_server", HERE / "server" / "server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def slurm_server():
    """The SLURM of this session; skips where none can be started."""
    module = _server()
    if fault := module.why_not():
        pytest.skip(fault)
    with module.Server() as server:
        yield server


@pytest.fixture
def cluster(slurm_server, monkeypatch):
    """SLURM's commands talk to the session's SLURM, whose queue is empty before and after."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_server.conf))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield Slurm(slurm_server)
    slurm_server.empty()


class Slurm:
    """What tests ask of the session's SLURM."""

    def __init__(self, server):
        self.run = server.run

    @staticmethod
    def settings(folder, **base) -> Cluster:
        """Settings that fit eight processes on two cores, for jobs that run in ``folder``."""
        return Cluster({"cpus_per_gpu": 1, "time": "10", **base}, chdir=str(folder))

    def queue(self) -> dict[str, str]:
        """The states of all jobs in the queue by number."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait_until(self, condition, what: str = "") -> None:
        """Wait until ``condition()``; the test fails when that never comes."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what or condition}; the queue: {self.queue()}")
            time.sleep(0.2)

    def wait(self) -> None:
        """Wait until the queue is empty."""
        self.wait_until(lambda: not self.queue(), "an empty queue")

    def wait_for(self, folder: Path, name: str, *states: str) -> state.State:
        """Wait until a job says that it is in one of ``states``; what it says."""

        def said():
            return state.read_state(folder, name)

        self.wait_until(lambda: said() and said().state in states, f"{name} {states}")
        return said()

    def number(self, folder: Path, name: str) -> str:
        return state.read_submission(folder, name).slurm_job


@pytest.fixture
def python():
    """``python(name, code, *arguments, needs=…)``: a job that runs lines of Python."""

    def make(name, code, *arguments, **options) -> Job:
        program = (sys.executable, "-c")
        return Job(name, (code, *map(str, arguments)), program=program, **options)

    return make


@pytest.fixture
def densessl():
    """``densessl("status", folder)``: what a verb prints, in a process of its own."""

    def run(*words, code: int = 0, **options) -> str:
        command = [sys.executable, "-m", "densessl", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, **options)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


@pytest.fixture
def rows(densessl):
    """``rows(folder)``: what ``densessl status`` says of each job, by name."""

    def read(folder) -> dict[str, dict]:
        lines = densessl("status", folder, "--json").splitlines()
        return {row["name"]: row for row in map(json.loads, lines)}

    return read
