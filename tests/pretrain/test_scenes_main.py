"""``densessl scenes`` as a command: the same bytes always, and never over foreign files."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.pretrain.scenes import dataset
from densessl.pretrain.scenes.main import main

REPOSITORY = Path(__file__).parents[2]
SMALL = ["--train", "24", "--val", "4", "--size", "64", "--seed", "5"]


def tree(root: Path) -> dict[str, str]:
    """Every file's name and digest."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "set"
    assert main([str(root), *SMALL, "--workers", "1"]) == 0
    return root


def test_the_same_bytes_from_any_number_of_processes(whole, tmp_path):
    assert main([str(tmp_path / "set"), *SMALL, "--workers", "2"]) == 0
    assert tree(tmp_path / "set") == tree(whole)


def test_another_seed_gives_other_pictures(whole, tmp_path):
    arguments = ["--train", "2", "--val", "1", "--size", "64", "--seed", "6", "--workers", "1"]
    main([str(tmp_path / "set"), *arguments])
    name = "coco/train2017/000000000001.jpg"
    assert (tmp_path / "set" / name).read_bytes() != (whole / name).read_bytes()


def test_a_complete_set_is_left_as_it_is(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main([str(whole), *SMALL]) == 0
    assert "complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_complete_set_of_an_older_version_is_taken(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "set")
    mark = tmp_path / "set" / dataset.MARK
    for folder, number in (("lvis", 3), ("coco/stuffthingmaps", 2)):
        shutil.rmtree(tmp_path / "set" / folder)
        mark.write_text(json.dumps(json.loads(mark.read_text()) | {"format": number}))
        before = tree(tmp_path / "set")
        assert main([str(tmp_path / "set"), *SMALL]) == 0
        assert folder in capsys.readouterr().out
        assert tree(tmp_path / "set") == before
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"format": 1}))
    with pytest.raises(InputError, match="format 1; now format 5"):
        main([str(tmp_path / "set"), *SMALL])


def test_a_complete_set_of_other_arguments_is_refused(whole):
    with pytest.raises(InputError, match="seed 5; now seed 7"):
        main([str(whole), *SMALL[:-1], "7"])


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="thesis.tex"):
        main([str(tmp_path), *SMALL])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        main([str(tmp_path / "set"), *SMALL])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"text"'])
def test_a_foreign_mark_is_refused(tmp_path, content):
    (tmp_path / dataset.MARK).write_text(content)
    with pytest.raises(InputError, match="not a scenes file"):
        main([str(tmp_path), *SMALL])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--train", "0"],
        ["--val", "-1"],
        ["--train", "1000000"],
        ["--size", "8"],
        ["--size", "5000"],
        ["--seed", "-1"],
        ["--workers", "0"],
        ["--train", "many"],
        ["--trian", "4"],
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(InputError, match=arguments[0]):
        main([str(tmp_path / "set"), *arguments])
    assert not (tmp_path / "set").exists()


def test_too_little_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(EnvironmentLacks, match="GiB"):
        main([str(tmp_path / "set"), *SMALL])
    assert not (tmp_path / "set").exists()


def test_the_disk_estimate_holds_the_set(whole):
    blocks = {path.stat().st_ino: path.stat().st_blocks * 512 for path in whole.rglob("*")}
    request = dataset.Request(24, 4, 64, 5)
    assert 0.4 * request.bytes() < sum(blocks.values()) < 1.1 * request.bytes()


def test_copies_where_the_disk_has_no_links(tmp_path, whole, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    main([str(tmp_path / "set"), *SMALL, "--workers", "1"])
    assert tree(tmp_path / "set") == tree(whole)


def start(root: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "densessl", "scenes", str(root), *SMALL, "--workers", "2"]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stop_after_a_chunk(root: Path, name: str) -> tuple[int, str]:
    """Send a signal once a chunk is written and the set is not whole; the exit code and stderr.

    On a busy machine the set may be whole before the signal comes: then once more.
    """
    for _ in range(20):
        process = start(root)
        record = root / dataset.UNFINISHED / "train_0000020.json"  # 4 scenes, the first to be there
        while not record.exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=60)
        if not (root / dataset.MARK).exists():
            break
        shutil.rmtree(root)
    return process.returncode, said


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        pytest.param("SIGINT", marks=pytest.mark.slow),
        pytest.param("SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_set_is_marked_unfinished_and_goes_on(tmp_path, whole, name):
    root = tmp_path / "set"
    code, said = stop_after_a_chunk(root, name)
    assert not (root / dataset.MARK).exists()
    if name != "SIGKILL":
        assert code == 75 and "resumes" in said and "Traceback" not in said
    assert list(root.glob(f"{dataset.UNFINISHED}/*_*.json"))
    with pytest.raises(InputError, match="unfinished set of other arguments"):
        main([str(root), *SMALL[:-1], "7"])
    written = root / "coco" / "train2017" / "000000000021.jpg"  # of the short, second chunk
    before = written.stat().st_mtime_ns
    assert main([str(root), *SMALL, "--workers", "1"]) == 0
    assert tree(root) == tree(whole)
    assert written.stat().st_mtime_ns == before  # not done again


def test_two_runs_do_not_write_one_set(tmp_path):
    root = tmp_path / "set"
    request = dataset.Request(24, 4, 64, 5)
    holder = f"""
from pathlib import Path
from densessl.core.lock import locked
with locked(Path({str(root / dataset.UNFINISHED / "lock")!r}), str):
    print("held", flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holder], cwd=REPOSITORY, **pipes) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another process"):
            dataset.write(root, request, workers=1)
        other.communicate(b"\n")


def test_a_failing_process_is_reported(tmp_path, monkeypatch):
    """The folder of the pictures cannot be made: a file is in its place."""
    root = tmp_path / "set"
    (root / dataset.UNFINISHED).mkdir(parents=True)
    request = dataset.Request(24, 4, 64, 5)
    (root / "coco").write_text("in the way")
    for workers in (1, 2):
        with pytest.raises(EnvironmentLacks, match="cannot be written"):
            dataset.write(root, request, workers=workers)
    assert not (root / dataset.MARK).exists()


# On a fast machine ten scenes take less than a second, for which no line of progress is due.
FRONT_DOOR = """
import sys
import densessl
from densessl.core import progress

progress.BRIEF = 0.0
sys.exit(densessl.main(sys.argv[1:]))
"""


def test_the_front_door(tmp_path):
    """The command: results on stdout, progress on stderr."""
    words = ["scenes", str(tmp_path / "set"), "--train", "8", "--val", "2", "--size", "64"]
    done = subprocess.run(
        [sys.executable, "-c", FRONT_DOOR, *words],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "8 training and 2 validation" in done.stdout and "scenes 10/10" in done.stderr
    assert json.loads((tmp_path / "set" / dataset.MARK).read_text())["train"] == 8
