"""Files are whole or not there."""

import json
import multiprocessing
import os
import socket
import subprocess

import pytest

from densessl.core.files import atomic, decode, read_json, read_text, sha256, walk, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_walk_asks_where_a_folder_is_only_of_links(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in ("b/deep", "a", ".hidden", "c"):
        (root / name).mkdir(parents=True)
        (root / name / "file").touch()
    (tmp_path / "elsewhere" / "more").mkdir(parents=True)
    (root / "a" / "loop").symlink_to(root)
    (root / "c" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "d").symlink_to(tmp_path / "elsewhere" / "more")
    asked, realpath = [], os.path.realpath

    def noting(path):
        asked.append(os.path.relpath(path, root))
        return realpath(path)

    monkeypatch.setattr(os.path, "realpath", noting)
    found = [os.path.relpath(folder, root) for folder, _, _ in walk(root)]
    assert found == [".", "a", "b", "b/deep", "c", "c/linked", "c/linked/more"]  # each once
    assert sorted(asked) == [".", "a/loop", "c/linked", "d"]


def test_nan_is_refused_before_the_old_file_is_touched(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_the_first_write_into_a_folder_deletes_what_killed_writers_left(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, at_work, elsewhere = (
        tmp_path / f".table.md.{host}.{process}.partial"
        for host, process in (
            (socket.gethostname(), ended.pid),
            (socket.gethostname(), os.getppid()),
            ("elsewhere", ended.pid),
        )
    )
    for each in (left, at_work, elsewhere):
        each.write_bytes(b"half")
    write_json(tmp_path / "record.json", {})
    assert not left.exists() and at_work.exists() and elsewhere.exists()


def _write_many(path, value):
    for _ in range(50):
        write_json(path, {"values": [value] * 2000})


def test_processes_that_write_the_same_name_never_mix(tmp_path):
    path = tmp_path / "shared.json"
    writers = [
        multiprocessing.get_context("spawn").Process(target=_write_many, args=(path, value))
        for value in (1, 2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert set(json.loads(path.read_text())["values"]) in ({1}, {2})


@pytest.mark.parametrize(
    "form",
    ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("text", ["ab é 漢 😀\n", "", "a", "ab\ncd\n"])
def test_text_is_read_in_any_form_of_unicode(tmp_path, form, text):
    file = tmp_path / "text"
    file.write_bytes(text.encode(form))
    assert read_text(file) == text
    file.write_bytes(text.replace("\n", "\r\n").encode(form))
    assert read_text(file) == text
    file.write_bytes(json.dumps({"é": [text]}, ensure_ascii=False).encode(form))
    assert read_json(file) == {"é": [text]}


def test_what_is_no_text_is_an_error_that_can_be_caught(tmp_path):
    with pytest.raises(UnicodeDecodeError):
        decode(b"abcd \xff\xfe")
    assert os.fsencode(decode(b"abcd \xff\xfe", "surrogateescape")) == b"abcd \xff\xfe"
    (tmp_path / "no.json").write_bytes(b"\xff\xfe{")  # half of a character
    with pytest.raises(ValueError):
        read_json(tmp_path / "no.json")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
