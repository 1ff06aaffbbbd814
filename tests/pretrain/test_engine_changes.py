"""Options of a run that are changed on purpose: which may be, what comes of it, who is told."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import densessl
from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.engine.changes import FIXED, named
from densessl.pretrain.engine.placement import settled
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import METHODS

LR = "SOLVER.BASE_LR"


class Killed(Exception):
    pass


def kill_after(step):
    def look(done):
        if done == step:
            raise Killed

    return look


@pytest.fixture(scope="module")
def begun(tiny, tmp_path_factory):
    """A run of nine steps that ended after the fifth: its checkpoint is that of the fourth."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.raises(Killed):
        train(tiny("moco", folder), kill_after(5))
    return folder


@pytest.fixture(scope="module")
def complete(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("complete") / "run"
    train(tiny("moco", folder))
    return folder


@pytest.fixture
def run(begun, tmp_path):
    """A copy of the run that has begun."""
    return shutil.copytree(begun, tmp_path / "run")


@pytest.fixture
def done(complete, tmp_path):
    """A copy of the complete run."""
    return shutil.copytree(complete, tmp_path / "run")


def newest(folder: Path) -> dict:
    (*_, file) = sorted(folder.glob("checkpoints/*.pth"))
    return torch.load(file, weights_only=True)


def rates(folder: Path) -> dict[int, float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["iteration"]: line["lr"] for line in lines}


def test_the_options_that_are_named_are_changed_and_no_others(tiny, run, tmp_path, capsys):
    options = (LR, 0.01, "SOLVER.MOMENTUM", 0.5, "LOG.PERIOD", 1)
    cfg = tiny("moco", run, *options)
    for change, said in (
        ((), f"--change {LR} SOLVER.MOMENTUM"),
        ((LR,), f"--change {LR} SOLVER.MOMENTUM"),  # all of them: a second --change would win
        ((LR, "SOLVER.MOMENTUM", "SOLVER.GAMMA"), "--change names SOLVER.GAMMA"),
    ):
        with pytest.raises(InputError) as refused:
            train(cfg, change=change)
        assert said in str(refused.value), refused.value
    before = rates(run)
    keys = ("SOLVER.MOMENTUM", LR)
    with pytest.raises(Killed):  # the same command resumes what it has changed, from step 8
        train(cfg, kill_after(9), change=keys)
    train(cfg, change=keys)
    state = newest(run)
    assert state["iteration"] == 9 and rates(run).items() >= before.items()
    assert rates(run)[7] == pytest.approx(0.01 / 4)  # the cosine's share in the last of 3 epochs
    assert {group["momentum"] for group in state["optimizer"]["param_groups"]} == {0.5}
    made = {"step": 4, "options": {LR: [0.03, 0.01], "SOLVER.MOMENTUM": [0.9, 0.5]}}
    assert state["pretrain"]["changes"] == [made]
    head = (run / "config.yaml").read_text().splitlines()[0]
    assert head.startswith("#") and f"{LR} 0.03 -> 0.01" in head and "step 4" in head
    assert config.load(run / "config.yaml") == settled(cfg, torch.device("cpu"))
    assert "0.01" in capsys.readouterr().err
    assert train(cfg) == train(cfg, change=keys)  # complete, with and without
    final = torch.load(run / "backbone_final.pth", weights_only=True)
    assert final["pretrain"]["changes"] == [made]  # of which a trial's record takes it


def test_what_changes_no_number_needs_not_to_be_named(tiny, run, tmp_path, pictures):
    for split in ("train", "val"):
        for n, name in enumerate(("a", "b")):
            (tmp_path / split / name).mkdir(parents=True)
            shutil.copy(pictures / f"{n:02d}.jpg", tmp_path / split / name)
    watch = ("KNN.PERIOD", 1.0, "KNN.TRAIN", tmp_path / "train", "KNN.VAL", tmp_path / "val")
    train(tiny("moco", run, "LOG.PERIOD", 1, "CHECKPOINT.KEEP", 1, "KNN.K", 1, *watch))
    assert "changes" not in newest(run)["pretrain"]
    assert "knn/top1" in (run / "metrics.jsonl").read_text()


def test_a_complete_run_has_more_epochs(tiny, done, different, caplog):
    weights = torch.load(done / "backbone_final.pth", weights_only=True)
    with pytest.raises(InputError, match=r"nothing is left to train"):
        train(tiny("moco", done, LR, 0.01), change=[LR])
    with pytest.raises(InputError, match=r"has done 9 steps.* after 6"):
        train(tiny("moco", done, "SOLVER.EPOCHS", 2), change=["SOLVER.EPOCHS"])
    with pytest.raises(InputError, match=r"--change SOLVER\.EPOCHS"):
        train(tiny("moco", done, "SOLVER.EPOCHS", 4))
    train(tiny("moco", done, "SOLVER.EPOCHS", 4), change=["SOLVER.EPOCHS"])
    state = newest(done)
    assert (state["iteration"], state["pretrain"]["epochs"]) == (12, 4)
    assert state["pretrain"]["changes"] == [{"step": 9, "options": {"SOLVER.EPOCHS": [3, 4]}}]
    kept = torch.load(done / "backbone_step_00000009.pth", weights_only=True)
    assert different(kept["backbone"], weights["backbone"]) == []
    final = torch.load(done / "backbone_final.pth", weights_only=True)
    assert final["iteration"] == 12
    log = (done / "log.txt").read_text()
    (line,) = [line for line in log.splitlines() if "the learning rate was" in line]
    assert "is 0.00439" in line and "12 steps" in line  # a cosine's share of 0.03 after 3 of 4


def test_a_complete_run_without_checkpoints_cannot(tiny, done):
    shutil.rmtree(done / "checkpoints")
    with pytest.raises(InputError, match=r"no checkpoints left.*BACKBONE\.WEIGHTS"):
        train(tiny("moco", done, "SOLVER.EPOCHS", 4), change=["SOLVER.EPOCHS"])
    assert (done / "backbone_final.pth").is_file()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("SOLVER.BATCH_SIZE", 12, "epochs in steps"),
        ("SOLVER.OPTIMIZER", "adamw", "old optimizer"),
        ("BACKBONE.NAME", "resnet50", "another run"),
        ("MOCO.QUEUE", 32, "does not fit"),
    ],
)
def test_what_a_checkpoint_is_bound_to_cannot_be_changed(key, value, why, tiny, run):
    before = (run / "config.yaml").read_text()
    with pytest.raises(InputError, match=rf"--change {key}: .*{why}"):
        train(tiny("moco", run, key, value), change=[key])
    with pytest.raises(InputError, match=r"belongs to a run with other options") as refused:
        train(tiny("moco", run, key, value))
    advised = str(refused.value).partition("old values")[2]
    assert (f"cannot change {key}" in advised) == (key in FIXED)
    assert ("--change" in advised) == (key not in FIXED)
    assert (run / "config.yaml").read_text() == before


