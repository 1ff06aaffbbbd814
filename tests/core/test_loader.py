"""Loader processes on machines as they are: little shared memory, few handles, dead mounts."""

import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest
import torch

from densessl.core import limits, waiting
from densessl.core.errors import EnvironmentLacks, InputError, Interrupted
from densessl.core.loader import Loader, Options
from densessl.core.reading import reading


class Files(torch.utils.data.Dataset):
    """The first byte of each of some files; ``tensors`` of them."""

    def __init__(self, files, tensors=1):
        self.files, self.tensors = files, tensors

    def __getitem__(self, number):
        reading(number)
        with open(self.files[number], "rb") as stream:
            byte = stream.read(1)
        return [torch.tensor(list(byte), dtype=torch.uint8)] * self.tensors


@pytest.fixture
def files(tmp_path):
    """Eight files; the sixth is a FIFO, whose reader waits for ever."""
    names = [tmp_path / f"{number}.jpg" for number in range(8)]
    for number, name in enumerate(names):
        name.write_bytes(bytes([number]))
    names[5].unlink()
    os.mkfifo(names[5])
    return names


def loader(files, workers, timeout=0.0, grace=0.0, tensors=1):
    options = Options(workers, timeout, grace)
    batches = [[first, first + 1] for first in range(0, len(files), 2)]
    dataset = Files(files, tensors)
    return Loader(dataset, list, lambda n: str(files[n]), options, batch_sampler=batches)


