"""Files are whole or not there."""

import json
import multiprocessing
import os

import pytest

from console.files import atomic, sha256, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["record.json"]


def test_nan_is_refused_before_the_old_file_is_touched(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


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


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