@pytest.mark.slow  # CPUs are slow at float16
def test_the_precision_can_be_changed_both_ways(tiny, run):
    with pytest.raises(Killed):
        train(tiny("moco", run, "AMP", "fp16", "CHECKPOINT.STEPS", 1), kill_after(7), ["AMP"])
    assert newest(run)["scaler"]
    train(tiny("moco", run, "AMP", "bf16"), change=["AMP"])
    assert [change["options"]["AMP"] for change in newest(run)["pretrain"]["changes"]] == [
        *(["off", "fp16"], ["fp16", "bf16"])
    ]


def test_there_must_be_something_to_resume(tiny, tmp_path):
    with pytest.raises(InputError, match="has no checkpoint to resume"):
        train(tiny("moco", tmp_path / "run"), change=[LR])
    assert not (tmp_path / "run").exists()


class Diverges(METHODS["moco"]):
    """Its loss is not finite above a learning rate."""

    def forward(self, views, step):
        outputs = super().forward(views, step)
        if step > 4 and self.cfg.SOLVER.BASE_LR > 0.02:
            outputs["loss"] = outputs["loss"] * float("nan")
        return outputs


@pytest.mark.parametrize("saved", [True, False])
def test_the_advice_after_a_divergence_can_be_followed(saved, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METHODS, "moco", Diverges)
    folder = tmp_path / "my run"
    steps = 4 if saved else 100
    cfg = tiny("moco", folder, "SOLVER.MAX_SKIPPED", 2, "CHECKPOINT.STEPS", steps)
    with pytest.raises(InputError, match="2 steps in a row") as stopped:
        train(cfg)
    command = shlex.split(str(stopped.value).splitlines()[-1])
    assert ("--change" in command) == saved
    assert command[:2] == ["densessl", "pretrain"] and densessl.main(command[1:]) == 0
    state = newest(folder)
    assert state["iteration"] == 9 and state["patience"]["skipped"] == 0
    assert yaml.safe_load(state["config"])["SOLVER"]["BASE_LR"] == 0.015
    assert len(state["pretrain"].get("changes", [])) == saved


@pytest.mark.slow
def test_processes_of_torchrun_change_together(done):
    words = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "densessl")
    words += ("pretrain", "--config", f"{done}/config.yaml", "OUTPUT_DIR", str(done))
    words += ("--change", "SOLVER.EPOCHS=4")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stderr
    assert newest(done)["pretrain"]["changes"] == [
        {"step": 9, "options": {"SOLVER.EPOCHS": [3, 4]}}
    ]
    assert (done / "backbone_step_00000009.pth").is_file()


def test_keys_may_be_followed_by_their_values():
    assert named([LR, "AMP"]) == ([LR, "AMP"], [])
    assert named([LR, "0.01", "AMP=off"]) == ([LR, "AMP"], [LR, "0.01", "AMP", "off"])
    assert named(["METHOD.OPTIONS.LEAST", "3"]) == (
        *(["METHOD.OPTIONS.LEAST"], ["METHOD.OPTIONS.LEAST", "3"]),
    )
    with pytest.raises(InputError, match=rf"'SOLVER.LR'.*mean '{LR}'"):
        named(["SOLVER.LR"])


def test_a_submitted_run_is_changed_too(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "submit pretrain --config moco_v2 DATA.PATH=x -o out --dry-run --change"
    assert densessl.main([*words.split(), LR, "0.01"]) == 0
    assert f"{LR} 0.01 OUTPUT_DIR {tmp_path}/out --change {LR}\n" in capsys.readouterr().out
