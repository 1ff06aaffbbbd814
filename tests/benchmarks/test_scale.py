"""docs/scale.md is what its script computes, and the script counts what a real run has."""

from pathlib import Path

import pytest

from benchmarks.scale import document
from benchmarks.scale.recorded import Step, record

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
CHOSEN = ("moco_v2", "byol")


@pytest.fixture(scope="module")
def steps():
    return {name: document.step_of(name) for name in CHOSEN}


def rows_of(text):
    """The rows of a table, without its head."""
    return text.splitlines()[2:]


def test_the_tables_of_the_page_are_those_of_the_script(steps):
    checkpoint = sum(steps["moco_v2"].checkpoint.values())
    for table in (
        document.epochs(checkpoint),
        document.lost(checkpoint),
        document.loader(),
        document.restarts(),
    ):
        assert table in PAGE
    for row in rows_of(document.communication(steps)) + rows_of(document.checkpoints(steps)):
        assert row in PAGE.splitlines()


@pytest.mark.slow
def test_the_page_is_the_script_s():
    assert document.render() == PAGE


def test_a_step_of_moco_sends_what_its_layers_say(steps):
    resnet50, projector = 23_508_032, 2048 * 2048 + 2048 + 2048 * 128 + 128
    moco, float32 = steps["moco_v2"], 4
    keys = 32 * 128 * float32
    assert moco.gradients == (resnet50 + projector) * float32
    assert moco.gathered == keys
    assert moco.exchanged == 32 * 3 * 224 * 224 * float32 + keys
    assert moco.norms == moco.reduced == 0
    queue, momentum = 65536 * 128, resnet50 + projector
    floats = (moco.checkpoint["model"] - moco.statistics - queue * float32 - 8) / float32
    assert floats == resnet50 + projector + momentum  # and 8 bytes of the queue's pointer
    assert moco.checkpoint["optimizer"] == moco.gradients  # the momentum of SGD


def test_synchronised_norms_are_counted_in_every_pass(steps):
    channels, layers = 26_560, 53  # of a ResNet-50's norms
    heads = 4096  # of a projector or a predictor
    online, momentum = 2 * (channels + 2 * heads), 2 * (channels + heads)  # two views
    assert steps["byol"].norms == 2 * (2 * layers + 3)
    assert steps["byol"].norms_gathered == (2 * (online + momentum) + steps["byol"].norms) * 4
    assert steps["byol"].norms_reduced == 2 * online * 4


def test_rings_send_what_they_are_said_to():
    step = Step(gradients=800, gathered=10, exchanged=80, statistics=5, norms_gathered=1)
    assert step.sent(8) == 2 * 700 + 7 * 10 + 70 + 5 + 7
    assert step.sent(512) - step.sent(8) == pytest.approx(
        2 * 800 * (511 / 512 - 7 / 8) + 504 * 11 + 80 * (511 / 512 - 7 / 8)
    )


def test_a_checkpoint_is_as_large_as_a_real_one(tiny, tmp_path):
    from densessl.pretrain.engine.train import train

    cfg = tiny("moco", tmp_path / "run", "BACKBONE.NAME", "resnet18", "SOLVER.MAX_STEPS", 1)
    train(cfg)
    (file,) = (tmp_path / "run" / "checkpoints").glob("*.pth")
    parts = record(cfg, processes=2, images=4).checkpoint
    once = parts["model"] + parts["optimizer"]  # in which the backbone is
    assert once < file.stat().st_size < 1.01 * once
