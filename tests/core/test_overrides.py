"""``KEY VALUE`` and ``KEY=VALUE``, the hints for what is nearly right, and how soon they come."""

import subprocess
import sys

import pytest
import yaml

import densessl
from densessl.core.errors import InputError, nearest
from densessl.core.options import is_option, pairs
from densessl.pretrain import config


def test_keys_and_values_come_in_any_mixture():
    words = ["A.B=1", "C", "2", "D", "x=y", "E=", "F=a=b"]
    assert pairs(words) == ["A.B", "1", "C", "2", "D", "x=y", "E", "", "F", "a=b"]
    assert pairs(pairs(words)) == pairs(words)
    assert pairs(["./odd=name", "1"]) == ["./odd=name", "1"]
    with pytest.raises(InputError, match="'C' has no value"):
        pairs(["A=1", "C"])
    assert is_option("SOLVER.LR=1") and is_option("AMP")
    assert not any(map(is_option, ("random", "a/B=c.pth", "supervised:F.pth", "moco.pkl")))


def test_key_equals_value_works_in_pretrain_and_transfer(capsys):
    words = ["DATA.PATH=x", "SOLVER.EPOCHS", "7", "SOLVER.BASE_LR=0.5"]
    assert densessl.main(["pretrain", "--config", "moco_v2", "--print-config", *words]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["SOLVER"]["EPOCHS"], printed["SOLVER"]["BASE_LR"]) == (7, 0.5)
    words = ["AMP=bf16", "--config", "moco_v2", "SEED", "3", "DATA.PATH=x", "--print-config"]
    assert densessl.main(["pretrain", *words]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["AMP"], printed["SEED"]) == ("bf16", 3)
    for start in ([], ["random"]):
        words = ["transfer", *start, "SOLVER.BASE_LR=0.5", "--protocol", "linear", "--print-config"]
        assert densessl.main([*words, "SOLVER.EPOCHS", "7"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        assert (printed["SOLVER"]["EPOCHS"], printed["SOLVER"]["BASE_LR"]) == (7, 0.5)


@pytest.mark.parametrize(
    "verb", ["pretrain --config moco_v2 DATA.PATH=x -o out", "transfer random"]
)
def test_key_equals_value_works_in_submit(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = "--protocol linear -o out --data ." if verb.startswith("transfer") else ""
    words = f"submit {verb} SOLVER.BASE_LR=0.5 {more} --gpus 0 --dry-run SOLVER.EPOCHS 7".split()
    assert densessl.main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "SOLVER.BASE_LR 0.5" in said and "SOLVER.EPOCHS 7" in said


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("SOLVER.LR", "SOLVER.BASE_LR"),
        ("solver.epochs", "SOLVER.EPOCHS"),
        ("EPOCHS", "SOLVER.EPOCHS"),
        ("LR", "SOLVER.BASE_LR"),
        ("SOLVER.BATCHSIZE", "SOLVER.BATCH_SIZE"),
        ("BATCH_SIZE", "SOLVER.BATCH_SIZE"),
        ("output_dir", "OUTPUT_DIR"),
        ("MODEL.TEMPERATURE", "MOCO.TEMPERATURE"),
        ("Moco.Queue", "MOCO.QUEUE"),
        ("SOLVER.MAX_STEP", "SOLVER.MAX_STEPS"),
    ],
)
def test_an_option_that_is_nearly_right_gets_the_right_one(word, key):
    assert nearest(word, config.option_names(config.defaults())) == key
    with pytest.raises(InputError, match=f"'{word}'.*mean '{key}'"):
        config.load("moco_v2", [word, "1"])


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("pretrain --config moco_v2 --DATA.PATH x", "DATA.PATH"),
        ("pretrain --config moco_v2 --DATA.PATH=x", "DATA.PATH"),
        ("pretrain --config moco_v2 --epochs 100", "SOLVER.EPOCHS"),
        ("pretrain --config moco_v2 --lr 0.1", "SOLVER.BASE_LR"),
        ("pretrain --config moco_v2 --batch-size 8", "SOLVER.BATCH_SIZE"),
        ("pretrain --confg moco_v2", "--config"),
        ("submit pretrain --config moco_v2 --SOLVER.EPOCHS 3", "SOLVER.EPOCHS"),
        ("transfer random --protocol voc_det_c4 -o x --SOLVER.BASE_LR 1", "SOLVER.BASE_LR"),
        ("transfer random --protocl voc_det_c4 -o x", "--protocol"),
        ("transfer random --protocol voc_det_c4 -o x SOLVER.LR=1", "SOLVER.BASE_LR"),
        ("transfer random --protocol voc_det_c4 -o x solver.max_iter 1", "SOLVER.MAX_ITER"),
        ("transfer random --protocol linear -o x SOLVER.LR 1", "SOLVER.BASE_LR"),
        ("submit transfer random --protocol knn -o x MODEL.WEIGHT 1", "MODEL.WEIGHTS"),
    ],
)
def test_so_does_one_on_the_command_line(command, key, capsys):
    assert densessl.main(command.split()) == 2
    assert f"mean '{key}" in capsys.readouterr().err


WRONG = [
    "pretrain --config moco_v3",
    "pretrain --config moco_v2 SOLVER.LR 1",
    "pretrain --config moco_v2 DATA.PATH . SOLVER.EPOCHS ten",
    "pretrain --config moco_v2 DATA.PATH . SOLVER.EPOCHS 0",
    "pretrain --config moco_v2 DATA.PATH . METHOD.NAME mocco",
    "pretrain --config moco_v2 DATA.PATH . BACKBONE.NAME resnet35",
    "pretrain --config moco_v2 DATA.PATH . VIEWS.RECIPE moco",
    "pretrain --config moco_v2 DATA.PATH . VIEWS.SCALE (0,2)",
    "pretrain --config moco_v2 DATA.PATH nowhere",
    "submit pretrain --config moco_v2 DATA.PATH . AMP fp8",
    "transfer random --protocol voc_det -o x",
    "transfer random --protocol voc_det_c4 -o x --variant y",
    "transfer random --protocol voc_det_c4 -o x SOLVER.LR 1",
    "transfer random --protocol coco_mask_c4_1x -o x SOLVER.MAX_ITER many",
    "transfer random --protocol linear -o x SOLVER.EPOCHS 0",
    "transfer random --protocol linear -o x --keep-batch",
    "transfer random --protocol linear --print-config SOLVER.EPOCHS many",
    "submit transfer random --protocol voc_det_c4 -o x SOLVER.LR 1",
]
EARLY = """
import sys
import densessl
for line in sys.stdin.read().splitlines():
    code = densessl.main(line.split())
    print(code, 'torch' in sys.modules, line)
"""


def test_what_is_wrong_is_found_before_torch_is_imported(tmp_path):
    told = {"input": "\n".join(WRONG), "capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run([sys.executable, "-c", EARLY], **told)
    assert done.stdout.splitlines() == [f"2 False {line}" for line in WRONG], done.stderr
    assert list(tmp_path.iterdir()) == []
