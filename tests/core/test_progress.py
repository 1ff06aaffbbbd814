"""What a person reads while a verb works."""

import pytest

from densessl.core.errors import nearest, unknown
from densessl.core.progress import Bar, duration, track


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_duration(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize("brief", [0, 60])
def test_track_passes_every_item_and_says_when_what_took_long_is_done(brief, caplog, monkeypatch):
    monkeypatch.setattr("densessl.core.progress.BRIEF", brief)
    caplog.set_level("INFO", logger="densessl")
    assert list(track(range(3), "images")) == [0, 1, 2]
    assert ("images 3/3" in caplog.text) == (not brief)


def test_a_late_bar_is_silent_where_the_work_is_brief_or_the_process_is(caplog, monkeypatch):
    monkeypatch.setattr("densessl.core.progress.PLAIN_INTERVAL", 0)
    monkeypatch.setattr("densessl.core.progress.BRIEF", 60)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    caplog.set_level("INFO", logger="densessl")

    def shown():
        with Bar("found", None, late=True) as bar:
            bar.advance(2)
            return bar._rich is not None

    assert not shown()
    monkeypatch.setattr("densessl.core.progress.BRIEF", 0)
    assert shown()
    caplog.set_level("WARNING", logger="densessl")
    assert not shown()


def test_a_bar_without_a_total_counts(caplog, monkeypatch):
    monkeypatch.setattr("densessl.core.progress.PLAIN_INTERVAL", 0)
    caplog.set_level("INFO", logger="densessl")
    with Bar("images found", None) as bar:
        bar.advance(1300)
        bar.advance(40, "2 unreadable")
    assert [record.message for record in caplog.records] == [
        "images found 1300",
        "images found 1340  2 unreadable",
    ]


def test_nearest_ignores_case_and_gives_up_on_nonsense():
    assert nearest("solver.base_LRR", ["SOLVER.BASE_LR", "SEED"]) == "SOLVER.BASE_LR"
    assert nearest("zzz", ["SOLVER.BASE_LR", "SEED"]) is None


def test_unknown_says_what_where_and_what_is_allowed():
    message = str(unknown("protocol", "voc_det", ["voc_det_c4", "knn"], where="--protocol"))
    assert message == (
        "unknown protocol 'voc_det' in --protocol. Did you mean 'voc_det_c4'? "
        "Allowed: knn, voc_det_c4"
    )
