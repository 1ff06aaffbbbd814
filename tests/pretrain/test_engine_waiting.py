"""Runs on dead mounts, beside FIFOs and in small containers: they end, with a name and a cure."""

import fcntl
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from densessl.core import limits
from densessl.core.errors import EnvironmentLacks, InputError, StoppedEarly
from densessl.pretrain import audit_images
from densessl.pretrain.config import load
from densessl.pretrain.engine.order import global_batch
from densessl.pretrain.engine.train import train
from densessl.pretrain.views import build_source

LAST = 5  # steps


@pytest.fixture
def folder(pictures, tmp_path):
    return Path(shutil.copytree(pictures, tmp_path / "pictures"))


@pytest.fixture
def hanging():
    """``hanging(file)``: whoever opens it waits, as on a mount that has died, until it is closed.

    The kernel's leases do that: the opener waits for the holder, who hears and does nothing.
    """
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    held = []

    def hold(file):
        held.append(open(file, "r+b"))  # noqa: SIM115
        try:
            fcntl.fcntl(held[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            pytest.skip("this file system has no leases")
        return held[-1]

    yield hold
    for each in held:
        each.close()
    signal.signal(signal.SIGIO, handler)


def image_of_step(step):
    """A picture that the run meets in this step first."""
    return f"{global_batch(0, step, 24, 8)[3]:02d}.jpg"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_read_that_never_returns_ends_the_run_with_its_name(tiny, folder, hanging, workers):
    name = image_of_step(2)
    hanging(folder / name)
    options = ("DATA.PATH", folder, "DATA.WORKERS", workers, "DATA.TIMEOUT", 1.5)
    cfg = tiny("moco", None, *options, "SOLVER.MAX_STEPS", LAST)
    with pytest.raises(EnvironmentLacks) as ended:
        train(cfg)
    assert str(folder / name) in str(ended.value) and "DATA.TIMEOUT" in str(ended.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_in_a_wait_saves_and_the_run_goes_on_bit_for_bit(
    tiny, folder, hanging, check_same_run, workers
):
    held = hanging(folder / image_of_step(2))
    options = ("DATA.PATH", folder, "SOLVER.MAX_STEPS", LAST)
    cfg = tiny("moco", None, *options, "DATA.WORKERS", workers, "DATA.TIMEOUT", 0)
    stop = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))

    def after(step):
        if step == 2:
            stop.start()

    with pytest.raises(StoppedEarly, match="after step 2 of 5, all saved"):
        train(cfg, after)
    held.close()
    train(cfg)
    whole = tiny("moco", None, *options)
    train(whole)
    check_same_run(cfg.OUTPUT_DIR, whole.OUTPUT_DIR)


def test_a_signal_before_the_first_step_ends_it(tiny, folder, hanging):
    hanging(folder / image_of_step(0))
    cfg = tiny("moco", None, "DATA.PATH", folder, "DATA.WORKERS", 1)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(StoppedEarly):
        train(cfg)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_no_file_is_not_opened_but_named(tiny, folder, workers):
    (folder / "03.jpg").unlink()
    os.mkfifo(folder / "03.jpg")
    (folder / "11.jpg").unlink()
    (folder / "11.jpg").symlink_to("/dev/zero")
    options = ("DATA.PATH", folder, "DATA.WORKERS", workers, "SOLVER.MAX_STEPS", 3)
    cfg = tiny("moco", None, *options, "DATA.MAX_UNREADABLE", 0.1)
    train(cfg)
    listed = (Path(cfg.OUTPUT_DIR) / "unreadable.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in listed) == ["03.jpg", "11.jpg"]


def test_a_list_may_name_a_fifo(tiny, folder):
    os.mkfifo(folder / "pipe")
    names = ["pipe", *(f"{n:02d}.jpg" for n in range(15))]
    (folder / "list.txt").write_text("\n".join(names))
    options = ("DATA.SOURCE", "list", "DATA.PATH", folder / "list.txt", "SOLVER.MAX_STEPS", 2)
    with pytest.raises(InputError, match="(?s)1 of the 16 images.*pipe"):
        train(tiny("moco", None, *options))


@pytest.mark.parametrize("workers", [1, 2])
def test_audit_lists_what_cannot_be_read_in_time(folder, hanging, monkeypatch, workers):
    hanging(folder / "03.jpg")
    for number in range(24, 40):  # for a second process
        shutil.copy(folder / "05.jpg", folder / f"{number}.jpg")
    monkeypatch.setattr(audit_images, "TIMEOUT", 0.7)
    source = build_source(load(overrides=["DATA.PATH", str(folder)]))
    found = audit_images.inspect_all(source, workers)
    assert found.reasons == {3: "it could not be read within 0.7 s"}


def test_small_shared_memory_is_found_before_the_first_step(tiny, monkeypatch):
    monkeypatch.setattr(limits, "shared_memory", lambda: (200_000, 200_000))
    cfg = tiny("moco", None, "DATA.WORKERS", 2)  # five batches of 8 x 2 views of 3 x 32 x 32
    with pytest.raises(EnvironmentLacks, match="--shm-size.*DATA.WORKERS 0"):
        train(cfg)
    assert not list(Path(cfg.OUTPUT_DIR).glob("checkpoints/*"))
    train(tiny("moco", None, "DATA.WORKERS", 0, "SOLVER.MAX_STEPS", 1))
