"""The diff of CONTRIBUTING.md, "A new method", as it stands there: it applies, and trains."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
DIFF = re.search(r"## A new method\n.*?```diff\n(.*?)```", TEXT, re.DOTALL)[1]
OPTIONS = ["SOLVER.MAX_STEPS", "2", "LOG.PERIOD", "1", "DEVICE", "cpu", "DATA.WORKERS", "0"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with the new method."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in ("densessl", "pretrain", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-"], input=DIFF, text=True, cwd=copy, check=True)
    return copy


def pretrain(tree: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "densessl", "pretrain", *words]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def test_its_config_is_listed_and_its_options_are_checked_with_the_others(tree):
    assert "mutual nearest neighbours" in " ".join(pretrain(tree, "--list").stdout.split())
    words = ("--config", "mutual", "DATA.PATH", ".", "MUTUAL.LEAST", "2")
    refused = pretrain(tree, *words)
    assert refused.returncode == 2 and "MUTUAL.LEAST" in refused.stderr
    refused = pretrain(tree, *words[:-2], "MUTUAL.LESS", "0")
    assert refused.returncode == 2 and "MUTUAL.LEAST" in refused.stderr  # the nearest


@pytest.mark.slow
def test_it_trains_two_steps_by_its_own_option(tree, pictures):
    found = []
    for least in ("0", "0.99999"):
        out = tree / f"out{least}"
        words = [*OPTIONS, "DATA.PATH", str(pictures), "OUTPUT_DIR", str(out)]
        done = pretrain(tree, "--config", "mutual_scenes", *words, "MUTUAL.LEAST", least)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == 2 and (out / "backbone_final.pth").is_file()
        found.append(lines[0])
    assert found[0]["stat/positives_per_query"] == 1  # mutual neighbours are one to one
    assert found[1]["stat/queries"] < found[0]["stat/queries"]
