"""What several test folders share: a few small pictures, and a run small enough for a test."""

import json
import logging
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's command in the background ignores Ctrl-C, and so would what the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


SMALL = Path(__file__).parents[1] / "benchmarks" / "small_backbone.py"
LONGEST = "slurm/test_demo"  # six minutes of one process, for one fixture
LONG = ("slurm", "docs", "d2_transfer/test_learn", "pretrain/test_methods_runs")
SHORT = "faults/test_fuzz"


def pytest_collection_modifyitems(items):
    """Long tests come first and many short ones last: processes that share them end together."""

    def order(item):
        if f"tests/{LONGEST}" in item.nodeid:
            return 0
        if f"tests/{SHORT}" in item.nodeid:
            return 3
        return 1 if any(f"tests/{name}" in item.nodeid for name in LONG) else 2

    items.sort(key=order)


@pytest.fixture(autouse=True)
def log_of_its_own():
    """No test logs into the folder of the one before, which may be gone."""
    yield
    logger = logging.getLogger("densessl")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


@pytest.fixture
def largest_tensor():
    """A context whose ``bytes`` is the size of the largest tensor that an operation made in it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for each in tree_leaves(out):
                if isinstance(each, torch.Tensor):
                    self.bytes = max(self.bytes, each.numel() * each.element_size())
            return out

    return Largest


@pytest.fixture
def disk_of(tmp_path):
    """``disk_of("400k")``: a folder on a disk of that size; called again, the disk has another.

    One that shrinks to what is written on it is full.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def disk(size):
        options = f"size={size}" if not folder.is_mount() else f"remount,size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can make a small disk")
        return folder

    disk.folder = folder
    yield disk
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(disk_of):
    """A folder on a disk of 400 kB."""
    return disk_of("400k")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of 24 small JPEG files, each another smooth pattern of colours."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for n in range(24):
        generator = np.random.default_rng(n)
        coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((72 + n, 60), Image.Resampling.BICUBIC)
        picture.save(folder / f"{n:02d}.jpg", quality=90)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A ResNet-18's weights under torchvision's names, without training."""
    import torch

    from densessl.pretrain.backbones import build_backbone

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        state = build_backbone("resnet18", norm="BN").state_dict()
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def tiny(pictures, tmp_path_factory):
    """``tiny("moco", folder, "KEY", value, …)``: the options of a run of 9 steps on the pictures.

    ``folder`` None takes a new one. Each change of one thread for two would change the order of
    sums, and two threads on busy cores are slower than one: one it is.
    """
    import torch

    from densessl.pretrain import config

    torch.set_num_threads(1)

    def make(method, folder=None, *overrides):
        options = {
            "OUTPUT_DIR": str(folder or tmp_path_factory.mktemp("run") / "run"),
            "METHOD.NAME": method,
            "DATA.PATH": str(pictures),
            "DATA.WORKERS": 0,
            "VIEWS.SIZE": 64 if method == "setsim" else 32,
            "BACKBONE.NAME": f"{SMALL}:Small",
            "BACKBONE.GROUP_SIZE": 4,
            "MOCO.DIM": 16,
            "MOCO.HIDDEN": 16,
            "MOCO.QUEUE": 64,
            "DENSE.DIM": 16,
            "DENSE.HIDDEN": 16,
            "SOLVER.BATCH_SIZE": 8,
            "SOLVER.REFERENCE_BATCH": 8,
            "SOLVER.EPOCHS": 3,
            "CHECKPOINT.STEPS": 4,
            "LOG.PERIOD": 2,
            "DEVICE": "cpu",
        }
        options |= dict(zip(overrides[::2], overrides[1::2], strict=True))
        return config.load(overrides=[str(part) for pair in options.items() for part in pair])

    return make


@pytest.fixture(scope="session")
def draw_scenes(tmp_path_factory):
    """``draw_scenes("--train", "8")``: a new folder of small scenes, in the layouts of VOC,
    COCO and the others; the words are those of the verb."""
    from densessl.pretrain.scenes import main as scenes_verb

    def draw(*words):
        folder = tmp_path_factory.mktemp("scenes") / "data"
        options = ["--size", "64", "--seed", "3", "--workers", "1"]
        assert not scenes_verb.main([str(folder), *options, *words])
        return folder

    return draw


@pytest.fixture(scope="session")
def different():
    """``different(one, other)``: the places where two nested values differ, tensors bit for bit."""
    import torch

    def places(one, other, at="") -> list[str]:
        if type(one) is not type(other):
            return [at]
        if isinstance(one, dict):
            if one.keys() != other.keys():
                return [at]
            return [place for key in one for place in places(one[key], other[key], f"{at}/{key}")]
        if isinstance(one, list | tuple):
            if len(one) != len(other):
                return [at]
            pairs = enumerate(zip(one, other, strict=True))
            return [place for n, (a, b) in pairs for place in places(a, b, f"{at}/{n}")]
        if isinstance(one, torch.Tensor):
            same = one.dtype == other.dtype and one.shape == other.shape
            return [] if same and torch.equal(one, other) else [at]
        return [] if one == other else [at]

    return places


@pytest.fixture(scope="session")
def check_same_run(different):
    """Check that two run folders hold the same run, bit for bit but for what tells the time."""
    from densessl.pretrain.engine.checkpoint import Checkpoints
    from densessl.pretrain.engine.logs import TIME_FIELDS

    def read(folder):
        _, state = Checkpoints(Path(folder) / "checkpoints").newest()
        state["logs"].pop("seconds")
        state.pop("config")  # its folder and number of workers may differ
        text = (Path(folder) / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            for field in TIME_FIELDS:
                line.pop(field, None)
        return {"state": state, "lines": lines}

    def check(folder, expected_folder):
        found, expected = read(folder), read(expected_folder)
        assert expected["lines"] and found["lines"] == expected["lines"]
        assert different(found["state"], expected["state"]) == []

    return check
