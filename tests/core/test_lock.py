"""One folder, one run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from densessl.core.errors import InputError
from densessl.core.lock import in_use, is_held, locked


def hold(file, ready):
    with locked(file, str):
        ready.set()
        time.sleep(600)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    file, busy = tmp_path / "folder" / ".lock", in_use("folder", "OUTPUT_DIR")
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    holder = fork.Process(target=hold, args=(file, ready), daemon=True)
    holder.start()
    assert ready.wait(60)
    refused = pytest.raises(InputError, match=f"in use by another run .process {holder.pid} on")
    with refused, locked(file, busy):
        pass
    os.kill(holder.pid, signal.SIGKILL)  # no chance to tidy up
    holder.join()
    with locked(file, busy):
        pass
    with locked(file, None):
        pass


def test_an_inherited_lock_is_held_by_a_child_that_outlives_us(tmp_path):
    file = tmp_path / ".lock"
    assert not is_held(file)
    program = [sys.executable, "-c", "input()"]
    with locked(file, str, inherited=True) as lock:
        child = subprocess.Popen(program, stdin=subprocess.PIPE, pass_fds=(lock,))
    with child:
        assert is_held(file)
        with (
            pytest.raises(InputError, match=f"process {os.getpid()} on"),
            locked(file, str, inherited=True),
        ):
            pass
        child.communicate(b"\n")
    assert not is_held(file)
