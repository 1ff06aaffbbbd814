"""The first losses of every method, in float64, against those in ``tests/golden/curves``.

Rounding is another one on each processor, and in float32 it grows with every step: for SimCLR from
1e-6 to 0.05 in twenty; where a nearest neighbour or a threshold hangs on the last bit, at once.
In float64, curves differed by at most 5e-13 (half of the last digit written): eight between AVX-512
and SSE4.1, six between one of these and AVX2 on two threads. Pictures, geometry and colours are
drawn from whole numbers and NumPy's generators, which are the same everywhere. A change that
means to move a curve writes it anew with

    python -m tests.pretrain.test_methods_curves [NAME …]
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.pretrain import config
from densessl.pretrain.engine.train import train
from tests.pretrain.test_methods_runs import RUNS as RUNS_OF_MOST
from tests.pretrain.test_methods_runs import SMALL_BACKBONE
from tests.pretrain.test_methods_runs_dino import RUNS as RUNS_OF_DINO

CURVES = Path(__file__).parents[1] / "golden" / "curves"
RUNS = RUNS_OF_MOST | RUNS_OF_DINO
FAST = ("moco", "simclr", "setsim", "setsim_simsiam", "densecl", "houghcl", "pixpro", "resim_c4")
STEPS = 4
# What a curve depends on beside the method's own options: a rate that moves the weights, a queue
# that the keys of three steps fill, and how fast momentum encoders follow.
PINNED = {
    "SOLVER.BATCH_SIZE": 8,
    "SOLVER.REFERENCE_BATCH": 8,
    "SOLVER.MAX_STEPS": STEPS,
    "BACKBONE.GROUP_SIZE": 4,
    "MOCO.QUEUE": 24,
    "MOCO.MOMENTUM": 0.999,
    "BYOL.MOMENTUM": 0.99,
    "PIXPRO.MOMENTUM": 0.99,
    "DINO.MOMENTUM": 0.99,
    "DATA.WORKERS": 0,
    "LOG.PERIOD": 1,
    "DEVICE": "cpu",
}
TOLERANCE = 1e-8


def make_pictures(folder: Path) -> Path:
    """16 patterns of colours, through integer arithmetic alone and without JPEG."""
    folder.mkdir()
    for n in range(16):
        coarse = np.random.default_rng(n).integers(0, 256, (9, 10, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((90 + n, 80), Image.Resampling.BICUBIC)
        picture.save(folder / f"{n:02d}.png")
    return folder


@contextlib.contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def curve(name: str, pictures: Path, folder: Path) -> list[float]:
    """The losses of the first steps of a method."""
    preset, overrides = RUNS[name]
    options = PINNED | {"DATA.PATH": pictures, "OUTPUT_DIR": folder}
    words = [*overrides, *(str(x) for pair in options.items() for x in pair)]
    if config.load(preset).BACKBONE.NAME.startswith("resnet"):
        words += SMALL_BACKBONE  # the losses are a method's own on any network
    cfg = config.load(preset, words)
    with double_precision():
        train(cfg)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("drawn") / "pictures")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in RUNS]
)
def test_the_first_losses_of_a_method_are_the_golden_ones(name, drawn, tmp_path):
    golden = json.loads((CURVES / f"{name}.json").read_text())
    assert len(golden) == STEPS
    assert curve(name, drawn, tmp_path / "run") == pytest.approx(golden, rel=0, abs=TOLERANCE)


def write_curves(names: list[str]) -> None:
    """Write golden curves anew."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(Path(folder) / "pictures")
        for name in names:
            numbers = ",\n  ".join(f"{x:.12f}" for x in curve(name, pictures, Path(folder) / name))
            (CURVES / f"{name}.json").write_text(f"[\n  {numbers}\n]\n")


if __name__ == "__main__":
    write_curves(sys.argv[1:] or list(RUNS))
