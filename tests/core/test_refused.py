"""A run that is refused leaves nothing on the disk."""

import os
import shutil

import pytest
import torch

import densessl

TRANSFER = "transfer {0} --protocol {1} --mini --trials 1 -o below/out"
WRONG = [
    "pretrain --config moco_v2_scenes DATA.PATH missing OUTPUT_DIR below/out",
    "pretrain --config moco_v2_scenes DATA.PATH pictures OUTPUT_DIR below/out SOLVER.BATCH_SIZE 99",
    "pretrain --config moco_v2_scenes DATA.PATH pictures OUTPUT_DIR below/out SOLVER.BATCH_SIZE 8 "
    "KNN.PERIOD 1 KNN.TRAIN missing KNN.VAL missing",
    "pretrain --config moco_v2_scenes DATA.PATH pictures OUTPUT_DIR below/out SOLVER.BATCH_SIZE 8 "
    "METHOD.NAME setsim DENSE.CORRESPONDENCE x BACKBONE.WEIGHTS file",
    "audit missing -o below/audit.json",
    "convert file -o below/out.pkl",
    "scenes below/out --size 1",
    "table missing -o below/table.md",
    "report missing -o below/report.html",
    "plot curves missing -o below/curves.png",
    "show missing pictures/00.jpg -o below/out",
    TRANSFER.format("missing", "voc_det_c4"),
    TRANSFER.format("random", "voc_det_c5"),
    TRANSFER.format("missing", "linear --data pictures"),
    TRANSFER.format("file", "knn --data pictures"),
    "submit pretrain --config moco_v2 DATA.PATH x SOLVER.EPOCHS 0 -o below/out --dry-run",
    "submit transfer missing --protocol voc_det_c4 -o below/out --dry-run SOLVER.LR 1",
    "reproduce setsim/table4 -o below/out --local --data missing",
    "reproduce setsim/table4 -o below/out --local --mini --weights SetSim=missing",
]


@pytest.mark.parametrize("command", WRONG)
def test_a_refused_run_makes_nothing(command, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", "nowhere")
    os.symlink(pictures, "pictures")
    torch.save({"a": torch.zeros(2)}, "file")
    before = sorted(tmp_path.rglob("*"))
    assert densessl.main(command.split()) == 2, capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_that_the_config_refuses_are_not_left_behind(tiny, tmp_path, monkeypatch, capsys):
    """They fit no head of the protocol: that is known only after their conversion."""
    from densessl.pretrain.engine.train import train
    from densessl.pretrain.scenes.main import main as scenes

    scenes([str(tmp_path / "scenes"), "--train", "8", "--val", "2", "--size", "64"])
    options = ("BACKBONE.NAME", "resnet18", "SOLVER.MAX_STEPS", 1)
    final = train(tiny("moco", tmp_path / "run", *options))
    monkeypatch.chdir(tmp_path)
    words = TRANSFER.format(final, "voc_det_c4 --data scenes").split()
    assert densessl.main([*words, "MODEL.RESNETS.DEPTH", "50"]) == 2
    assert "below" not in os.listdir() and "18" in capsys.readouterr().err


def test_what_a_refused_run_says_before_is_in_the_log_of_one_that_is_not(tmp_path, capsys):
    from densessl.core import log

    logger = log.setup()
    logger.info("said before")
    log.setup(tmp_path / "run")
    logger.info("said after")
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [line.rsplit(" INFO ")[-1] for line in lines[-2:]] == ["said before", "said after"]
    log.setup(tmp_path / "run")
    assert (tmp_path / "run" / "log.txt").read_text().count("said before") == 1
    shutil.rmtree(tmp_path / "run")
