"""In a folder with modules of our names, ours are found: in every process that works for us."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import densessl

ROOT = Path(densessl.__file__).parents[1]
NAMES = ("pretrain", "slurm", "knn", "console", "configs", "d2_transfer", "core", "probes")
OTHERS = "raise SystemExit('the user\\'s own module was imported')\n"


@pytest.fixture
def research(tmp_path, monkeypatch):
    """A working folder as people have it; it is the working folder of the test, too."""
    folder = tmp_path / "research"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(OTHERS)
    for name in ("configs", "d2_transfer"):  # these are folders, with and without __init__.py
        (folder / f"{name}.py").unlink()
        (folder / name).mkdir()
    (folder / "d2_transfer" / "__init__.py").write_text(OTHERS)
    (folder / "yaml.py").write_text(OTHERS)  # what we import is not to come from there, either
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def run(*command, **environment) -> subprocess.CompletedProcess:
    """The command in the working folder of the test; it ends well."""
    env = os.environ | {name: str(value) for name, value in environment.items()}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


MODULE = (sys.executable, "-m", "densessl")
SCRIPT = (str(Path(sys.executable).with_name("densessl")),)


@pytest.mark.parametrize("start", [MODULE, SCRIPT], ids=["module", "script"])
def test_a_verb_runs_beside_modules_of_our_names(start, research):
    assert "setsim_paper" in run(*start, "pretrain", "--list").stdout
    assert "resim/coco_2x" in run(*start, "reproduce", "--list").stdout


def test_a_verb_runs_where_the_users_modules_are_on_the_path(research):
    (research / "yaml.py").unlink()  # the user has put this folder before what is installed
    for path in (research, f":{ROOT.parent}"):
        assert "setsim_paper" in run(*MODULE, "pretrain", "--list", PYTHONPATH=path).stdout
        assert "setsim_paper" in run(*SCRIPT, "pretrain", "--list", PYTHONPATH=path).stdout


def test_our_own_checkout_is_a_working_folder_like_others(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "setsim_paper" in run(*MODULE, "pretrain", "--list").stdout


@pytest.mark.parametrize("start", [MODULE, pytest.param(SCRIPT, marks=pytest.mark.slow)])
def test_spawned_processes_find_our_modules(start, research):
    run(*start, "scenes", "drawn", "--train", 2, "--val", 2, "--size", 64, "--workers", 2)
    assert (research / "drawn" / "densessl_scenes.json").is_file()


def test_the_jobs_of_a_local_graph_find_our_modules(research):
    (research / "mine.yaml").write_text("jobs:\n- {name: listing, run: pretrain --list}\n")
    run(*MODULE, "reproduce", "mine.yaml", "--local", "-o", "run")
    assert "setsim_paper" in (research / "run" / "logs" / "listing.txt").read_text()


def test_a_job_of_a_cluster_finds_our_modules(research, tmp_path):
    """The command of the batch file, in the folder that the job runs in, as SLURM starts it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in (("sbatch", "echo Submitted batch job 7"), ("srun", ""), ("squeue", "")):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    (research / "mine.yaml").write_text("jobs:\n- {name: listing, run: pretrain --list}\n")
    run(*MODULE, "submit", "pipeline", "mine.yaml", "-o", "run", PATH=path)
    (script,) = (research / "run" / "cluster" / "submitit").glob("*submission.sh")
    (line,) = [line for line in script.read_text().splitlines() if line.startswith("srun")]
    words = shlex.split(line)
    where = dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), 0)
    where |= {"SLURM_JOB_ID": 7, "SLURM_NTASKS": 1, "SLURM_JOB_NUM_NODES": 1}
    where |= {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_NODELIST": "localhost"}
    (setup,) = [line for line in script.read_text().splitlines() if "PYTHONPATH" in line]
    command = f"{setup}\n{shlex.join(words[words.index(sys.executable) :])}"
    run("bash", "-c", command, PATH=path, **where)
    assert "setsim_paper" in (research / "run" / "logs" / "listing.txt").read_text()


def own_method(folder: Path) -> None:
    """A method of the user's own, with a neighbour, and a folder of pictures."""
    (folder / "helpers.py").write_text("NAME = 'a neighbour'\n")
    (folder / "mine.py").write_text(
        "import sys\n\nfrom helpers import NAME\n"
        "from densessl.pretrain.methods.simsiam import SimSiam\n\n\n"
        "class Mine(SimSiam):\n    def before_step(self, step):\n        import helpers\n\n"
        "        sys.stdout.write(f'{step} {helpers.NAME}\\n')\n"  # whole, among processes
    )


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_method_of_ones_own_and_its_neighbour(processes, research, tiny):
    own_method(research)
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", processes, "-m")
    cfg = tiny("mine.py:Mine", research / "run", "SOLVER.MAX_STEPS", 2, "BACKBONE.NORM", "BN")
    (research / "mine.yaml").write_text(cfg.dump())
    words = ("pretrain", "--config", "mine.yaml")
    done = run(sys.executable, "-m", *(launcher if processes > 1 else ()), "densessl", *words)
    assert done.stdout.count("1 a neighbour") == processes
    assert (research / "run" / "backbone_final.pth").is_file()


@pytest.mark.slow
def test_the_processes_of_a_transfer_find_our_modules(research):
    run(*MODULE, "scenes", "drawn", "--train", 24, "--val", 8, "--size", 64)
    words = ("random", "--protocol", "knn", "--mini", "--trials", 1, "--data", "drawn")
    run(*MODULE, "transfer", *words, "--gpus", 2, "-o", "knn")
    assert (research / "knn" / "trial_1" / "result.json").is_file()
