"""Transfer's loaders in small containers and on dead mounts: they end, with a name and a cure."""

import os
import signal

import pytest

from densessl.core import limits, waiting
from densessl.core.errors import EnvironmentLacks, InputError, Interrupted
from densessl.core.loader import close_all
from densessl.d2_transfer import classification, compat
from densessl.d2_transfer.hooks import BoardMetrics, Forgiving, RunMetrics
from densessl.d2_transfer.limits import check_machine
from densessl.d2_transfer.results import as_dict, config_fingerprint
from densessl.d2_transfer.sampling import GroupedOrder, training_loader

compat.setup()


def detection(*overrides):
    cfg = compat.get_cfg()
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 2, *overrides])
    return cfg


@pytest.mark.parametrize(
    ("cfg", "fits"),
    [
        (detection(), False),  # five batches of 16 photographs of 800 x 1067
        (detection("DATALOADER.NUM_WORKERS", 0), True),
        (detection("INPUT.MIN_SIZE_TRAIN", (100,)), True),
        (classification.resolve("linear", cuda=False), False),
        (classification.resolve("linear", mini=True, cuda=False), True),
    ],
)
def test_what_a_protocol_needs_is_compared_with_what_is_free(cfg, fits, monkeypatch):
    monkeypatch.setattr(limits, "shared_memory", lambda: (64 << 20, 64 << 20))
    if fits:
        return check_machine(cfg, 1, 1)
    with pytest.raises(EnvironmentLacks, match="--shm-size.*DATALOADER.NUM_WORKERS 0"):
        check_machine(cfg, 1, 1)


def test_the_time_of_a_wait_is_not_part_of_the_experiment():
    one, other = detection(), detection("DATALOADER.TIMEOUT", 7)
    assert config_fingerprint(as_dict(one)) == config_fingerprint(as_dict(other))


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    return str(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fifo_among_the_images_is_named_and_not_opened(pipe, workers):
    def read(entry):
        raise AssertionError("it is opened")

    order = GroupedOrder(1, 1, seed=0)
    with pytest.raises(InputError, match="pipe.jpg.*FIFO"):
        next(iter(training_loader([{"file_name": pipe}], read, order, workers)))
    close_all()


def wait_for(entry):
    with open(entry["pipe"], "rb") as stream:
        return {"read": stream.read()}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_read_that_never_returns_is_named(pipe, tmp_path, workers):
    (tmp_path / "image.jpg").write_bytes(b"")
    entry = {"file_name": str(tmp_path / "image.jpg"), "pipe": pipe}
    batches = iter(training_loader([entry], wait_for, GroupedOrder(1, 1, 0), workers, 0.6))
    with pytest.raises(EnvironmentLacks, match="image.jpg.*DATALOADER.TIMEOUT"):
        next(batches)
    close_all()


def test_a_stop_ends_the_wait_after_a_while(pipe, tmp_path, monkeypatch):
    from densessl.d2_transfer import sampling
    from densessl.d2_transfer.stops import stoppable

    monkeypatch.setattr(sampling, "GRACE", 0.3)
    (tmp_path / "image.jpg").write_bytes(b"")
    entry = {"file_name": str(tmp_path / "image.jpg"), "pipe": pipe}
    with stoppable():
        batches = iter(training_loader([entry], wait_for, GroupedOrder(1, 1, 0), 1, 0.0))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            next(batches)
    close_all()
    assert not waiting._asked


def test_writers_outlive_a_full_disk(tmp_path):
    from detectron2.utils.events import EventStorage, JSONWriter

    (tmp_path / "full").symlink_to("/dev/full")
    written = [
        RunMetrics(tmp_path / "full", trial=1, steps=9),
        BoardMetrics(tmp_path / "none" / "none"),
        Forgiving(JSONWriter(str(tmp_path / "full")), tmp_path / "full"),
    ]
    with EventStorage() as storage:
        for _ in range(3):
            storage.put_scalar("total_loss", 1.0)
            for each in written:
                each.write()
            storage.step()
        (tmp_path / "full").unlink()
        for each in written:
            each.close()
    assert (tmp_path / "full").read_text().count('"total_loss": 1.0') == 3
