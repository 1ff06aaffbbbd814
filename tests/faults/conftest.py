"""What tests of faults share: the real command, and a C library that does what bad disks do."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from densessl import main

from . import asking

DOUBLE = Path(__file__).parent / "doubles" / "libc.c"
PATIENCE = 600  # seconds after which a test gives up, also on a busy machine


@pytest.fixture(scope="session")
def bad_libc(tmp_path_factory):
    """``bad_libc(NO_LOCKS=1)``: the environment of a process whose C library is the double."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("double") / "libc.so"
    words = ["-shared", "-fPIC", "-O1", "-o", str(library), str(DOUBLE), "-ldl"]
    subprocess.run([compiler, *words], check=True)

    def environment(**switches) -> dict[str, str]:
        named = {f"DOUBLE_{name}": str(value) for name, value in switches.items()}
        return {**os.environ, **named, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}

    return environment


@pytest.fixture(scope="session")
def server():
    """Starts processes that have imported everything already, and hold nothing of pytest's."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the other tests' runs
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["densessl.pretrain.engine.train", "torch.utils.tensorboard"])
    return context


@pytest.fixture
def densessl(capfd, monkeypatch):
    """``densessl("status", folder, code=0, cwd=…)``: what a verb says; with ``env`` in a process of
    its own."""

    def run(*words, code: int = 0, cwd=None, env=None) -> str:
        words = [*map(str, words)]
        if env is None:
            with monkeypatch.context() as here:
                here.chdir(cwd or Path.cwd())
                capfd.readouterr()
                found = main(words)
            said = "".join(capfd.readouterr())
        else:
            command = [sys.executable, "-m", "densessl", *words]
            done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
            found, said = done.returncode, done.stdout + done.stderr
        assert found == code and "Traceback" not in said, (found, said)
        return said

    return run


@pytest.fixture
def stopped_at(server, tmp_path):
    """``stopped_at("module:name", signal.SIGTERM, *words)``: what a verb says that is asked to stop
    when it first calls that; it must end with 75."""

    def run(place, number, *words) -> str:
        said = tmp_path / "said.txt"
        arguments = (place, int(number), [*map(str, words)], said)
        process = server.Process(target=asking.stop_at, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == 75 and "Traceback" not in said.read_text(), said.read_text()
        return said.read_text()

    return run


@pytest.fixture
def until():
    """``until(condition)`` waits until it is true; the test fails when that never comes."""

    def wait(condition, what: str = "") -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what or condition}")
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def moments():
    """``moments(lives, look)`` yields what ``look()`` finds each time that it is another, while
    ``lives()``."""

    def watch(lives, look):
        before = None
        while lives():
            if (now := look()) != before:
                before = now
                yield now
            time.sleep(0.001)

    return watch


@pytest.fixture(scope="session")
def changes(moments):
    """``changes(process, folder)``: the moments at which a file in a run's folder comes, goes, or
    has another size."""
    return lambda process, folder: moments(process.is_alive, lambda: _sizes(folder))


@pytest.fixture(scope="session")
def wait_for_change(changes):
    """``wait_for_change(process, folder, at, delay)`` waits for change ``at`` of a run's folder,
    counted from 0, and ``delay`` seconds more; or until the run has ended."""

    def wait(process, folder, at, delay=0.0):
        for count, _ in enumerate(changes(process, folder)):
            if count == at:
                time.sleep(delay)
                return

    return wait


def _sizes(folder: Path) -> dict[str, int]:
    found = {}
    for root, _, names in os.walk(folder):
        for path in (os.path.join(root, name) for name in names):
            with suppress(FileNotFoundError):  # it went since it was listed
                found[path] = os.stat(path).st_size
    return found
