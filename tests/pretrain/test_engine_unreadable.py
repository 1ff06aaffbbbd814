"""Images that cannot be read: replaced, named, counted; too many end the run."""

import json
import shutil
from pathlib import Path

import pytest

from densessl.core.errors import InputError, StoppedEarly
from densessl.pretrain.engine.checkpoint import Checkpoints
from densessl.pretrain.engine.train import train
from densessl.pretrain.engine.unreadable import Unreadable


@pytest.fixture
def folder(pictures, tmp_path):
    return Path(shutil.copytree(pictures, tmp_path / "pictures"))


def spoil(folder, *names):
    for number, name in enumerate(names):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes([b"", b"<html>404</html>", data[:200]][number % 3])


def test_a_few_are_replaced_and_listed(tiny, folder, check_same_run):
    spoil(folder, "03.jpg", "11.jpg", "17.jpg")
    options = ("DATA.PATH", folder, "DATA.MAX_UNREADABLE", 0.2, "SOLVER.MAX_STEPS", 4)
    cfg, parts = tiny("moco", None, *options), tiny("moco", None, *options, "DATA.WORKERS", 2)
    train(cfg)
    listed = (Path(cfg.OUTPUT_DIR) / "unreadable.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in listed) == ["03.jpg", "11.jpg", "17.jpg"]
    assert all(line.split("\t")[1] for line in listed)
    last = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["unreadable"] == 3
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert log.count("cannot read 03.jpg (") == 1
    assert "3 images could not be read" in log

    def stop(step):
        import os
        import signal

        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):
        train(parts, stop)
    train(parts)
    check_same_run(parts.OUTPUT_DIR, cfg.OUTPUT_DIR)
    again = (Path(parts.OUTPUT_DIR) / "unreadable.txt").read_text().splitlines()
    assert sorted(again) == sorted(listed)


def test_too_many_stop_the_run_with_the_list(tiny, folder):
    spoil(folder, "03.jpg", "11.jpg")
    cfg = tiny("moco", None, "DATA.PATH", folder, "DATA.WORKERS", 1)
    with pytest.raises(InputError) as stopped:
        train(cfg)
    message = str(stopped.value)
    assert "2 of the 24 images seen so far cannot be read" in message
    assert "03.jpg" in message and "11.jpg" in message and "unreadable.txt" in message


def test_nothing_readable_is_one_clean_message_from_a_worker_too(tiny, folder):
    for file in folder.iterdir():
        file.write_bytes(b"nothing")
    cfg = tiny("moco", None, "DATA.PATH", folder, "DATA.WORKERS", 1)
    with pytest.raises(InputError, match="none can be read") as stopped:
        train(cfg)
    assert "Traceback" not in str(stopped.value)


def test_repaired_images_no_longer_count(tiny, folder, pictures):
    spoil(folder, "03.jpg", "11.jpg")
    options = ("DATA.PATH", folder, "SOLVER.MAX_STEPS", 2, "CHECKPOINT.STEPS", 1)
    cfg = tiny("moco", None, *options, "DATA.MAX_UNREADABLE", 1)

    def stop(step):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):
        train(cfg, stop)
    _, state = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints").newest()
    met = state["unreadable"]
    for name in ("03.jpg", "11.jpg"):
        shutil.copy(pictures / name, folder / name)
    cfg.DATA.MAX_UNREADABLE = 0.0
    train(cfg)
    _, state = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints").newest()
    assert state["unreadable"] == []
    assert not met or "can be read again" in (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()


@pytest.mark.parametrize(
    ("bad", "seen", "at_most", "stops"),
    [
        (50, 99, 1000, False),  # not enough seen to judge
        (6, 100, 1000, True),
        (5, 100, 1000, False),  # 5 % are allowed
        (51, 1000, 1000, True),
        (2, 20, 24, False),
        (2, 24, 24, True),  # all there is was seen
        (0, 0, 0, False),
    ],
)
def test_when_a_share_is_judged(tmp_path, bad, seen, at_most, stops):
    images = Unreadable(
        tmp_path, lambda n: f"{n}.jpg", limit=0.05, writes=True, reason=lambda n: "empty (0 bytes)"
    )
    images.add(range(bad))
    if not stops:
        return images.check(seen, at_most)
    with pytest.raises(InputError, match=rf"{bad} of the {seen} images.*\n  0.jpg: empty"):
        images.check(seen, at_most)
