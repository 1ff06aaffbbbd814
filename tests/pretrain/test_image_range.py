"""Runs on images that are not of 8 bits: which range they have, and that they keep it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError, StoppedEarly
from densessl.pretrain import config
from densessl.pretrain.engine.train import train
from densessl.pretrain.views import RECIPES, ViewDataset, build_source
from tests.decoding.images import png16


def write(folder, values_of):
    """24 smooth pictures; ``values_of(eight)`` are the values of one of 8 bits."""
    folder.mkdir()
    for n in range(24):
        coarse = np.random.default_rng(n).integers(0, 256, (5, 6), dtype=np.uint8)
        eight = Image.fromarray(coarse).resize((60, 48), Image.Resampling.BICUBIC)
        values = values_of(np.asarray(eight))
        if values.dtype == np.uint16:
            (folder / f"{n:02d}.png").write_bytes(png16(values))
        else:
            suffix = "png" if values.dtype == np.uint8 else "tif"
            Image.fromarray(values).save(folder / f"{n:02d}.{suffix}")
    return folder


KINDS = {
    "thermal": (lambda eight: 7000 + eight.astype(np.uint16) * 8, (7000, 9040)),
    "12 bits": (lambda eight: eight.astype(np.uint16) * 16, (0, 4095)),
    "16 bits": (lambda eight: eight.astype(np.uint16) * 257, (0, 65535)),
    "floats": (lambda eight: eight.astype(np.float32) / 255, (0, 1)),
}


def saved(cfg):
    return torch.load(Path(cfg.OUTPUT_DIR) / "backbone_final.pth", weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_range_is_said_and_kept(kind, tiny, tmp_path):
    values_of, expected = KINDS[kind]
    folder = write(tmp_path / "in", values_of)
    cfg = tiny("moco", None, "DATA.PATH", folder, "SOLVER.MAX_STEPS", 1)
    train(cfg)
    held = saved(cfg)
    spread = expected[1] - expected[0]
    assert held["range"] == pytest.approx(expected, abs=0.02 * spread)
    assert held["pretrain"]["range"] == held["range"]
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert "24 of 24 sampled images are not of 8 bits" in log


def test_images_of_eight_bits_have_no_range(tiny):
    cfg = tiny("moco", None, "SOLVER.MAX_STEPS", 1)
    train(cfg)
    assert saved(cfg)["range"] is None and "range" not in saved(cfg)["pretrain"]


def test_sixteen_bits_train_as_the_same_pictures_in_eight(tiny, tmp_path, different):
    losses = []
    for name, values_of in (("eight", lambda eight: eight), ("deep", KINDS["16 bits"][0])):
        folder = write(tmp_path / name, values_of)
        cfg = tiny("moco", None, "DATA.PATH", folder, "SOLVER.MAX_STEPS", 2)
        train(cfg)
        losses.append(saved(cfg)["backbone"])
    assert not different(*losses)


def test_resuming_takes_the_stored_range_and_no_new_sample(tiny, tmp_path):
    folder = write(tmp_path / "in", KINDS["thermal"][0])
    cfg = tiny("moco", None, "DATA.PATH", folder, "SOLVER.MAX_STEPS", 2, "CHECKPOINT.STEPS", 1)

    def stop(step):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):
        train(cfg, stop)
    before = torch.load(next(Path(cfg.OUTPUT_DIR).glob("checkpoints/*.pth")), weights_only=True)
    brighter = write(tmp_path / "brighter", lambda eight: 20000 + eight.astype(np.uint16) * 90)
    for file in brighter.iterdir():
        shutil.copy(file, folder / file.name)
    with pytest.raises(InputError, match="one colour"):  # all of it is above the range
        train(cfg)
    write(tmp_path / "again", lambda eight: 6000 + eight.astype(np.uint16) * 16)
    for file in (tmp_path / "again").iterdir():
        shutil.copy(file, folder / file.name)
    train(cfg)
    assert saved(cfg)["range"] == before["range"]


def test_a_checkpoint_from_before_goes_on_with_the_upper_eight_of_sixteen_bits(tiny, tmp_path):
    from densessl.core.checkpoint import save
    from densessl.pretrain.engine.checkpoint import Checkpoints

    folder = write(tmp_path / "in", KINDS["12 bits"][0])
    cfg = tiny("moco", None, "DATA.PATH", folder, "SOLVER.MAX_STEPS", 2, "CHECKPOINT.STEPS", 1)

    def stop(step):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):
        train(cfg, stop)
    path, state = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints").newest()
    del state["range"], state["pretrain"]["range"]
    save(path, state, checked=True)
    train(cfg)
    assert saved(cfg)["range"] == [0, 65535]


@pytest.mark.parametrize("values_of", [lambda e: np.full_like(e, 90), KINDS["thermal"][0]])
def test_a_constant_first_batch_stops_the_run_before_its_first_step(values_of, tiny, tmp_path):
    folder = write(tmp_path / "in", values_of)
    cfg = tiny("moco", None, "DATA.PATH", folder, "DATA.RANGE", "20000,30000")
    steps = []
    with pytest.raises(InputError, match="every image of the first batch is one colour"):
        train(cfg, steps.append)
    assert not steps and not list(Path(cfg.OUTPUT_DIR).glob("checkpoints/*.pth"))


def test_a_first_batch_of_nearly_one_colour_is_a_warning(tiny, tmp_path):
    folder = write(tmp_path / "in", KINDS["thermal"][0])
    for text, warned in (("0,65535", True), ("7000,9000", False)):
        cfg = tiny("moco", None, "DATA.PATH", folder, "DATA.RANGE", text, "SOLVER.MAX_STEPS", 1)
        train(cfg)
        lines = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text().splitlines()
        assert any("WARNING" in line and "first batch" in line for line in lines) == warned


@pytest.mark.parametrize("text", ["0,4095", "(0, 4095)", "[0, 4095]", "0:4095"])
def test_a_range_can_be_written_in_several_ways(text, tiny):
    cfg = tiny("moco", None, "DATA.RANGE", text)
    config.validate(cfg)
    assert config.decoding.parse(cfg.DATA.RANGE, "DATA.RANGE") == (0, 4095)


@pytest.mark.parametrize("text", ["4095,0", "dark", "1,2,3"])
def test_a_wrong_range_is_refused_before_any_work(text, tiny):
    cfg = tiny("moco", None, "DATA.RANGE", text)
    with pytest.raises(InputError, match=r"DATA.RANGE is .*allowed: auto"):
        train(cfg)


def test_a_range_in_yaml_may_be_a_list(tmp_path):
    (tmp_path / "own.yaml").write_text("DATA:\n  RANGE: [0, 4095]\n")
    cfg = config.load(tmp_path / "own.yaml")
    assert config.decoding.parse(cfg.DATA.RANGE, "DATA.RANGE") == (0, 4095)


def test_files_left_out_are_in_the_log(tiny, pictures, tmp_path):
    folder = Path(shutil.copytree(pictures, tmp_path / "in"))
    for name in ("a.txt", "b.txt", "c.mov"):
        (folder / name).write_text("")
    cfg = tiny("moco", None, "DATA.PATH", folder, "SOLVER.MAX_STEPS", 1)
    train(cfg)
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    assert "3 other files are left out, by suffix: 2 .txt, 1 .mov" in log


@pytest.mark.parametrize("suffix", [".jfif", ".jp2", ".avif"])
def test_other_suffixes_of_images_are_taken(suffix, tmp_path):
    from fvcore.common.config import CfgNode

    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / f"a{suffix}")
    source = build_source(CfgNode({"DATA": {"SOURCE": "folder", "PATH": str(tmp_path)}}))
    sample = ViewDataset(source, RECIPES["moco_v2"], 16, 0)[(0, 0)]
    assert sample.size.tolist() == [50, 40] and not sample.unreadable
