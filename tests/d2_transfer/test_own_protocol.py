"""A protocol of one's own, by ``file.py:Name``: the example of docs/protocols.md as it stands."""

import json
import re
from pathlib import Path

import pytest
import yaml

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.resolve import resolve

DOCUMENT = Path(densessl.__file__).parents[1] / "docs" / "protocols.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    ((name, text),) = re.findall(
        r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL
    )
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_options_are_those_of_the_protocol(folder):
    ours, own = resolve("voc_det_c4"), resolve("mine.py:HALF")
    assert (own.SOLVER.MAX_ITER, own.SOLVER.STEPS) == (12000, (9000, 11000))
    changed = results.flat(yaml.safe_load(own.dump()))
    for key, value in results.flat(yaml.safe_load(ours.dump())).items():
        assert key in ("SOLVER.MAX_ITER", "SOLVER.STEPS") or changed[key] == value
    assert resolve("mine.py:HALF", gpus=4).SOLVER.MAX_ITER == 24000  # scaled as ours are
    words = ["SOLVER.MAX_ITER", "100", "SOLVER.STEPS", "(50,)"]
    assert resolve("mine.py:HALF", overrides=words).SOLVER.MAX_ITER == 100


def test_its_trial_is_recorded_and_tabled_by_its_name(folder, scenes, capsys):
    words = ["random", "--protocol", "mine.py:COARSE", "--trials", "1", "--mini", "-o", "out"]
    words += ["--data", str(scenes), "MODEL.BACKBONE", "resnet18", "DATALOADER.NUM_WORKERS", "0"]
    assert densessl.main(["transfer", *words]) == 0
    record = results.load(folder / "out" / "trial_1")
    assert (record.protocol, record.variant) == ("linear_semseg_res4", "")
    assert f"{record.metrics['sem_seg/mIoU']:.2f}" in capsys.readouterr().out
    config = yaml.safe_load((folder / "out" / "config.yaml").read_text())
    assert config["FEATURES"]["LEVELS"] == ["res4"]
    assert json.loads((folder / "out" / "run.json").read_text())["protocol"] == record.protocol
    assert densessl.main(["table", "out"]) == 0
    assert "linear_semseg_res4" in capsys.readouterr().out


def test_jobs_name_it_by_its_absolute_path(folder, capsys):
    words = ["random", "--protocol", "mine.py:HALF", "-o", "out", "--trials", "1", "--dry-run"]
    assert densessl.main(["submit", "transfer", *words]) == 0
    assert f"--protocol {folder}/mine.py:HALF" in capsys.readouterr().out


def test_its_config_may_lie_beside_it(folder):
    (folder / "small.yaml").write_text("TASK: knn_semseg\nKNN:\n  K: 7\n")
    (folder / "beside.py").write_text(
        "from densessl.d2_transfer.protocols import DENSE, Protocol\n"
        "P = Protocol('mine', 'k 7', {'': 'small.yaml'}, ('sem_seg/mIoU',), (), 0.0, DENSE)\n"
    )
    words = ["DATASETS.TRAIN", "camvid_sem_seg_train", "DATASETS.TEST", "camvid_sem_seg_val"]
    assert resolve(f"{folder}/beside.py:P", overrides=words, cuda=False).KNN.K == 7


@pytest.mark.parametrize(
    "change, said",
    [
        ("name='voc_det_c4'", "'voc_det_c4'"),
        ("name='a/b'", "'a/b'"),
        ("family='nobody'", "nobody.*detection"),
        ("configs={'': 'none.yaml'}", r"none\.yaml"),
        ("options={'SOLVER.MAX_ITERS': 3}", r"SOLVER\.MAX_ITERS.*SOLVER\.MAX_ITER"),
        ("variant", "'moco2f'.*moco2fc"),
    ],
)
def test_what_cannot_be_is_named(folder, change, said):
    variant, name = ("moco2f", "coco_mask_fpn_1x") if change == "variant" else (None, "voc_det_c4")
    change = "" if change == "variant" else change
    given = change if change.startswith("name") else f"name='own', {change}"
    (folder / "wrong.py").write_text(
        "from dataclasses import replace\n"
        "from densessl.d2_transfer.protocols import PROTOCOLS\n"
        f"P = replace(PROTOCOLS['{name}'], {given})\n"
    )
    with pytest.raises(InputError, match=said):
        resolve("wrong.py:P", variant)


def test_another_object_is_no_protocol(folder):
    with pytest.raises(InputError, match="mine.py:LABELLED"):
        resolve("mine.py:LABELLED")
