"""``densessl audit``: its numbers, what it says of odd files, and how it ends."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import densessl
from densessl.core.errors import InputError
from densessl.core.files import sha256
from densessl.pretrain.audit import main

ROOT = Path(__file__).parents[2]


def noise(width, height, mode="RGB", seed=0):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def zoo(tmp_path):
    """One file of every kind: 9 that can be read, 5 that cannot."""
    folder = tmp_path / "zoo"
    (folder / "b").mkdir(parents=True)
    noise(60, 40).save(folder / "a.jpg")
    shutil.copy(folder / "a.jpg", folder / "b" / "copy.jpeg")
    shutil.copy(folder / "a.jpg", folder / "b" / "more.jpg")
    noise(200, 100, "L").save(folder / "gray.png")
    shutil.copy(folder / "gray.png", folder / "z.png")
    noise(30, 300).save(folder / "film.gif")
    deep = np.random.default_rng(1).integers(0, 65536, (50, 70), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    noise(256, 224).convert("CMYK").save(folder / "print.jpg")
    noise(31, 32).save(folder / "named.jpg", "PNG")
    whole = (folder / "a.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.png").write_bytes((folder / "gray.png").read_bytes()[:300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "b" / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("<html>404 not found</html>")
    (folder / "readme.txt").write_text("not one of the images")
    return folder


def audit(tmp_path, *argv):
    assert main([*map(str, argv), "-o", str(tmp_path / "audit.json")]) == 0
    return json.loads((tmp_path / "audit.json").read_text())


def test_the_numbers_of_every_kind_of_file(zoo, tmp_path):
    found = audit(tmp_path, zoo, "--workers", "1")
    assert (found["images"], found["readable"]) == (14, 9)
    files = [file for file in zoo.rglob("*") if file.is_file() and file.suffix != ".txt"]
    assert found["bytes"] == sum(file.stat().st_size for file in files)
    assert found["formats"] == {"JPEG": 4, "PNG": 4, "GIF": 1}
    deep = found["modes"].keys() & {"I", "I;16"}  # Pillow 10, and later ones
    assert len(deep) == 1
    assert found["modes"] == {"RGB": 4, "L": 2, "CMYK": 1, "P": 1, deep.pop(): 1}
    assert found["width"] == {"min": 30, "median": 60, "max": 256}
    assert found["height"] == {"min": 32, "median": 50, "max": 300}
    bins = found["short_side"].pop("histogram")
    assert found["short_side"] == {"min": 30, "median": 40, "max": 224}
    filled = {(each["from"], each["below"]): each["images"] for each in bins if each["images"]}
    assert filled == {(0, 32): 2, (32, 64): 4, (64, 128): 2, (224, 256): 1}
    assert sum(each["images"] for each in bins) == 9 and bins[-1]["below"] is None
    assert found["below"] == {"side": 32, "images": 2, "files": ["film.gif", "named.jpg"]}
    assert found["duplicates"] == {
        "groups": 2,
        "images": 3,
        "files": [["a.jpg", "b/copy.jpeg", "b/more.jpg"], ["gray.png", "z.png"]],
    }
    assert (found["steps_per_epoch"], found["batch_size"]) == (0, 256)


def test_unreadable_files_are_named_with_their_reasons(zoo, tmp_path):
    found = audit(tmp_path, zoo, "--workers", "1")["unreadable"]
    reasons = {each["name"]: each["reason"] for each in found["files"]}
    assert list(reasons) == ["b/empty.png", "cut.jpg", "cut.png", "empty.jpg", "text.jpg"]
    assert found["images"] == 5
    assert reasons["empty.jpg"] == reasons["b/empty.png"] == "empty (0 bytes)"
    assert reasons["text.jpg"] == "no image of a format that Pillow reads"
    assert "truncated" in reasons["cut.jpg"] and reasons["cut.png"]
    assert not any("0x" in reason for reason in reasons.values())


def test_the_terminal_says_what_deserves_a_look(zoo, capsys):
    main([str(zoo), "--workers", "1"])
    said = capsys.readouterr().out
    assert "14, " in said and "JPEG 4, PNG 4, GIF 1" in said
    assert "30 to 256 px, median 60" in said
    assert "fewer than a step of 256 images" in said
    line = "5 cannot be read (35.71%); more than DATA.MAX_UNREADABLE 0.05: pretraining would stop"
    assert line in said.splitlines()
    assert "text.jpg: no image of a format that Pillow reads" in said
    assert "2 with a side below 32 px" in said
    assert "3 with the same bytes as another image" in said
    assert "a.jpg = b/copy.jpeg = b/more.jpg" in said
    assert "32 to 63 4 " + "█" * 30 in " ".join(said.split())


def test_few_unreadable_files_are_replaced_in_pretraining(tmp_path, capsys):
    for number in range(24):
        noise(40, 40, seed=number).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"")
    main([str(tmp_path), "--workers", "1"])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 cannot be read (4.00%); pretraining puts other images in their place" in said
    assert "bytes as another" not in said and "side below" not in said


def test_every_file_may_be_unreadable(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    found = audit(tmp_path, tmp_path / "in")
    assert found["readable"] == 0 and found["width"]["min"] is None
    assert "1 cannot be read (100.00%)" in capsys.readouterr().out


def test_processes_change_nothing_but_the_time(zoo, tmp_path):
    for number in range(60):  # several chunks
        noise(40 + number, 40, seed=number).save(zoo / f"{number:03d}.png")
    assert audit(tmp_path, zoo, "--workers", "3") == audit(tmp_path, zoo, "--workers", "1")


def test_nothing_is_changed(zoo, tmp_path):
    def state():
        files = [file for file in zoo.rglob("*") if file.is_file()]
        return {file: (file.stat().st_mtime_ns, sha256(file)) for file in files}

    before = state()
    audit(tmp_path, zoo)
    assert state() == before


def test_shards_count_like_their_folder(zoo, tmp_path):
    names = sorted(str(file.relative_to(zoo)) for file in zoo.rglob("*.*"))
    with tarfile.open(tmp_path / "zoo.tar", "w") as tar:
        for name in names:
            tar.add(zoo / name, name)
    of_folder = audit(tmp_path, zoo, "--workers", "1")
    of_shards = audit(tmp_path, tmp_path / "zoo.tar", "--source", "shards", "--workers", "1")
    differs = {key for key in of_folder if of_folder[key] != of_shards[key]}
    assert differs == {"path", "source", "left_out"}  # what else a sample holds is left alone
    assert (of_folder["left_out"], of_shards["left_out"]) == ({".txt": 1}, {})


def test_classes_and_several_folders(zoo, tmp_path):
    (tmp_path / "classes.txt").write_text("b\n")
    found = audit(tmp_path, zoo, "--classes", tmp_path / "classes.txt")
    assert found["images"] == 3 and found["duplicates"]["files"] == [["b/copy.jpeg", "b/more.jpg"]]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(zoo / "a.jpg", other)
    found = audit(tmp_path, f"{zoo / 'b'}:{other}", "--workers", "1")
    names = [str(zoo / "b" / "copy.jpeg"), str(zoo / "b" / "more.jpg"), str(other / "a.jpg")]
    assert found["duplicates"]["files"] == [names]


def test_coco_counts_the_images_of_its_json(zoo, tmp_path):
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"images": [{"file_name": "a.jpg"}, {"file_name": "gone.jpg"}]}))
    found = audit(tmp_path, zoo, "--source", "coco", "--annotations", file)
    assert found["images"] == 2
    assert found["unreadable"]["files"] == [
        {"name": "gone.jpg", "reason": "No such file or directory"}
    ]


def test_a_name_that_is_no_text_can_be_told(tmp_path, capsys):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    with open(folder + b"/\xff[red].jpg", "wb"):
        pass
    found = audit(tmp_path, tmp_path / "in")
    assert found["unreadable"]["files"][0]["name"] == "\udcff[red].jpg"
    assert r"\udcff[red].jpg: empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{0}/none"], "PATH: {0}/none does not exist"),
        (["{0}/readme.txt"], "PATH: {0}/readme.txt is a file; for a list file give --source list"),
        (["{0}", "--source", "tars"], "unknown source 'tars' in --source"),
        (["{0}", "--source", "coco"], "--annotations is empty"),
        (["{0}", "--classes", "imagenet100"], "--classes imagenet100: 100 of its 100 classes"),
        (["{0}", "--workers", "0"], "--workers: the value is 0; it must be at least 1"),
        (["{0}", "-o", "{0}/a.jpg"], "--output {0}/a.jpg: a name that ends in .json"),
        (["{0}", "-o", "{0}/a.jpg/x.json"], "cannot make its folder"),
        (["{0}", "--worker", "2"], "Did you mean '--workers'"),
    ],
)
def test_wrong_arguments_are_told_in_the_words_of_the_verb(argv, message, zoo, capsys):
    argv = [each.format(zoo) for each in argv]
    assert densessl.main(["audit", *argv]) == 2
    assert message.format(zoo) in capsys.readouterr().err


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no images"):
        main([str(tmp_path)])


# ---- how it ends: an image that cannot be opened keeps a process waiting ----


@pytest.fixture
def hanging(tmp_path):
    """An audit by two processes, one of which waits for a file, as on a mount that has died.

    The kernel's leases do that: who opens the file waits for their holder.
    """
    for number in range(80):
        noise(4, 4, seed=number).save(tmp_path / f"{number:02d}.png")
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(tmp_path / "00.jpg", "w+b") as held:
        try:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            pytest.skip("this file system has no leases")
        audit = subprocess.Popen(
            [sys.executable, "-m", "densessl", "audit", tmp_path, "--workers", "2"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while audit.poll() is None and fcntl.fcntl(held, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
            time.sleep(0.02)  # until it is asked for
        yield audit
        if audit.poll() is None:
            os.killpg(audit.pid, signal.SIGKILL)
        audit.communicate()
    signal.signal(signal.SIGIO, handler)


def workers_of(audit):
    return [*map(int, Path(f"/proc/{audit.pid}/task/{audit.pid}/children").read_text().split())]


def all_are_gone(audit):
    """Whether, soon, no process of the audit's session runs any more."""

    def runs(process):
        try:
            state, _, group, *_ = process.read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return int(group) == audit.pid and state not in "ZX"

    for _ in range(600):
        if not any(map(runs, Path("/proc").glob("[0-9]*/stat"))):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="signals of a session")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_audit_leaves_nobody_behind(number, hanging):
    audit = hanging
    for worker in workers_of(audit):  # else the kernel itself ends the read, in its time
        os.kill(worker, signal.SIGSTOP)
    os.killpg(audit.pid, number) if number == signal.SIGINT else audit.send_signal(number)
    _, said = audit.communicate(timeout=60)
    assert audit.returncode == 130 and "Traceback" not in said
    assert all_are_gone(audit)


