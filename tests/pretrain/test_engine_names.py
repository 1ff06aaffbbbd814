"""Names that are no UTF-8, or hold line feeds: a run lists them, resumes, and reads them again."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import densessl
from densessl.core import names
from densessl.core.errors import InputError, StoppedEarly
from densessl.pretrain.config import load
from densessl.pretrain.engine import step
from densessl.pretrain.engine.checkpoint import Checkpoints
from densessl.pretrain.engine.train import train
from densessl.pretrain.views import build_source

ODD = [b"latin1_\xe9\xff.jpg", b"two\nlines.jpg", b"esc\x1b[31m \x80.jpg"]


@pytest.fixture
def folder(pictures, tmp_path):
    """The pictures in a class folder with an odd name, three of them with odd names themselves."""
    made = tmp_path / os.fsdecode(b"images_\xff")
    shutil.copytree(pictures, made / os.fsdecode(b"class_\xe9"))
    for number, name in enumerate(ODD):
        place = made / os.fsdecode(b"class_\xe9")
        (place / f"{number:02d}.jpg").rename(place / os.fsdecode(name))
    return made


def odd(folder):
    return [os.fsdecode(b"class_\xe9/" + name) for name in ODD]


def read_back(file):
    lines = file.read_text(encoding="utf-8", errors=names.LIST).splitlines()
    return sorted(names.from_line(line.split("\t")[0]) for line in lines)


def test_unreadable_images_are_listed_and_the_run_goes_on(tiny, folder, check_same_run):
    for name in odd(folder):
        (folder / name).write_bytes(b"nothing")
    out = folder.parent / os.fsdecode(b"out_\xff\n")
    options = ("DATA.PATH", folder, "DATA.MAX_UNREADABLE", 0.5, "SOLVER.MAX_STEPS", 4)
    cfg = tiny("moco", None, *options)
    cfg.OUTPUT_DIR = str(out)

    def stop(done):
        if done == 3:
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):
        train(cfg, stop)
    train(cfg)
    assert read_back(out / "unreadable.txt") == sorted(odd(folder))
    assert ODD[0] in (out / "unreadable.txt").read_bytes()
    log = (out / "log.txt").read_bytes()
    assert ODD[0] in log and b"two\\nlines.jpg" in log and b"\x1b" not in log
    for line in (out / "metrics.jsonl").read_bytes().splitlines():
        json.loads(line)
    again = load(out / "config.yaml")
    assert str(out) == again.OUTPUT_DIR and str(folder) == again.DATA.PATH
    _, state = Checkpoints(out / "checkpoints").newest()
    assert os.fsencode(state["pretrain"]["dataset"]).endswith(b"images_\xff")
    whole = tiny("moco", None, *options)
    train(whole)
    check_same_run(cfg.OUTPUT_DIR, whole.OUTPUT_DIR)


def test_too_many_are_one_message(tiny, folder):
    for name in odd(folder):
        (folder / name).write_bytes(b"nothing")
    cfg = tiny("moco", None, "DATA.PATH", folder)
    with pytest.raises(InputError) as ended:
        train(cfg)
    assert "two\\nlines.jpg" in str(ended.value)


def test_the_report_of_a_divergence_names_them(tiny, folder, monkeypatch):
    outcome = step.Launched.outcome

    def diverged(launched):
        found = outcome(launched)
        return dataclasses.replace(found, values=found.values | {"loss": math.nan}, applied=False)

    monkeypatch.setattr(step.Launched, "outcome", diverged)
    cfg = tiny("moco", None, "DATA.PATH", folder, "SOLVER.MAX_SKIPPED", 3)  # an epoch
    for _ in range(2):  # the same message at every resumption
        with pytest.raises(InputError, match="3 steps in a row"):
            train(cfg)
    listed = next(Path(cfg.OUTPUT_DIR).glob("nonfinite_step_*.txt"))
    assert len(read_back(listed)) == 8
    known = {os.path.join(os.fsdecode(b"class_\xe9"), f"{n:02d}.jpg") for n in range(24)}
    assert set(read_back(listed)) <= known | set(odd(folder))


def test_a_list_of_them_is_a_source(tiny, folder, tmp_path):
    lines = [names.to_line(name) for name in odd(folder)]
    (folder / "list.txt").write_bytes("\n".join(lines).encode("utf-8", names.ERRORS))
    cfg = tiny("moco", None, "DATA.SOURCE", "list", "DATA.PATH", folder / "list.txt")
    source = build_source(cfg)
    assert [source.name(n) for n in range(3)] == odd(folder)
    (folder / "classes.txt").write_bytes(b"class_\xe9\n")
    cfg = tiny("moco", None, "DATA.PATH", folder, "DATA.CLASSES", folder / "classes.txt")
    assert len(build_source(cfg)) == 24


def test_shards_hold_them(tiny, folder, tmp_path):
    import tarfile

    (tmp_path / "shards").mkdir()
    shard = tmp_path / "shards" / os.fsdecode(b"a_\xff.tar")
    with tarfile.open(shard, "w") as tar:
        for name in odd(folder):
            tar.add(folder / name, arcname=name)
    cfg = tiny("moco", None, "DATA.SOURCE", "shards", "DATA.PATH", tmp_path / "shards")
    for _ in range(2):  # scanned, and from its index
        source = build_source(cfg)
        assert sorted(source.name(n) for n in range(3)) == sorted(odd(folder))


def test_a_coco_file_with_half_a_surrogate_pair_is_refused(tiny, folder, tmp_path):
    (tmp_path / "a.json").write_text('{"images": [{"file_name": "\\ud800.jpg"}]}')
    options = ("DATA.SOURCE", "coco", "DATA.PATH", folder, "DATA.ANNOTATIONS", tmp_path / "a.json")
    with pytest.raises(InputError, match="a.json"):
        build_source(tiny("moco", None, *options))


def test_audit_prints_and_writes_them(folder, tmp_path, capfdbinary):
    for name in odd(folder):
        (folder / name).write_bytes(b"nothing")
    out = tmp_path / os.fsdecode(b"audit_\xff.json")
    assert densessl.main(["audit", str(folder), "--workers", "1", "-o", str(out)]) == 0
    found = json.loads(out.read_text())
    assert sorted(each["name"] for each in found["unreadable"]["files"]) == sorted(odd(folder))
    screen = capfdbinary.readouterr().out
    assert b"two\\nlines.jpg" in screen and b"\x1b[31m .jpg" not in screen


@pytest.mark.slow
def test_the_command_itself_takes_them(tiny, folder):
    out = os.fsencode(folder.parent) + b"/run_\xfe"
    cfg = tiny("moco", None, "SOLVER.MAX_STEPS", 1)
    options = folder.parent / "options.yaml"
    options.write_text(cfg.dump())
    words = [sys.executable, "-m", "densessl", "pretrain", "--config", os.fsencode(options)]
    words += [b"DATA.PATH", os.fsencode(folder), b"OUTPUT_DIR", out]
    for said in (b"done", b"is complete"):
        done = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONUTF8": "1"})
        assert done.returncode == 0 and said in done.stderr, done.stderr
    assert os.path.exists(out + b"/backbone_final.pth")
    assert b"OUTPUT_DIR" in Path(os.fsdecode(out), "log.txt").read_bytes()
