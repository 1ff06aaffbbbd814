"""The measurements against the number of images, records and jobs run, on a few."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.many import prepared
from benchmarks.many.__main__ import exponent, row
from benchmarks.many.measured import MEASURED, measure
from densessl.d2_transfer.results import collect
from densessl.slurm import status


def test_an_exponent_is_that_of_a_power_of_n():
    assert exponent(8.0, 1.0, 200, 100) == "3.00"
    assert exponent(0.0, 1.0, 200, 100) == "–"
    found = {"processor": 2.0, "clock": 3.0, "added": 40.4}
    earlier = (1_000, {"processor": 0.2, "clock": 9.0, "added": 40.4})
    assert row("table", 10_000, found, earlier) == (
        "| table | 10,000 | 2.00 | 3.00 | 1.00 | 40 | 0.00 |"
    )


def test_images_of_every_source_are_the_same_and_none_is_there_twice(tmp_path):
    prepared.images(tmp_path, 5)
    prepared.images(tmp_path, 7)  # more of them
    kinds = ("a folder", "a list file", "a COCO JSON", "shards, first time", "shards, indexed")
    sources = [MEASURED[f"source: {kind}"](tmp_path, 7)() for kind in kinds]
    assert [len(source) for source in sources] == [7] * 5
    files = [Path(sources[0].open(index)) for index in range(7)]
    assert len({file.read_bytes() for file in files}) == 7


def test_records_are_those_of_rows_that_have_an_average(tmp_path, capsys):
    prepared.records(tmp_path, 75)  # of a random start and of two pretrainings
    assert len(collect([tmp_path])) == 75
    took = measure(MEASURED["table"](tmp_path, 75))
    assert took["processor"] > 0 and took["clock"] > 0
    assert "| method0 |" in capsys.readouterr().out


@pytest.mark.slow
def test_jobs_have_ended_run_and_wait(tmp_path, monkeypatch):
    prepared.jobs(tmp_path, 40)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert Counter(row.state for row in status.look(tmp_path / "run")) == {
        "done": 25,
        "running": 4,
        "queued": 13,
    }
    run = MEASURED["reproduce --local, all ended"](tmp_path, 40)
    assert run() is None  # and nothing was run: the trials would have failed


@pytest.mark.parametrize("name", ["resume late in an epoch", "audit"])
def test_what_reads_images_runs(name, tmp_path, capsys):
    prepared.images(tmp_path, 3)
    MEASURED[name](tmp_path, 3)()