@pytest.mark.skipif(sys.platform != "linux", reason="children from /proc")
def test_a_killed_process_is_told_with_what_helps(hanging):
    audit = hanging
    os.kill(workers_of(audit)[0], signal.SIGKILL)
    _, said = audit.communicate(timeout=60)
    assert audit.returncode == 3 and "was killed" in said and "--workers 1" in said


@pytest.mark.skipif(sys.platform != "linux", reason="signals of a session")
def test_a_killed_audit_leaves_nobody_behind(hanging):
    audit = hanging
    audit.kill()
    audit.communicate(timeout=60)
    assert all_are_gone(audit)


# ---- images that are not of 8 bits ----


@pytest.fixture
def thermal(tmp_path):
    """Six pictures of a camera that gives values from 7000 to 9000."""
    folder = tmp_path / "thermal"
    folder.mkdir()
    for number in range(6):
        values = np.random.default_rng(number).integers(7000, 9001, (40, 50)).astype(np.uint16)
        Image.fromarray(values).save(folder / f"{number}.png")
    return folder


def test_what_pretraining_would_see_of_sixteen_bits(thermal, tmp_path, capsys):
    found = audit(tmp_path, thermal, "--workers", "1")
    low, high = found["range"]["used"]
    assert 7000 <= low < 7010 and 8990 < high <= 9000
    assert found["depth"] == {"images": 6, "least": 7000, "greatest": 9000}
    assert found["one_colour"]["images"] == 0
    assert "6 images not of 8 bits, values 7000 to 9000" in capsys.readouterr().out