@pytest.fixture
def no_child():
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_read_that_never_returns_is_named(files, workers, no_child):
    seen = 0
    with pytest.raises(EnvironmentLacks) as ended, iter(loader(files, workers, 0.7)) as batches:
        for _ in batches:
            seen += 1
    assert seen == 2
    assert str(files[5]) in str(ended.value) and "DATA.TIMEOUT" in str(ended.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grace", [0.0, 0.3])
def test_a_stop_ends_the_wait(files, workers, grace, no_child):
    handler = signal.signal(signal.SIGUSR1, lambda *_: waiting.ask())
    waiting.forget()
    try:
        with pytest.raises(Interrupted), iter(loader(files, workers, 0.0, grace)) as batches:
            next(batches)
            next(batches)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            next(batches)
        with pytest.raises(Interrupted), waiting.wait():  # asked before it began
            time.sleep(60)
    finally:
        waiting.forget()
        signal.signal(signal.SIGUSR1, handler)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_wait_in_a_wait_leaves_the_outer_one_its_time():
    class Late(Exception):
        pass

    def late():
        return Late()

    with pytest.raises(Late), waiting.wait(1.0, late):
        with waiting.wait(30.0, lambda: InputError("the inner one")):
            time.sleep(0.2)
        time.sleep(60)


def test_more_workers_than_cores_are_no_warning(files):
    workers = len(os.sched_getaffinity(0)) + 1
    files.pop(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with iter(loader(files[:4], workers)) as batches:
            assert len(list(batches)) == 2


def test_batches_are_whole_and_in_order(files, no_child):
    files = files[:5] + files[6:] + files[:1]
    for workers in (0, 1, 2):
        with iter(loader(files, workers, tensors=3)) as batches:
            found = [
                [tensor.tolist() for tensor in sample] for batch in batches for sample in batch
            ]
        assert found == [[[number]] * 3 for number in (0, 1, 2, 3, 4, 6, 7, 0)]


FEW_HANDLES = """
    import resource, sys
    import torch
    sys.path.insert(0, sys.argv[3])
    from test_loader import loader
    from densessl.core.errors import EnvironmentLacks
    import pathlib
    for limit in range(int(sys.argv[1]), int(sys.argv[2]), 17):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(7)[1]))
        try:
            with iter(loader([sys.argv[4]] * 12, 2, 30, tensors=4)) as batches:
                print(limit, len(list(batches)))
        except EnvironmentLacks as error:
            print(limit, "ulimit -n" in str(error))
"""


def test_a_run_that_hangs_up_in_a_batch_leaves_no_traceback(files, capfd, monkeypatch):
    class HungUp(Exception):
        pass

    def hang_up(shared):
        address, _ = shared._id
        for received in (0, 1):  # the second is answered when the first has been dealt with
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address)
                connection.recv(received)
        raise HungUp

    monkeypatch.setattr("multiprocessing.resource_sharer.DupFd.detach", hang_up)
    with pytest.raises(HungUp), iter(loader(files[:4], 1)) as batches:
        next(batches)
    assert "Traceback" not in capfd.readouterr().err


def test_too_few_handles_are_an_error_and_never_a_wait(files):
    program = [sys.executable, "-c", textwrap.dedent(FEW_HANDLES), "12", "64"]
    done = subprocess.run(
        [*program, os.path.dirname(__file__), files[0]], capture_output=True, text=True
    )
    said = [line.split() for line in done.stdout.splitlines()]
    assert [int(limit) for limit, _ in said] == list(range(12, 64, 17)), done.stderr[-2000:]
    assert {what for _, what in said} <= {"True", "6"} and said[0][1] == "True"


SMALL_SHARED_MEMORY = """
    import subprocess, sys, torch
    mount = f"mount -t tmpfs -o size={sys.argv[1]}m tmpfs /dev/shm"
    subprocess.run(mount, shell=True, check=True)
    from densessl.core import limits
    from densessl.core.errors import EnvironmentLacks
    from densessl.core.loader import Loader, Options
    class Large(torch.utils.data.Dataset):
        def __getitem__(self, number):
            return torch.zeros(size, dtype=torch.uint8)
    for size in map(int, sys.argv[2:]):
        try:
            limits.check_loading(size, 1, 2, 1, "DATA.WORKERS")
            print("fits")
        except EnvironmentLacks as error:
            print("MB free" in str(error) and "--shm-size" in str(error))
        try:
            loader = Loader(Large(), list, str, Options(2, 60), batch_sampler=[[0]] * 30)
            with iter(loader) as batches:
                print(sum(1 for _ in batches))
        except EnvironmentLacks as error:
            print("--shm-size" in str(error) and "DATA.WORKERS 0" in str(error))
"""


@pytest.mark.parametrize("mib", [2, 64])  # 64: what Docker gives a container
def test_a_small_dev_shm_is_an_error_and_never_a_wait(mib):
    allowed = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=2m tmpfs /dev/shm"]
    if not shutil.which("unshare") or subprocess.run(allowed, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    program = ["unshare", "-m", sys.executable, "-c", textwrap.dedent(SMALL_SHARED_MEMORY)]
    sizes = [str(mib * each) for each in (50_000, 450_000, 1_500_000)]
    done = subprocess.run([*program, str(mib), *sizes], capture_output=True, text=True)
    assert done.stdout.split() == ["fits", "30", *["True"] * 4], done.stderr[-2000:]


@pytest.mark.parametrize(
    ("batch", "workers", "processes", "fits"),
    [
        (7e6, 4, 1, True),  # nine batches, 63 MB
        (8e6, 4, 1, False),
        (7e6, 4, 2, False),
        (77e6, 1, 1, False),
        (77e6, 0, 8, True),
    ],
)
def test_what_is_needed_is_compared_with_what_is_free(monkeypatch, batch, workers, processes, fits):
    monkeypatch.setattr(limits, "shared_memory", lambda: (64 << 20, 64 << 20))
    if fits:
        return limits.check_loading(int(batch), 8, workers, processes, "DATA.WORKERS")
    with pytest.raises(EnvironmentLacks, match="--shm-size .*DATA.WORKERS 0") as lacks:
        limits.check_loading(int(batch), 8, workers, processes, "DATA.WORKERS")
    assert lacks.value.exit_code == 3


def test_the_soft_limit_of_handles_is_raised_where_that_is_allowed():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = limits.handles()[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 10, hard))
    try:
        limits.check_loading(1, 8, 4, 1, "DATA.WORKERS")
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > count + 48
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_hard_limit_of_handles_is_named(monkeypatch):
    monkeypatch.setattr(limits, "handles", lambda: (30, 64, 64))
    with pytest.raises(EnvironmentLacks, match="may have 64 files open.*ulimit -n .*WORKERS 0"):
        limits.check_loading(1, 8, 4, 1, "DATA.WORKERS")
