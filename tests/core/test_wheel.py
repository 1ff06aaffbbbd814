"""The wheel as users install it: one name to import, and none of their modules runs for ours."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import densessl

pytest.importorskip("pip", reason="pip builds the wheel")
ROOT = Path(densessl.__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="these tests build the checkout"
)
ROOMS = ("pretrain", "d2_transfer", "slurm", "configs")
KINDS = {".py", ".yaml", ".csv", ".j2", ".json", ".txt", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of a copy: building writes beside the sources."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "densessl", *ROOMS):
        subprocess.run(["cp", "-r", ROOT / name, copy / name], check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "-w", out, copy], check=True)
    (built,) = out.glob("densessl-*.whl")
    return built


def environment(folder: Path) -> Path:
    """The programs of a new environment with the dependencies, but no DenseSSL, in it."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # a path in a .pth file: packages are found there, but not what is installed as editable
    (site / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel in it."""
    folder = environment(tmp_path_factory.mktemp("environment")).parent
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return folder / "bin"


@pytest.fixture
def research(tmp_path, monkeypatch) -> Path:
    """A folder as researchers have it, with modules that end the process if they are imported."""
    for name in ("pretrain", "slurm", "knn", "console", "d2_transfer", "configs/__init__"):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise SystemExit('the user\\'s own module was imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def run(*command) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_one_top_level_name_and_every_file(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"densessl"}
    files = [(ROOT / "densessl", file) for file in (ROOT / "densessl").rglob("*")]
    files += [(ROOT, file) for room in ROOMS for file in (ROOT / room).rglob("*")]
    here = {f"densessl/{file.relative_to(base)}" for base, file in files if file.suffix in KINDS}
    assert here == {name for name in names if name.startswith("densessl/")}


def test_its_metadata(installed, research):
    code = "import importlib.metadata, densessl; print(importlib.metadata.version('densessl'))"
    shown = run(installed / "python", "-c", f"{code}; print(densessl.__file__)")
    version, file = shown.splitlines()
    assert version == densessl.__version__
    assert Path(file).is_relative_to(installed.parent)
    assert run(installed / "densessl", "--version") == f"densessl {version}\n"


def test_the_command_and_the_module_beside_a_users_own_modules(installed, research):
    assert "setsim_paper" in run(installed / "densessl", "pretrain", "--list")
    assert "setsim_paper" in run(installed / "python", "-m", "densessl", "pretrain", "--list")


@pytest.mark.slow
def test_torchrun_and_a_local_pipeline_beside_a_users_own_modules(installed, research, tiny):
    cfg = tiny("simsiam", research / "run", "SOLVER.MAX_STEPS", 2, "BACKBONE.NORM", "BN")
    (research / "mine.yaml").write_text(cfg.dump())
    torchrun = (installed / "python", "-m", "torch.distributed.run", "--standalone")
    words = ("-m", "densessl", "pretrain", "--config", "mine.yaml")
    run(*torchrun, "--nproc_per_node", 2, *words)
    assert (research / "run" / "backbone_final.pth").is_file()
    (research / "jobs.yaml").write_text("jobs:\n- {name: listing, run: pretrain --list}\n")
    run(installed / "densessl", "reproduce", "jobs.yaml", "--local", "-o", "graph")
    assert "setsim_paper" in (research / "graph" / "logs" / "listing.txt").read_text()


def test_a_clone_that_is_not_installed(research, monkeypatch):
    """The folder densessl finds the rooms beside it."""
    python = environment(research / "environment") / "python"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert "setsim_paper" in run(python, "-m", "densessl", "pretrain", "--list")
