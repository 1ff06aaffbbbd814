"""Every method as its users run it: 30 steps on scenes, gone on with, converted with proof.

It learns on a backbone of four convolutions, where 30 steps take a second or two; what is converted
is a ResNet-18 after one step. What the losses are on a ResNet is in test_methods_curves.py.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from densessl.pretrain import config

RUNS = {  # method: its config
    "moco": ("moco_v2_r50_in1k_200ep_scenes", []),
    "simsiam": ("simsiam_r50_in1k_200ep_scenes", []),
    "byol": ("byol_r50_in1k_200ep_scenes", []),
    "simclr": ("simclr_r50_in1k_200ep_scenes", []),
    "swav": ("swav_r50_in1k_200ep_scenes", []),
    "setsim": ("setsim_r50_in1k_200ep_scenes", []),
    "setsim_simsiam": ("setsim_simsiam_r50_in100_200ep_scenes", []),
    "densecl": ("densecl_r50_in1k_200ep_scenes", []),
    "houghcl": ("houghcl_r50_in1k_200ep_scenes", []),
    "pixpro": ("pixpro_r50_in1k_200ep_scenes", ["PIXPRO.INSTANCE_WEIGHT", "1.0"]),
    "vader": ("vader_r50_in1k_200ep_scenes", []),
    "resim_c4": ("resim_c4_r50_in1k_200ep_scenes", []),
    "resim_fpn": ("resim_fpn_r50_in1k_200ep_scenes", []),
    "dense": ("moco_v2_r50_in1k_200ep_scenes", ["METHOD.NAME", "dense"]),
    "dense_simsiam": ("simsiam_r50_in1k_200ep_scenes", ["METHOD.NAME", "dense_simsiam"]),
}
QUEUED = ("moco", "setsim", "densecl", "houghcl", "vader", "resim_c4", "resim_fpn", "dense")
SMALL = Path(__file__).parents[2] / "benchmarks" / "small_backbone.py"
SMALL_BACKBONE = ("BACKBONE.NAME", f"{SMALL}:SmallPyramid")


def make_scenes(folder: Path) -> Path:
    from densessl.pretrain.scenes import main as scenes_verb

    options = ["--train", "64", "--val", "2", "--size", "96", "--seed", "3", "--workers", "1"]
    assert not scenes_verb.main([str(folder), *options])
    return folder / "imagenet" / "train"


def options(run: tuple[str, list[str]], images: Path, folder: Path, more: tuple[str, ...] = ()):
    preset, overrides = run
    shared = ["DATA.PATH", str(images), "OUTPUT_DIR", str(folder), "DATA.WORKERS", "0"]
    shared += ["CHECKPOINT.STEPS", "25"]
    # 16 times the twin's own rate, and an encoder that lags: in 30 steps the loss must fall.
    shared += ["SOLVER.REFERENCE_BATCH", "16", "MOCO.MOMENTUM", "0.999", "BYOL.MOMENTUM", "0.99"]
    shared += ["PIXPRO.MOMENTUM", "0.99", "DINO.MOMENTUM", "0.99"]
    cfg = config.load(preset, [*overrides, *shared, *more, "DEVICE", "cpu"])
    if cfg.BACKBONE.NAME == "resnet50":
        cfg.BACKBONE.NAME = "resnet18"  # as good here, in a third of the time
    return cfg


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    torch.set_num_threads(1)
    return make_scenes(tmp_path_factory.mktemp("scenes") / "data")


@pytest.mark.parametrize(
    "name", ["moco", *(pytest.param(n, marks=pytest.mark.slow) for n in RUNS if n != "moco")]
)
def test_a_method_learns_resumes_and_converts(name, images, tmp_path, check_same_run):
    # The loss of a method with a queue first rises, while real keys replace the random start.
    start = 8 if name in QUEUED else 0
    check_run(name, RUNS[name], images, tmp_path, check_same_run, start, SMALL_BACKBONE)


@pytest.mark.slow
def test_at_its_own_rate_a_twin_keeps_the_images_apart(images, tmp_path):
    """The linear rule's rate keeps half of the spread (0.51 and 0.49 of it, with the kernels of two
    processors); 16 times as much leaves 0.07 and 0.08. A quarter tells them apart on any."""
    from densessl.pretrain.engine.train import train

    def least(name, reference):
        cfg = options(RUNS["moco"], images, tmp_path / name)
        cfg.SOLVER.REFERENCE_BATCH, cfg.MOCO.MOMENTUM = reference, twin.MOCO.MOMENTUM
        train(cfg)
        spread = [line["stat/feature_std"] for line in read(tmp_path / name)]
        return min(spread[10:]) / spread[0]

    twin = config.load(RUNS["moco"][0])
    reference = twin.SOLVER.REFERENCE_BATCH
    assert least("own", reference) > 0.25 > least("large", reference // 16)


def check_run(name, run, images, folder, check_same_run, start: int, more) -> list[dict]:
    """Train 30 steps, check that the loss falls from ``start`` on, resume, convert; ``more``: words
    of its options. A backbone that Detectron2 lacks is converted as a ResNet-18, after one step."""
    from densessl.d2_transfer.convert import convert
    from densessl.pretrain.engine.train import train

    cfg = options(run, images, folder / "run", more)
    final = train(cfg)
    lines = read(folder / "run")
    curve = [line["loss"] for line in lines]
    assert len(curve) == 30
    assert sum(curve[-5:]) < sum(curve[start : start + 5]), curve

    # Resumed from the checkpoint of step 25, as after a crash.
    parts = options(run, images, folder / "parts", more)
    shutil.copytree(cfg.OUTPUT_DIR, parts.OUTPUT_DIR)
    (folder / "parts" / "backbone_final.pth").unlink()
    (folder / "parts" / "checkpoints" / "step_00000030.pth").unlink()
    train(parts)
    check_same_run(parts.OUTPUT_DIR, cfg.OUTPUT_DIR)

    if more == SMALL_BACKBONE:
        cfg = options(run, images, folder / "resnet", ("SOLVER.MAX_STEPS", "1"))
        final = train(cfg)
    target = ("timm", ".pth") if cfg.BACKBONE.NAME.startswith("vit") else ("detectron2", ".pkl")
    report = convert(final, folder / f"weights{target[1]}", target=target[0])
    assert report.method == cfg.METHOD.NAME
    assert all(stage.difference < 1e-5 * (1 + stage.magnitude) for stage in report.stages)
    assert bool(report.fpn_tensors) == (name in ("vader", "resim_fpn"))
    return lines
