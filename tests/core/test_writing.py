"""Checkpoints that are written beside the steps: what they hold, and how their failures arrive."""

import threading

import pytest
import torch

from densessl.core.checkpoint import Writing, load, save, snapshot
from densessl.core.errors import EnvironmentLacks


def test_a_snapshot_is_of_its_moment():
    weight, seen = torch.zeros(3), {"steps": [1]}
    taken = snapshot({"model": {"w": weight}, "logs": seen, "betas": (0.9, weight), "n": 3})
    weight += 1
    seen["steps"].append(2)
    assert taken["model"]["w"].tolist() == [0, 0, 0] == taken["betas"][1].tolist()
    assert taken["logs"] == {"steps": [1]}
    assert taken["betas"][0] == 0.9 and taken["n"] == 3


def test_a_snapshot_holds_shared_memory_once(tmp_path):
    weight = torch.rand(1000)
    state = {"model": {"w": weight, "part": weight[:10]}, "backbone": {"w": weight.view(1000)}}
    taken = snapshot(state)
    assert taken["model"]["w"] is taken["backbone"]["w"]
    assert taken["model"]["w"].data_ptr() != weight.data_ptr()
    assert torch.equal(taken["model"]["part"], weight[:10])
    save(tmp_path / "a.pth", taken)
    assert (tmp_path / "a.pth").stat().st_size < 2 * 4000
    assert torch.equal(load(tmp_path / "a.pth", "")["backbone"]["w"], weight)


def test_a_snapshot_keeps_the_order_in_memory():
    last = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert snapshot({"w": last})["w"].stride() == last.stride()


def test_work_is_done_beside_what_follows_one_piece_after_the_other():
    done, first = [], threading.Event()

    def slow():
        assert first.wait(60)
        done.append(1)

    with Writing() as writing:
        writing.begin(slow)
        writing.check()  # waits for nothing
        assert done == []
        first.set()
        writing.begin(lambda: done.append(2))
        assert done[0] == 1
    assert done == [1, 2]


def fail():
    raise EnvironmentLacks("cannot write it")


def test_a_failure_is_raised_once_by_the_next_look():
    with pytest.raises(EnvironmentLacks, match="cannot write it"), Writing() as writing:
        writing.begin(fail)
        writing.wait()
    writing.wait()
    with pytest.raises(EnvironmentLacks), Writing() as writing:
        writing.begin(fail)  # nobody looks: the end of the block does


def test_an_error_of_the_run_comes_first_and_the_other_is_logged(caplog):
    with pytest.raises(ZeroDivisionError), Writing() as writing:
        writing.begin(fail)
        raise ZeroDivisionError
    assert "cannot write it" in caplog.text
