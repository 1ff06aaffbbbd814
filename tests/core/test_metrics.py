"""The numbers of a run, line by line."""

import json
import math

import numpy as np
import pytest

from densessl.core.metrics import Metrics

from .test_lines import no_file_above

LINES = ['{"iteration": 2}\n', '{"iteration": 4}\n', '{"iteration": 6}\n']


def up_to(step):
    return lambda line: line["iteration"] <= step


def test_a_line_is_json_whatever_the_values(tmp_path):
    lines = Metrics(tmp_path / "metrics.jsonl")
    values = {"a": math.nan, "b": -math.inf, "c": np.float64("inf"), "d": 0.1, "e": 3, "f": True}
    lines.log(values)
    found = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert found == {"a": None, "b": None, "c": None, "d": 0.1, "e": 3, "f": True}


@pytest.mark.parametrize(
    "text, kept",
    [
        ("".join(LINES) + '{"itera', LINES[:2]),
        ("".join(LINES), LINES[:2]),
        (LINES[0] + LINES[1].strip(), LINES[:2]),  # whole, but for the end of its line
        (LINES[2] + LINES[0], LINES[:1]),
        (LINES[0] + '{"it\n' + LINES[1] + LINES[2], LINES[:2]),
        (LINES[2] + LINES[1].strip(), LINES[1:2]),
        ("", []),
    ],
)
def test_cut_back_drops_torn_and_later_lines(tmp_path, text, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    Metrics(path).cut_back(up_to(4))
    assert path.read_text() == "".join(kept)
    Metrics(path).cut_back(lambda line: False)
    assert path.read_text() == ""


def test_nothing_is_cut_back_where_nothing_is(tmp_path):
    Metrics(tmp_path / "none").cut_back(up_to(3))
    assert not (tmp_path / "none").exists()


def test_what_comes_last_is_cut_off_without_room_on_the_disk(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(LINES))
    with no_file_above(0):
        Metrics(path).cut_back(up_to(4))
    assert path.read_text() == "".join(LINES[:2])
