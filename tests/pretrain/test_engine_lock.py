"""One run folder, one run."""

import multiprocessing
import os
import signal
import time

import pytest
from densessl.pretrain.engine.lock import locked

from densessl.core.errors import InputError


def hold(folder, ready):
    with locked(folder):
        ready.set()
        time.sleep(600)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    holder = fork.Process(target=hold, args=(tmp_path, ready), daemon=True)
    holder.start()
    assert ready.wait(60)
    refused = pytest.raises(InputError, match=f"in use by another run .process {holder.pid} on")
    with refused, locked(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)  # no chance to tidy up
    holder.join()
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