def test_a_range_that_makes_images_one_colour_is_told_with_a_better_one(thermal, tmp_path, capsys):
    found = audit(tmp_path, thermal, "--workers", "2", "--range", "0,65535")
    assert found["range"]["used"] == [0, 65535] and found["one_colour"]["images"] == 6
    said = capsys.readouterr().out
    assert "6 of 6 images nearly one colour" in said and "values 7000 to 9000" in said
    low, high = found["range"]["auto"]
    assert f"DATA.RANGE auto would take {low:g},{high:g}" in said


def test_files_that_are_left_out_are_counted(zoo, tmp_path, capsys):
    (zoo / "film.mp4").write_bytes(b"")
    (zoo / ".hidden.txt").write_text("")
    assert audit(tmp_path, zoo, "--workers", "1")["left_out"] == {".txt": 1, ".mp4": 1}
    said = capsys.readouterr().out
    assert "2 other files are left out, by suffix" in said and "1 .mp4" in said


def test_a_wrong_range_is_refused_before_any_image_is_read(zoo, capsys):
    assert densessl.main(["audit", str(zoo), "--range", "9,3"]) == 2
    assert "--range is '9,3'" in capsys.readouterr().err


def test_headers_of_tiles_are_read_by_as_many_processes_as_asked_for(tmp_path):
    """By this one alone where that is one."""
    for number in range(40):  # more than a process reads at a time
        noise(64, 48, seed=number).save(tmp_path / f"{number}.png")
    forks = []
    os.register_at_fork(before=lambda: forks.append(1))
    assert main([str(tmp_path), "--tile", "32", "--workers", "1"]) == 0
    assert not forks
