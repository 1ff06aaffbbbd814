"""What a person reads while a verb works."""

import pytest

from densessl.core.errors import nearest, unknown
from densessl.core.progress import duration, track


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


def test_nearest_ignores_case_and_gives_up_on_nonsense():
    assert nearest("solver.base_LRR", ["SOLVER.BASE_LR", "SEED"]) == "SOLVER.BASE_LR"
    assert nearest("zzz", ["SOLVER.BASE_LR", "SEED"]) is None


def test_unknown_says_what_where_and_what_is_allowed():
    message = str(unknown("protocol", "voc_det", ["voc_det_c4", "knn"], where="--protocol"))
    assert message == (
        "unknown protocol 'voc_det' in --protocol. Did you mean 'voc_det_c4'? "
        "Allowed: knn, voc_det_c4"
    )
