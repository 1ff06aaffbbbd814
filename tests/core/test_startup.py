"""What a verb does without is not imported: who asks for help or a list does not wait for torch."""

import pickle
import subprocess
import sys
import zipfile

import numpy
import pytest

from densessl.cli import VERBS
from densessl.weight_files import keys, safetensors

LIBRARIES = ("torch", "torchvision", "detectron2", "scipy", "matplotlib", "pandas", "tensorboard")
FOR_WORK = (*LIBRARIES, "pycocotools", "numpy", "PIL", "rich", "fvcore")
RUN = """
import sys
import densessl

code = None
try:
    code = densessl.main(sys.argv[1:])
except SystemExit as leaving:
    code = leaving.code
print(code, *sys.modules)
"""


def imported(*words: object, code: int = 0) -> set[str]:
    """The modules that a process has imported which ran the verb, and ended with ``code``."""
    command = [sys.executable, "-c", RUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    ended, *modules = done.stdout.splitlines()[-1].split()
    assert ended == str(code), done.stderr
    return set(modules)


def test_what_is_imported_is_seen():
    words = ("--protocol", "knn", "--print-config")
    assert {"numpy", "fvcore"} <= imported("transfer", *words)


@pytest.mark.parametrize("verb", VERBS)
def test_help_needs_no_library(verb):
    assert not imported(verb, "--help") & {*FOR_WORK}


@pytest.mark.parametrize(
    "words",
    [
        "pretrain --list",
        "transfer --list",
        "table --list-papers",
        "reproduce --list",
        "table --paper setsim/table4",
        "plot curves --help",
        "submit transfer --help",
    ],
)
def test_lists_and_tables_need_none_that_computes(words):
    assert not imported(*words.split()) & {*LIBRARIES, "numpy"}


@pytest.mark.parametrize("protocol", ["coco_mask_c4_1x", "voc_semseg", "knn", "linear_semseg"])
def test_a_protocols_config_is_printed_without_torch(protocol):
    words = ("--protocol", protocol, "--print-config", "--gpus", 2)
    assert not imported("transfer", *words) & {*LIBRARIES}


@pytest.mark.parametrize("words", [(), ("--mini",)])
@pytest.mark.parametrize("table", ["setsim/table4", "scfs/table2"])
def test_the_jobs_behind_a_table_are_shown_without_torch(table, words, tmp_path):
    assert not imported("reproduce", table, "--dry-run", "-o", tmp_path, *words) & {*LIBRARIES}


def test_a_checkpoint_of_ours_is_inspected_without_torch(tmp_path, tiny):
    from densessl.pretrain.engine.train import train

    options = ("BACKBONE.NAME", "resnet18", "SOLVER.MAX_STEPS", 1)
    train(tiny("moco", tmp_path / "run", *options))
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("*.pth")
    for file in (tmp_path / "run" / "backbone_final.pth", checkpoint):
        assert not imported("inspect", file) & {*LIBRARIES}


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth.tar", "w.safetensors", "w.pkl"])
def test_what_others_wrote_is_inspected_without_torch(name, tmp_path):
    state = keys.expected(18)
    if name == "w.pkl":  # by Detectron2's names, as its model zoo
        arrays = {keys.to_detectron2(n): numpy.ones(shape, "f4") for n, shape in state.items()}
        (tmp_path / name).write_bytes(pickle.dumps({"model": arrays}))
    else:
        import torch

        tensors = {n: torch.ones(()).expand(shape) for n, shape in state.items()}
        if name == "w.safetensors":
            whole = {n: t.contiguous() for n, t in tensors.items()}
            with open(tmp_path / name, "wb") as stream:
                safetensors.write(stream, whole, {})
        else:
            zipped = name == "zip.pth"
            torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert not imported("inspect", tmp_path / name) & {*LIBRARIES, "timm"}


def test_a_file_of_no_network_is_refused_without_timm(tmp_path):
    with open(tmp_path / "checkpoint.safetensors", "wb") as stream:
        safetensors.write(stream, {}, {})
    found = imported("inspect", tmp_path / "checkpoint.safetensors", code=2)
    assert not found & {*LIBRARIES, "timm"}


def test_a_damaged_checkpoint_is_refused_without_torch(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("c/data.pkl", pickle.dumps({}))
    (tmp_path / "cut.pth").write_bytes((tmp_path / "c.pth").read_bytes()[:-30])
    assert not imported("inspect", tmp_path / "cut.pth", code=2) & {*LIBRARIES}
