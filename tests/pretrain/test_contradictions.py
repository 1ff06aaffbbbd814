"""What ``pretrain`` warns of: options that do not go with the data or the length of the run."""

import pytest

from densessl.pretrain import config
from densessl.pretrain.contradictions import contradictions, too_large_views

IMAGES = {
    "in1k": 1_281_167,
    "in100": 126_689,
    "coco": 118_287,
    "tinyimagenet": 100_000,
    "demo": 1000,
}
SIDES = {"tinyimagenet": 64}  # px; their configs magnify them, and say so
SCENES, SCENE = 1000, 128  # that `densessl scenes` draws, and their side


def cfg(*words, preset="moco_v2"):
    return config.load(preset, [*words, "DATA.PATH", "somewhere"])


SMALL = ("SOLVER.BATCH_SIZE", "50", "SOLVER.EPOCHS", "10")  # of 1000 images: 200 steps


@pytest.mark.parametrize(
    ("preset", "words", "images", "named"),
    [
        ("moco_v2", SMALL, 1000, ["MOCO.MOMENTUM is 0.999"]),
        ("moco_v2", [*SMALL, "MOCO.MOMENTUM", "0.995"], 1000, []),  # a mean over 200 steps
        ("moco_v2", [*SMALL, "MOCO.MOMENTUM", "1.0"], 1000, ["MOCO.MOMENTUM is 1"]),
        ("setsim_paper", SMALL, 1000, ["MOCO.MOMENTUM is 0.999"]),
        ("byol", SMALL, 500, ["BYOL.MOMENTUM is 0.996", "SOLVER.WARMUP_EPOCHS is 10"]),
        ("pixpro", ["SOLVER.EPOCHS", "100"], 5000, []),
        ("pixpro", ["SOLVER.EPOCHS", "8"], 5000, ["PIXPRO.MOMENTUM is 0.99"]),
        ("dino", ["SOLVER.EPOCHS", "20"], 1000, ["DINO.MOMENTUM is 0.996"]),
        ("simsiam", [*SMALL, "MOCO.MOMENTUM", "0.9999"], 1000, []),  # it has no such encoder
        ("simsiam", ["SOLVER.BATCH_SIZE", "500"], 1000, []),
        ("simsiam", ["SOLVER.BATCH_SIZE", "502"], 1000, ["SOLVER.BATCH_SIZE is 502"]),
        ("simsiam", [*SMALL, "SOLVER.WARMUP_EPOCHS", "9.9"], 1000, []),
        ("simsiam", [*SMALL, "SOLVER.WARMUP_EPOCHS", "10"], 1000, ["SOLVER.WARMUP_EPOCHS is 10"]),
        ("simsiam", [*SMALL, "SOLVER.MAX_STEPS", "30", "SOLVER.WARMUP_EPOCHS", "2"], 1000,
         ["SOLVER.WARMUP_EPOCHS is 2"]),
        ("simsiam", [*SMALL, "DENSE.WARMUP_STEPS", "200"], 1000, ["DENSE.WARMUP_STEPS is 200"]),
        ("swav", [*SMALL, "SOLVER.WARMUP_EPOCHS", "1"], 1000, ["SWAV.FREEZE_STEPS is 313"]),
        ("simsiam", [*SMALL, "SOLVER.REFERENCE_BATCH", "50"], 1000,
         ["SOLVER.REFERENCE_BATCH is 50"]),
        ("simsiam", [*SMALL, "SOLVER.REFERENCE_BATCH", "2048"], 1000,
         ["SOLVER.REFERENCE_BATCH is 2048"]),
        ("simsiam", [*SMALL, "SOLVER.REFERENCE_BATCH", "512"], 1000, []),
    ],
)  # fmt: skip
def test_an_option_that_does_not_suit_is_named_with_its_value(preset, words, images, named):
    found = contradictions(cfg(*words, preset=preset), images)
    assert len(found) == len(named), found
    for line, option in zip(found, named, strict=True):
        assert line.startswith(option)


@pytest.mark.parametrize(
    ("size", "side", "warned"),
    [(224, 223, True), (224, 224, False), (224, 4000, False), (64, 32, False), (65, 32, True)],
)
def test_views_larger_than_the_images(size, side, warned):
    found = too_large_views(cfg("VIEWS.SIZE", str(size)), side)
    assert len(found) == warned and all(f"VIEWS.SIZE is {size}" in line for line in found)


def test_no_built_in_config_is_warned_of_on_its_own_data():
    for name in config.built_in():
        data = next((data for data in IMAGES if f"_{data}_" in f"_{name}"), "in1k")
        row = config.load(name)
        assert contradictions(row, IMAGES[data]) == [], name
        assert bool(too_large_views(row, SIDES.get(data, 375))) == (data in SIDES), name
        twin = config.load(f"{name}_scenes")
        assert contradictions(twin, SCENES) + too_large_views(twin, SCENE) == [], name
