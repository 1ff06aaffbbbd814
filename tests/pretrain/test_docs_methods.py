"""docs/methods.md: the table is complete, and its examples run as they stand."""

import json
import re
from pathlib import Path

import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import METHODS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT, flags=re.DOTALL))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(tiny, method, *overrides):
    cfg = tiny(method, None, "VIEWS.SIZE", 64, "SOLVER.MAX_STEPS", 3, "LOG.PERIOD", 1, *overrides)
    train(cfg)
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_method_has_its_row():
    assert all(f"| `{name}` |" in DOCUMENT for name in METHODS)


def test_the_examples_are_short():
    assert FILES.keys() == {"mine.py", "mutual.py", "small.py", "weak.py"}
    assert all(len(text.splitlines()) <= 40 for text in FILES.values())


def test_the_correspondence_of_ones_own_trains(folder, tiny):
    expression = "mine.py:same_row & cosine>0.5"
    lines = run(tiny, "dense", "DENSE.CORRESPONDENCE", expression)
    assert len(lines) == 3 and lines[-1]["stat/positives_per_query"] <= 2  # a row of a 2 × 2 grid


def test_a_file_that_changed_since_is_said(folder, tiny):
    cfg = tiny("mutual.py:Mutual", None, "VIEWS.SIZE", 64, "SOLVER.MAX_STEPS", 3)
    cfg.CHECKPOINT.STEPS = 2
    train(cfg)
    run = Path(cfg.OUTPUT_DIR)
    for file in (run / "backbone_final.pth", run / "checkpoints" / "step_00000003.pth"):
        file.unlink()
    (folder / "mutual.py").write_text(FILES["mutual.py"] + "\n# changed\n")
    train(cfg)
    assert "a file of your own has changed since" in (run / "log.txt").read_text()


def test_the_method_of_ones_own_trains_with_its_own_option(folder, tiny):
    all_pairs = run(tiny, "mutual.py:Mutual")
    few_pairs = run(tiny, "mutual.py:Mutual", "METHOD.OPTIONS.LEAST", 0.99999)
    assert all_pairs[0]["stat/positives_per_query"] == 1  # mutual neighbours are one to one
    assert few_pairs[0]["stat/queries"] < all_pairs[0]["stat/queries"]


OWN = ("BACKBONE.NAME", "small.py:Small", "VIEWS.RECIPE", "weak.py:WEAK_AND_STRONG")


def test_the_backbone_and_the_augmentations_of_ones_own_train(folder, tiny, capsys):
    plain = run(tiny, "densecl", *OWN[:2])
    lines = run(tiny, "densecl", *OWN, "OUTPUT_DIR", str(folder / "out"))
    assert len(lines) == 3 and lines[0]["loss"] != plain[0]["loss"]  # other views
    checkpoint = folder / "out" / "backbone_final.pth"
    held = torch.load(checkpoint, weights_only=True)
    assert held["backbone"].keys() == build_backbone("small.py:Small").state_dict().keys()
    assert {"small.py", "weak.py"} <= held["pretrain"]["own_files"].keys()
    assert densessl.main(["convert", str(checkpoint), "-o", "out.pkl"]) == 2
    assert "small.py:Small" in capsys.readouterr().err and not Path("out.pkl").exists()


def test_a_level_that_ones_own_backbone_lacks_is_named(folder, tiny):
    with pytest.raises(InputError, match="'layer1'"):
        run(tiny, "vader", *OWN[:2])


@pytest.mark.parametrize(
    "body, message",
    [
        ("return nn.Conv2d(3, 8, 32, 32)", "AttributeError"),
        ("raise ValueError('no')", "ValueError: no"),
        ("net = Small(norm); net.channels = {'layer4': 64}; return net", "64"),
        ("net = Small(norm); net.channels = {'layer3': 64}; return net", "layer4"),
    ],
)
def test_what_is_no_backbone_is_refused(folder, body, message):
    (folder / "wrong.py").write_text(
        f"from small import Small\nfrom torch import nn\ndef make(norm):\n    {body}\n"
    )
    with pytest.raises(InputError, match=rf"BACKBONE\.NAME.*wrong\.py:make.*{message}"):
        build_backbone("wrong.py:make")


@pytest.mark.parametrize("value", ["3", "()", "(WEAK,)", "(WEAK, 'moco_v2')"])
def test_what_is_no_recipe_is_refused(folder, tiny, value):
    (folder / "wrong.py").write_text(f"from weak import WEAK\nNOT = {value}\n")
    with pytest.raises(InputError, match=r"VIEWS\.RECIPE: wrong\.py:NOT"):
        config.validate(tiny("moco", None, "VIEWS.RECIPE", "wrong.py:NOT"))
