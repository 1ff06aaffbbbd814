"""Signals: a flag for the loop, and a way out for the impatient."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import pytest

from densessl.core import waiting
from densessl.core.errors import StoppedEarly
from densessl.core.stops import Stops, unfinished


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
        from densessl.core.stops import Stops
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


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
def test_a_second_ctrl_c_may_unwind_instead(first):
    with pytest.raises(KeyboardInterrupt), Stops((signal.SIGINT, signal.SIGTERM), unwinds=True):
        for _ in range(2 if first == "SIGTERM" else 1):
            os.kill(os.getpid(), getattr(signal, first))
        assert waiting.asked()
        os.kill(os.getpid(), signal.SIGINT)
    assert not waiting.asked()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_is_unfinished_stops_early_and_the_handlers_come_back(name):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedEarly, match="the set is unfinished"), unfinished("the set"):
        os.kill(os.getpid(), getattr(signal, name))
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_torchrun_ends_points_to_the_process_that_failed(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(StoppedEarly, match="by torchrun; if another .* failed"), unfinished("it"):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_that_a_library_swallowed_is_heard_before_the_work(number):
    begun = []
    with pytest.raises(StoppedEarly, match="pretrain is unfinished"), unfinished("pretrain"):
        with suppress(BaseException):  # as some do around an import
            os.kill(os.getpid(), number)
            time.sleep(60)
        with Stops():
            begun.append(number)
    assert not begun
    with unfinished("pretrain"), Stops() as stops:  # the next one is not stopped
        assert stops.requested is None


def test_a_ctrl_c_that_is_ignored_stays_so_until_the_work_begins():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what ends in &
    try:
        with unfinished("pretrain"):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
