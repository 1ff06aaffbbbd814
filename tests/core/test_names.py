"""Names of files that are no UTF-8, or that hold line feeds, survive being written and read."""

import os
import subprocess
import sys
import textwrap

import pytest

from densessl.core import files, names

NAMES = [
    b"plain.jpg",
    b"with space.jpg",
    b" first and last ",
    "naïve 图.jpg".encode(),
    b"latin1_\xe9\xff.jpg",
    b"two\nlines.jpg",
    b"tab\tand\rreturn\x1b[31m.jpg",
    b"back\\slash \\n.jpg",
    b'"quoted".jpg',
    b"# no comment.jpg",
    "next\x85line\u2028.jpg".encode(),
    b"\x80\n\\\xff",
]


def test_a_list_gives_the_same_names_back(tmp_path):
    given = [os.fsdecode(name) for name in NAMES]
    file = tmp_path / "list.txt"
    files.write_text(file, "".join(f"{names.to_line(name)}\n" for name in given))
    lines = file.read_text(encoding="utf-8", errors=names.LIST).splitlines()
    assert [names.from_line(line) for line in lines] == given
    assert b"latin1_\xe9\xff.jpg\n" in file.read_bytes()  # as the file system has it
    assert lines[:2] == ["plain.jpg", "with space.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_a_message_stays_on_its_line_and_a_page_is_utf8(name):
    name = os.fsdecode(name)
    assert len(f"a {names.one_line(name)} b".splitlines()) == 1
    assert "\x1b" not in names.one_line(name)
    names.readable(name).encode()


def test_halves_of_surrogate_pairs_are_escaped():
    assert "a\ud800b\udcff".encode("utf-8", names.ERRORS) == b"a\\ud800b\xff"


def test_standard_output_takes_every_name(tmp_path):
    program = """
        import os, sys
        import densessl.cli
        densessl.cli.run = lambda argv: print(os.fsdecode(b"x\\xe9.jpg"))
        densessl.main(["table"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
        capture_output=True,
    )
    assert done.stdout == b"x\xe9.jpg\n", done.stderr
