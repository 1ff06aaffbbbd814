"""What `pip install densessl` leaves out: named with the command that installs it, exit code 3."""

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import densessl
from densessl.core import install

RUN = f"""
import sys
from importlib.machinery import PathFinder

ABSENT = {{*{sorted(install.EXTRAS)}, "detectron2"}}
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: (
    None if name.partition(".")[0] in ABSENT else found(name, *where)
)
from densessl.core import install
install.CHECKOUT = False  # as beside a wheel
import densessl
sys.exit(densessl.main(sys.argv[1:]))
"""


def without_extras(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """The verb, run in ``folder`` where no package of an extra can be imported."""
    command = [sys.executable, "-c", RUN, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_every_extra_that_is_named_is_there():
    root = Path(__file__).parents[2]
    files = [root / "Makefile", *root.glob("*.md"), *root.glob("docs/*.md")]
    text = "\n".join(file.read_text() for file in files)
    names = re.findall(r"(?:densessl|'\.)\[([a-z,]+)\]", text)
    assert {"benchmarks", "transfer"} <= {*names}
    # Not of the metadata: what an older build left in the folder would come first.
    declared = (root / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    extras = re.findall(r"^(\w+) = \[", declared.split("\n[")[0], re.MULTILINE)
    assert {part for name in names for part in name.split(",")} <= {*extras}


def test_the_extras_are_those_of_the_project():
    named = {"hydra": "hydra-core"}
    required = [line.replace("-", "_") for line in requires("densessl")]
    for package, extra in install.EXTRAS.items():
        start, end = named.get(package, package).replace("-", "_"), f'extra == "{extra}"'
        assert any(line.startswith(start) and line.endswith(end) for line in required), package


@pytest.mark.parametrize(
    "words, lacks",
    [
        ("transfer random --protocol knn --mini -o out", "detectron2"),
        ("transfer random --protocol voc_det_c4 --mini -o out", "detectron2"),
        ("reproduce setsim/table4 --mini --dry-run -o out", "detectron2"),
        ("demo -o out", "detectron2"),
        ("plot curves . -o out.png", "matplotlib"),
    ],
)
def test_a_verb_names_what_it_lacks_and_leaves_nothing(words, lacks, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 100, "loss": 1.0}\n')
    done = without_extras(tmp_path, *words.split())
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert lacks in done.stderr and "pip install 'densessl[transfer]'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "words, code, says",
    [
        ("transfer --protocol knn --print-config", 0, "TASK: knn"),
        ("prepare voc_aug --data .", 2, "JPEGImages is not there"),
        ("table --paper setsim/table4", 0, "SetSim"),
    ],
)
def test_verbs_that_need_no_extra_do_without(words, code, says, tmp_path):
    done = without_extras(tmp_path, *words.split())
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["jinja2", "pycocotools.mask", "detectron2.layers"])
def test_an_import_that_fails_in_the_middle_is_one_message(name, capsys, monkeypatch):
    from densessl.d2_transfer import doctor

    def fail(argv):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(doctor, "main", fail)
    assert densessl.main(["doctor"]) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"densessl doctor: {name.partition('.')[0]} is not installed; fix it")


def test_another_import_that_fails_is_a_bug_and_keeps_its_traceback(monkeypatch):
    from densessl.d2_transfer import doctor

    def fail(argv):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")

    monkeypatch.setattr(doctor, "main", fail)
    with pytest.raises(ModuleNotFoundError):
        densessl.main(["doctor"])
