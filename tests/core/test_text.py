"""Text stays as it is written, and ``~`` is the home folder, wherever a person writes it."""

import os
from pathlib import Path

import pytest
import yaml

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.core.home import expand
from densessl.core.parser import Parser
from densessl.core.text import as_written, read_own_yaml, read_yaml
from densessl.d2_transfer.resolve import resolve
from densessl.pretrain import config
from densessl.slurm import pipeline

NAMES = ["2026_11_28", "1.10", "007", "1e5", "0x10", "on", "2026-11-28", "12:30:45", "None", "[1]"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["OUTPUT_DIR", "DATA.PATH", "DATA.CLASSES", "METHOD.NAME"])
def test_an_option_that_is_text_stays_as_it_is_written(key, name):
    assert config.flat(config.load(overrides=[key, name]))[key] == name


@pytest.mark.parametrize("name", [each for each in NAMES if each not in ("None", "[1]")])
def test_so_does_one_of_a_yaml_file_and_of_the_file_below_it(name, tmp_path):
    (tmp_path / "base.yaml").write_text(f"DATA: {{PATH: {name}}}\nSOLVER: {{EPOCHS: 1_0}}\n")
    (tmp_path / "mine.yaml").write_text(f"_BASE_: base.yaml\nOUTPUT_DIR: {name}\n")
    cfg = config.load(tmp_path / "mine.yaml")
    assert (name, name, 10) == (cfg.OUTPUT_DIR, cfg.DATA.PATH, cfg.SOLVER.EPOCHS)
    again = yaml.safe_load(cfg.dump())
    assert again["OUTPUT_DIR"] == name


def test_what_is_no_text_has_its_type_as_before():
    words = "SOLVER.BASE_LR 1e-3 SOLVER.STEPS (1,2) MOCO.SHUFFLE false AMP False RESIM.FPN_NORM ''"
    cfg = config.load(overrides=[*words.split(), "METHOD.OPTIONS.LEAST", "0.5"])
    assert cfg.SOLVER.BASE_LR == 1e-3 and cfg.SOLVER.STEPS == (1, 2)
    assert cfg.MOCO.SHUFFLE is False and cfg.AMP == "off" and cfg.RESIM.FPN_NORM == ""
    assert cfg.METHOD.OPTIONS.LEAST == 0.5
    with pytest.raises(InputError, match=r"SOLVER\.EPOCHS.*'ten'"):
        config.load(overrides=["SOLVER.EPOCHS", "ten"])


def test_the_options_of_a_protocol_do_so_too():
    words = ["DATASETS.LIST", "2026_11_28", "DATASETS.TRAIN", "1.10", "SOLVER.AMP.ENABLED", "false"]
    cfg = resolve("linear", overrides=words)
    assert (cfg.DATASETS.LIST, cfg.DATASETS.TRAIN) == ("2026_11_28", "1.10")
    assert cfg.SOLVER.AMP.ENABLED is False


def test_the_texts_of_a_pipeline_do_so_too(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "data: 2012\nrows:\n- {method: 1.10, pretrain: moco_v2, name: 2026_11_28,\n"
        "   options: {OUTPUT_DIR: 1.10, AMP: off, SOLVER.STEPS: [1, 2], MOCO.SHUFFLE: true}}\n"
        "protocols:\n- {name: knn, trials: 3, mini: yes, folder: 007}\n"
    )
    spec = pipeline.read(str(file))
    (row,), (protocol,) = spec.rows, spec.protocols
    assert (spec.data, row.method, row.name) == ("2012", "1.10", "2026_11_28")
    assert row.options["OUTPUT_DIR"] == "1.10" and row.options["AMP"] == "off"
    assert row.options["SOLVER.STEPS"] == [1, 2] and row.options["MOCO.SHUFFLE"] is True
    assert (protocol.trials, protocol.mini, protocol.folder) == (3, True, "007")


def test_only_the_values_that_are_text_are_quoted():
    text = "a: &one 1.10\nb: {c: 1.10, <<: {d: 007}}\nc: [1.10, x]\nn: null\n"
    read = yaml.safe_load(as_written(text, lambda keys, _: keys[-1] in ("c", "d", "n")))
    assert read == {"a": 1.1, "b": {"c": "1.10", "d": "007"}, "c": ["1.10", "x"], "n": None}
    assert yaml.safe_load(as_written("# nothing\n", lambda *_: True)) is None


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder_is_found_where_a_shell_finds_it(home):
    assert expand("~") == str(home) and expand("~/a") == f"{home}/a"
    assert expand("NAME=~/a") == f"NAME={home}/a" and expand("~/a:~/b") == f"{home}/a:{home}/b"
    assert expand("supervised:~/w.pth") == f"supervised:{home}/w.pth"
    for text in ("a~/b", "a/~", "a ~/b", "~nobody_at_all/x", "file~"):
        assert expand(text) == text


def test_every_verb_and_every_path_option_knows_the_home_folder(home, tmp_path):
    parser = Parser(prog="x")
    parser.add_argument("--data")
    parser.add_argument("-o", type=Path)
    parser.add_argument("words", nargs="*")
    args = parser.parse_intermixed_args(["~/w", "--data=~/sets", "K=~/v", "-o", "~/out"])
    assert (args.data, args.o) == (f"{home}/sets", home / "out")
    assert args.words == [f"{home}/w", f"K={home}/v"]
    (tmp_path / "mine.yaml").write_text(
        "OUTPUT_DIR: ~/run\nDATA: {PATH: '~/a:~/b', ANNOTATIONS: ~/c.json}\nKNN: {TRAIN: ~/t}\n"
        "BACKBONE: {WEIGHTS: ~/w.pth}\n"
    )
    cfg = config.load(tmp_path / "mine.yaml", ["KNN.VAL", "~/v"])
    assert f"{home}/run" == cfg.OUTPUT_DIR and f"{home}/a{os.pathsep}{home}/b" == cfg.DATA.PATH
    assert f"{home}/c.json" == cfg.DATA.ANNOTATIONS and f"{home}/w.pth" == cfg.BACKBONE.WEIGHTS
    assert (f"{home}/t", f"{home}/v") == (cfg.KNN.TRAIN, cfg.KNN.VAL)


def test_files_of_ours_are_read_the_same_by_libyaml():
    files = [*FOLDER.rglob("*.yaml")]
    assert len(files) > 100
    for file in files:
        assert repr(read_own_yaml(file)) == repr(read_yaml(file))
