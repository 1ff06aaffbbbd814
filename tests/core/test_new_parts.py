"""The diffs of CONTRIBUTING.md for a protocol and an augmentation apply as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with both."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in ("densessl", "pretrain", "d2_transfer", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for what in ("protocol", "augmentation"):
        diff = re.search(rf"## A new {what}\n.*?```diff\n(.*?)```", TEXT, re.DOTALL)[1]
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=copy, check=True)
    return copy


def run(tree: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "densessl", *words]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def test_the_protocol_is_listed_and_has_its_config(tree):
    assert "coco_mask_c4_half" in run(tree, "transfer", "--list").stdout
    done = run(tree, "transfer", "--protocol", "coco_mask_c4_half", "--print-config")
    assert done.returncode == 0 and "MAX_ITER: 45000" in done.stdout


def test_the_augmentation_is_a_choice(tree):
    words = ["pretrain", "--config", "moco_v2", "OUTPUT_DIR", "out", "DATA.PATH", "no/images"]
    for name, at_fault in (("weak", "DATA.PATH"), ("weaker", "VIEWS.RECIPE")):
        done = run(tree, *words, "VIEWS.RECIPE", name)
        assert done.returncode == 2 and at_fault in done.stderr
