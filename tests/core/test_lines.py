"""Logs on a full disk: nothing ends, nothing is lost, nothing is torn."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from densessl.core import command, log
from densessl.core.board import Board
from densessl.core.lines import Lines


@contextmanager
def no_file_above(size):
    """The kernel refuses what would make a file larger than ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def warnings(caplog):
    logging.getLogger("densessl").propagate = True
    caplog.set_level(logging.INFO, "densessl")
    return lambda: [r for r in caplog.records if r.levelno == logging.WARNING]


def test_lines_wait_for_room_and_come_whole_and_in_order(tmp_path, warnings):
    one, other = Lines(tmp_path / "one.txt"), Lines(tmp_path / "other.txt")
    with no_file_above(95):
        for number in range(30):
            one.write(f"line {number:04d}")
            other.write(f"line {number:04d}")
    assert (tmp_path / "one.txt").read_text() == "".join(f"line {n:04d}\n" for n in range(9))
    assert len(warnings()) == 1 and "one.txt" in warnings()[0].getMessage()
    for each in (one, other):
        each.write("line 0030")
        each.sync()
    expected = "".join(f"line {number:04d}\n" for number in range(31))
    assert (tmp_path / "one.txt").read_text() == (tmp_path / "other.txt").read_text() == expected
    with no_file_above(1):
        one.write("x")
    assert len(warnings()) == 2  # the next time it is worth a word again
    one.close()


def test_a_log_waits_too(tmp_path, capsys):
    logger = log.setup(tmp_path)
    with no_file_above(50):
        for number in range(5):
            logger.info("number %d", number)
    said = capsys.readouterr().err
    assert said.count("cannot write") == 1 and "Traceback" not in said
    logger.info("number 5")
    text = (tmp_path / "log.txt").read_text()
    assert [f"number {n}" in text for n in range(6)] == [True] * 6
    assert text.count("cannot write") == 1


def test_only_the_logs_of_a_command_begin_with_it(tmp_path):
    with command.named(["densessl", "audit", "a b"]):
        log.setup(tmp_path / "its")
    log.setup(tmp_path / "later").info("a line")
    assert (tmp_path / "its" / "log.txt").read_text().endswith("INFO $ densessl audit 'a b'\n")
    assert len((tmp_path / "later" / "log.txt").read_text().splitlines()) == 1


def test_tensorboard_has_every_scalar_once_there_is_room(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = Board(tmp_path / "board")
    with no_file_above(400):
        for step in range(1, 21):
            board.write(step, {"loss": step / 2, "lr": 0.1})
    board.write(21, {"loss": 10.5, "lr": 0.1})
    board.close()
    events = reading.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(step, step / 2) for step in range(1, 22)]


SMALL_DISK = """
    import os, subprocess, sys
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", sys.argv[1]], check=True)
    from densessl.core.board import Board
    from densessl.core.lines import Lines
    os.chdir(sys.argv[1])
    lines, board = Lines("metrics.jsonl"), Board("board")
    lines.write("first")
    with open("filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    for number in range(2000):
        lines.write(f"line {number}")
        board.write(number, {"loss": 1.0})
    print(len(open("metrics.jsonl").readlines()) < 2001)
    os.unlink("filler")
    lines.close()
    board.close()
    print(open("metrics.jsonl").read() == "first\\n" + "".join(f"line {n}\\n" for n in range(2000)))
"""


def test_a_disk_that_is_really_full(tmp_path):
    inner = [sys.executable, "-c", textwrap.dedent(SMALL_DISK), str(tmp_path)]
    allowed = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs '{tmp_path}'"]
    if not shutil.which("unshare") or subprocess.run(allowed, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        ["unshare", "-m", *inner], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert done.stderr.count("cannot write") == 1
