"""A full disk while a verb writes its file: one line, exit code 3, and the file before is kept."""

import errno
import json
import os
import re

import pytest

from tests.d2_transfer.study_folders import study

VERBS = {  # the file that is written: the words that do it
    "table.md": ("table", "{random}", "{simclr}", "-o", "{file}"),
    "comparison.json": ("compare", "{random}", "{simclr}", "-o", "{file}"),
    "curves.png": ("plot", "curves", "{run}", "-o", "{file}"),
    "page.html": ("report", "{run}", "{random}", "-o", "{file}"),
    "report.html": ("study", "--page", "{folder}"),
}


@pytest.fixture
def folder(small_disk):
    """A study of two arms, three trials each, and the log of a run, on a small disk."""
    plan = {"schema": 1, "train": "", "val": "", "network": "resnet50", "seeds": 3, "mini": False}
    plan |= {"budget_s": None, "left_out": [], "told": {}}
    trials = [60.0, 61.5, 62.0]
    folder = study(small_disk, {"random": {10: trials}, "simclr": {10: [trials]}}, **plan)
    lines = ({"iteration": n, "epoch": n / 10, "loss": 1 / n} for n in range(1, 11))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def fill(disk):
    """Write until there is no room; the file that is to be deleted to make some."""
    with open(disk / "large", "wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return disk / "large"


def made(file):
    """What the file holds, but for when it was made."""
    return re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", b"", file.read_bytes())


@pytest.mark.parametrize("name", VERBS)
def test_what_was_written_before_stays_and_with_room_it_is_written(name, densessl, folder):
    file, arms = folder / name, folder / "results" / "linear_semseg" / "10"
    places = {"file": file, "folder": folder, "run": folder}
    places |= {"random": arms / "random", "simclr": arms / "simclr"}
    words = [word.format_map(places) for word in VERBS[name]]
    densessl(*words)
    whole = made(file)
    file.write_text("the one before")
    names, large = sorted(os.listdir(folder)), fill(folder)
    (said,) = densessl(*words, code=3).splitlines()
    assert os.strerror(errno.ENOSPC) in said and str(folder) in said
    assert file.read_text() == "the one before"
    large.unlink()
    assert sorted(os.listdir(folder)) == names
    densessl(*words)
    assert made(file) == whole
