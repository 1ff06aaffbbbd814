"""Options: what a value may be, for all that declare some, and what is said of one that may not."""

import re
from dataclasses import dataclass, field

import pytest
import yaml

import densessl
from densessl.core import options
from densessl.core.errors import InputError
from densessl.d2_transfer.resolve import resolve
from densessl.pretrain import config
from densessl.slurm import pipeline, settings

DECLARED = options.declared(
    {
        "A.EPOCHS": (10, ">= 1, <= 100"),
        "A.RATE": (0.1, "> 0"),
        "A.SHARE": (0.5, ">= 0, < 1"),
        "A.STEPS": ((3, 5), "> 0, whole, rising"),
        "A.GRID": ((), "> 0"),
        "B.KIND": ("sgd", ("sgd", "lars")),
        "B.AMP": ("off", ("off", "fp16")),
        "B.FOLDER": ("", "path, kept"),
        "B.ON": False,
        "TITLE": "",
    }
)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("A.EPOCHS", "007", 7),
        ("A.RATE", "1e-3", 1e-3),
        ("A.RATE", "2", 2.0),
        ("A.RATE", 2, 2.0),
        ("A.STEPS", "(1, 2)", (1, 2)),
        ("A.STEPS", [1, 2], (1, 2)),
        ("A.GRID", "[]", ()),
        ("B.AMP", False, "off"),
        ("B.AMP", "False", "off"),
        ("B.ON", "yes", True),
        ("TITLE", "007", "007"),
        ("TITLE", 7, "7"),
        ("TITLE", "(1, 2)", "(1, 2)"),
    ],
)
def test_a_word_and_what_yaml_makes_of_it_become_the_options_type(name, given, value):
    made = DECLARED[name].typed(given, name)
    assert made == value and type(made) is type(value)
    DECLARED[name].check(made, name)


def test_a_path_knows_the_home_folder_and_marks_are_for_their_readers(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert DECLARED["B.FOLDER"].typed("~/a", "B.FOLDER") == "/home/me/a"
    assert DECLARED["TITLE"].typed("~/a", "TITLE") == "~/a"
    assert [name for name, each in DECLARED.items() if "kept" in each.words] == ["B.FOLDER"]


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("A.EPOCHS", "many", "whole number.*at least 1 and at most 100.*10"),
        ("A.EPOCHS", "1.5", "whole number"),
        ("A.EPOCHS", True, "whole number"),
        ("A.EPOCHS", 0, "at least 1 and at most 100"),
        ("A.RATE", "nan", "number"),
        ("A.RATE", "inf", "number"),
        ("A.RATE", 0, "above 0"),
        ("A.SHARE", 1, "below 1"),
        ("A.STEPS", "5", "list"),
        ("A.STEPS", (5, 3), "rising whole numbers, above 0"),
        ("A.STEPS", (3, 3), "rising"),
        ("A.STEPS", (1.5, 3), "whole"),
        ("A.STEPS", (1, "a"), "whole"),
        ("A.GRID", (1, -1), "each must be above 0"),
        ("B.KIND", "lar", "mean 'lars'.*lars, sgd"),
        ("B.ON", "2", "true or false"),
        ("TITLE", [1], "text"),
        ("TITLE", None, "text"),
    ],
)
def test_what_an_option_may_not_be_names_it_the_value_and_what_is_allowed(name, given, allowed):
    pattern = f"(?s)(?=.*{re.escape(name)} )(?=.*{re.escape(str(given))}).*{allowed}"
    with pytest.raises(InputError, match=pattern):
        DECLARED[name].check(DECLARED[name].typed(given, name, "the file"), name, "the file")


@dataclass
class Made:
    name: str
    time: None | int = None
    parts: tuple[str, ...] = ()
    more: dict = field(default_factory=dict)
    folder: None | str = None


def test_a_class_declares_by_its_fields():
    known = options.of_class(Made, time=">= 1")
    assert options.read({"time": "3", "parts": ["a"]}, known, "x") == {"time": 3, "parts": ("a",)}
    assert options.read({"time": ""}, known, "x") == {"time": None}
    assert options.read({"folder": ""}, known, "x") == {"folder": ""}  # no text is a text, too
    for wrong in ({"tim": 3}, {"time": 0}, {"parts": "a"}, {"more": 3}, {"time": "a"}):
        (key,) = wrong
        with pytest.raises(InputError, match=f"{key}.* in the file"):
            options.read(wrong, known, "the file")


def test_dotted_names_and_groups_are_each_others_inverse():
    values = {name: each.default for name, each in DECLARED.items()}
    assert options.flat(options.nested(values)) == values
    options.check(options.nested(values), DECLARED)


def of_pipeline(key, value, tmp_path):
    row = {"method": "a", "start": "random", key: value}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"rows": [row], "protocols": [{"name": "knn"}]}))
    pipeline.read(str(file))


def of_cluster(key, value, tmp_path):
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump({key: value}))
    settings.load(file=tmp_path / "slurm.yaml")


WHERE = {
    "pretraining": (
        lambda key, value, _: config.check(config.load("", ["DATA.PATH", "x", key, value])),
        ("SOLVER.EPOCHS", "DATA.WORKERS", "AMP", "bf61", "bf16"),
    ),
    "classification": (
        lambda key, value, _: resolve("linear", overrides=[key, value]),
        ("SOLVER.EPOCHS", "DATALOADER.NUM_WORKERS", "SOLVER.SCHEDULE", "setp", "step"),
    ),
    "probes": (
        lambda key, value, _: resolve("knn_semseg", overrides=[key, value]),
        ("KNN.K", "DATALOADER.NUM_WORKERS", "INPUT.INTERPOLATION", "bicubc", "bicubic"),
    ),
    "pipeline": (of_pipeline, ("trials", "", "start", "randon", "random")),
    "slurm.yaml": (of_cluster, ("cpus_per_gpu", "cpus_per_gpu", "gpu_request", "gre", "gres")),
}


@pytest.mark.parametrize("what", WHERE)
def test_every_language_of_options_says_the_same_of_the_same_mistake(what, tmp_path):
    give, (number, counted, choice, wrong, right) = WHERE[what]
    with pytest.raises(InputError, match=f"{number}.*'many'.*whole number|{number}.*number"):
        give(number, "many", tmp_path)
    with pytest.raises(InputError, match=f"'{wrong}' in {choice}.*mean '{right}'.*Allowed"):
        give(choice, wrong, tmp_path)
    with pytest.raises(InputError, match=f"mean '{number}'"):
        give(number[:-1], "1", tmp_path)
    if counted:
        with pytest.raises(InputError, match=f"{counted}.* -1; it must be at least"):
            give(counted, "-1", tmp_path)


@pytest.mark.parametrize("protocol", ["knn", "linear_semseg", "finetune_cls"])
def test_keep_batch_is_refused_alike_where_nothing_is_scaled(protocol, tmp_path, capsys):
    words = ["random", "--protocol", protocol, "--keep-batch", "-o", str(tmp_path / "out")]
    said = set()
    for verb in (["transfer"], ["transfer", "--print-config"], ["submit", "transfer"]):
        assert densessl.main([*verb, *words]) == 2
        said.add(capsys.readouterr().err.partition(": ")[2])
    (message,) = said
    assert "--keep-batch" in message and protocol in message
    assert not (tmp_path / "out").exists()


def test_a_whole_number_is_a_number_to_detectron2_too():
    cfg = resolve("voc_det_c4", overrides=["SOLVER.BASE_LR", "1"])
    assert cfg.SOLVER.BASE_LR == 1.0 and isinstance(cfg.SOLVER.BASE_LR, float)
