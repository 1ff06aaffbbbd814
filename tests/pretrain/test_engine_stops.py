"""Signals: a flag for the loop, and a way out for the impatient."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from densessl.pretrain.engine.stops import Stops


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"])
def test_a_signal_only_sets_the_flag(number):
    number = getattr(signal, number)
    ours = signal.signal(number, signal.default_int_handler)  # under nohup SIGHUP is ignored
    try:
        before = signal.getsignal(number)
        with Stops() as stops:
            assert stops.requested is None
            os.kill(os.getpid(), number)
            assert stops.requested == number
        assert signal.getsignal(number) == before
    finally:
        signal.signal(number, ours)


def test_polite_signals_may_come_again():
    with Stops() as stops:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stops.requested == signal.SIGTERM


def test_a_second_ctrl_c_ends_the_process_at_once():
    program = """
        import os, signal
        from densessl.pretrain.engine.stops import Stops
        with Stops() as stops:
            os.kill(os.getpid(), signal.SIGINT)
            print("asked", stops.requested.name, flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            print("still here")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.stdout == "asked SIGINT\n"
    assert done.returncode == -signal.SIGINT


def test_nohup_stays_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stops() as stops:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stops.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)
