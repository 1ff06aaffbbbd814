"""Objects out of a user's file: found by path, and clear messages where that fails."""

import sys
from pathlib import Path

import pytest

from densessl.core.errors import InputError
from densessl.core.external import load_object


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write(source)`` puts ``mine.py`` into the working folder."""
    monkeypatch.chdir(tmp_path)

    def put(source: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(source, encoding="utf-8")
        return path

    return put


def load(text):
    return load_object(text, "correspondence", "DENSE.CORRESPONDENCE")


def test_an_object_is_found_by_relative_and_absolute_path(write):
    path = write("def both(pair):\n    return 'both', pair\n")
    assert load("mine.py:both")(1) == ("both", 1)
    assert load(f"{path}:both") is load("mine.py:both")  # one module, whatever the spelling


def test_the_file_is_a_module_like_any_other(write):
    write(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\nclass Options:\n    least: dataclasses.InitVar[float] = 0.5\n"
        "PLACE = __file__\n"
    )
    assert load("mine.py:Options")().least == 0.5  # dataclasses look up their module
    assert load("mine.py:PLACE").endswith("mine.py")
    assert "mine" not in sys.modules
    assert not Path("__pycache__").exists()


def test_a_changed_file_is_read_again(write):
    write("VALUE = 1\n")
    assert load("mine.py:VALUE") == 1
    write("VALUE = 2\n")  # the same length and perhaps the same second
    assert load("mine.py:VALUE") == 2


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load("folder/mine.py:both")
    message = str(caught.value)
    assert "DENSE.CORRESPONDENCE" in message and "'folder/mine.py'" in message
    assert str(tmp_path) in message


def test_a_missing_name_says_the_nearest_of_the_file(write):
    write("from math import sqrt\ndef same_row(pair):\n    pass\ndef _hidden():\n    pass\n")
    with pytest.raises(
        InputError, match=r"'same_rows' in mine\.py.*Did you mean 'same_row'\?"
    ) as e:
        load("mine.py:same_rows")
    assert "sqrt" not in str(e.value) and "_hidden" not in str(e.value)
    write("")
    with pytest.raises(InputError, match="same_row"):
        load("mine.py:same_row")


@pytest.mark.parametrize(
    "source, line, message",
    [
        ("import torch\n\nx = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("def f(:\n    pass\n", 1, "SyntaxError: "),
        ("import nothing_of_this_name\n", 1, "No module named 'nothing_of_this_name'"),
        ("def f():\n    raise ValueError('twice')\n\nf()\n", 2, "ValueError: twice"),
        ("a = 1\nimport json\njson.loads('{')\n", 3, "JSONDecodeError"),
    ],
)
def test_an_error_while_importing_says_its_line(write, source, line, message):
    write(source)
    for _ in range(2):  # a failed import leaves nothing behind
        with pytest.raises(InputError) as caught:
            load("mine.py:f")
        assert f"mine.py, line {line}: " in str(caught.value) and message in str(caught.value)
    write("def f(): pass\n")
    assert load("mine.py:f")() is None


@pytest.mark.parametrize("text", ["mine.py", "mine:f", "mine.py:", "mine.py:a.b", ":f", ""])
def test_another_form_is_refused(text):
    with pytest.raises(InputError, match=r"path/to/file\.py:Name"):
        load(text)


def test_a_folder_and_bytes_that_are_no_text_are_refused(write, tmp_path):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match="no file"):
        load("folder.py:f")
    write("").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mine\.py, line"):
        load("mine.py:f")
