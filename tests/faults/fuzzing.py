"""Command lines, configs and damaged files by seed, out of commands and files that are right."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import densessl

WORDS = (  # what no option means, and what a shell leaves of a variable that is not set
    *("", " ", "-", "--", "-x", "-1", "0", "1e400", "nan", "-inf", "0x10", "1_000", "2.5", "None"),
    *(
        "true",
        "9" * 30,
        "-" + "9" * 30,
        "9" * 18,
        "4294967296",
        "9" * 5000,
        "a" * 300,
        "a/" * 3000,
        "..",
        "/",
        "/dev/null",
    ),
    *("%s%n", "{}", "[", "(1,", "[1, 2]", "'", '"', "a=b", "=", "~nobody/x", "a\nb", "a\tb", "ü ß"),
    *("\x1b[31mred\x1b[0m", "\udcff", "\u2028", "*", "$HOME", "; true", "a:b", ":", "file.py:Name"),
)
VALUES = (  # what a file may hold where something else should stand
    *(None, True, -1, 0, 10**30, -(10**30), 1e308, float("nan"), float("inf"), 2.5),
    *(
        "",
        "a" * 300,
        "../x",
        "\0",
        "\x1b[31m",
        "a\nb",
        "ü",
        "1",
        "-",
        [],
        {},
        [[]],
        [None],
        [1, "a"],
    ),
    *({"a": 1}, {"": {}}, [{"a": []}]),
)
# Five convolutions in place of a ResNet: its checkpoints have some KiB.
BACKBONE = """
from torch import nn
class Small(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.channels = {"layer4": 8}
        self.step = nn.Sequential(nn.Conv2d(3, 8, 3, 16), norm(8), nn.ReLU())
    def forward(self, images):
        return {"layer4": self.step(images)}
"""


@dataclass
class Case:
    """A command; ``damaged``: the file that a refusal must name, it or a folder above it."""

    words: list[str]
    damaged: Path | None = None


# ------------------------------------------------------------------------------------ damage


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """The bytes of a file after an accident."""
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:  # near an end, where what tells of the rest stands
        at = min(at, 200) if rng.random() < 0.5 else max(len(data) - 200, 0)
    text = data.decode("latin-1")
    return rng.choice(
        (
            lambda: _flipped(rng, data),
            lambda: data[:at],
            lambda: data[:at] + data[at + rng.randrange(1, 40) :],
            lambda: data[:at] + bytes(rng.randrange(256) for _ in range(8)) + data[at:],
            lambda: (
                data[:at]
                + rng.choice((b"\0", b"\x1b[31m", b"\r", b"\xff\xfe", b"\n\n"))
                + data[at:]
            ),
            lambda: data[:at] + b"9" * rng.choice((30, 5000)) + data[at:],
            lambda: data[:at] + b"[" * 3000 + data[at:],
            lambda: data + data,
            lambda: b"",
            lambda: b"\0" * len(data),
            lambda: b"<!DOCTYPE html><html><body>404</body></html>",
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            lambda: rng.randbytes(300),
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-32"),
            lambda: b"a: &a [*a]\n",
        )
    )()


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 10))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def damaged_value(rng: random.Random, value: Any) -> Any:
    """Nested values with one of them changed, gone, or under another name."""
    inside = isinstance(value, dict | list | tuple) and len(value) > 0
    if not inside or rng.random() < 0.12:
        return rng.choice(VALUES)
    keys = sorted(value, key=str) if isinstance(value, dict) else range(len(value))
    key = rng.choice(list(keys))
    changed = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.15:
        held = changed.pop(key)
        if isinstance(changed, dict) and rng.random() < 0.5:
            changed[rng.choice(("", "x", "__class__", f"{key}\n"))] = held
    else:
        changed[key] = damaged_value(rng, changed[key])
    return tuple(changed) if isinstance(value, tuple) else changed


def damage(rng: random.Random, file: Path) -> Path:
    """Damage a file, as bytes or by what it holds."""
    if rng.random() < 0.5:
        file.write_bytes(damaged_bytes(rng, file.read_bytes()))
    elif file.suffix == ".json":
        file.write_text(json.dumps(damaged_value(rng, json.loads(file.read_text()))))
    elif file.suffix == ".jsonl":
        lines = file.read_text().splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(damaged_value(rng, json.loads(lines[at])))
        file.write_text("\n".join(lines) + "\n")
    elif file.suffix in (".yaml", ".yml"):
        value = damaged_value(rng, yaml.safe_load(file.read_text()))
        file.write_text(yaml.safe_dump(value, allow_unicode=True))
    elif file.suffix in (".pth", ".pt"):
        _damage_tensors(rng, file)
    else:
        file.write_bytes(damaged_bytes(rng, file.read_bytes()))
    return file


def _damage_tensors(rng: random.Random, file: Path) -> None:
    import torch

    from densessl.core.checkpoint import sidecar
    from densessl.core.files import sha256

    held = torch.load(file, weights_only=True)
    foreign = (
        3,
        [held],
        {"model": 1},
        torch.zeros(3),
        {"state_dict": {"a": torch.zeros(1)}},
        Case([]),
    )
    torch.save(rng.choice(foreign) if rng.random() < 0.3 else damaged_value(rng, held), file)
    if sidecar(file).exists():
        sidecar(file).write_text(f"{sha256(file)}  {file.name}\n")


# --------------------------------------------------------------------------- what is damaged


def prepare(root: Path) -> None:
    """Make one of everything, by the commands that make it."""
    pictures(root / "pictures", 12)
    for kind in ("a", "b"):
        pictures(root / "classes" / "train" / kind, 2)
        pictures(root / "classes" / "val" / kind, 1)
    (root / "small.py").write_text(BACKBONE)
    run(
        "scenes", root / "scenes", *["--train", "6", "--val", "2", "--size", "64", "--workers", "1"]
    )
    run("pretrain", "--config", "moco_v2", *pretraining(root, root / "run"), "SOLVER.MAX_STEPS", 3)
    (root / "own").mkdir()
    for split in ("train", "val"):
        for number in range(3):
            for kind, shape in (("images", (32, 48, 3)), ("masks", (32, 48))):
                pixels = np.random.default_rng(number).integers(0, 3, shape, dtype=np.uint8)
                file = root / "own" / f"{split}_{kind}" / f"{number}.png"
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(pixels).save(file)
    _weights(root)
    run(*transfer(root, root / "trial"))
    run("reproduce", pipeline(root), "-o", root / "graph", "--local", "--dry-run")
    _graph(root)


def cluster(folder: Path, patch) -> None:
    """SLURM's commands of a cluster on which nothing is queued, first in the PATH."""
    folder.mkdir()
    for name in ("squeue", "scancel", "sbatch", "scontrol", "sacct"):
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    patch.setenv("PATH", str(folder), prepend=os.pathsep)


def run(*words: Any) -> None:
    assert densessl.main([str(word) for word in words]) == 0, words


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.jpg")


def pretraining(root: Path, folder: Path) -> list[str]:
    options = {
        "OUTPUT_DIR": folder,
        "DATA.PATH": root / "pictures",
        "DATA.WORKERS": 0,
        "VIEWS.SIZE": 32,
        "BACKBONE.NAME": f"{root}/small.py:Small",
        "MOCO.DIM": 4,
        "MOCO.HIDDEN": 4,
        "MOCO.QUEUE": 8,
        "SOLVER.BATCH_SIZE": 4,
        "SOLVER.WARMUP_EPOCHS": 0,
        "CHECKPOINT.STEPS": 1,
        "CHECKPOINT.KEEP": 3,
        "LOG.PERIOD": 1,
        "DEVICE": "cpu",
    }
    return [str(word) for pair in options.items() for word in pair]


def transfer(root: Path, folder: Path) -> list[str]:
    names = ("train_images", "train_masks", "val_images", "val_masks")
    data = [
        word for name in names for word in (f"--{name.replace('_', '-')}", str(root / "own" / name))
    ]
    words = "transfer random --protocol custom_semseg --mini --trials 1 MODEL.BACKBONE resnet18"
    return [*words.split(), "INPUT.SIZE", "(32, 32)", *data, "-o", str(folder)]


def pipeline(root: Path) -> Path:
    file = root / "pipeline.yaml"
    file.write_text(
        "description: two rows\ndata: pictures\nrows:\n  - {method: Random, start: random}\n"
        "  - {method: MoCo-v2, pretrain: moco_v2_r50_in100_200ep, options: {SOLVER.EPOCHS: 2}}\n"
        "protocols:\n  - {name: voc_det_c4, trials: 2}\n"
    )
    (root / "slurm.yaml").write_text(
        "partition: gpu\ntime: 24:00:00\nsetup: [source env.sh]\nmodules: [cuda]\n"
        "pretrain: {time: 2-00:00:00, gpus: 4}\nextra: {mail-type: END}\n"
    )
    return file


def _weights(root: Path) -> None:
    import torch
    from torchvision.models import resnet18

    torch.manual_seed(0)
    state = resnet18().state_dict()
    torch.save(state, root / "torchvision.pth")
    run("convert", root / "torchvision.pth", "-o", root / "weights.pkl")
    run("convert", root / "torchvision.pth", "-o", root / "weights.safetensors")


def _graph(root: Path) -> None:
    from densessl.slurm import state
    from densessl.slurm.graph import Job

    folder = root / "graph"
    jobs = [Job("a", ("doctor",), outputs=(folder / "x",)), Job("b", ("doctor",), ("a",))]
    state.write_graph(folder, jobs, {})
    state.write_state(folder, "a", state.State("failed", "12", "node", state.now(), state.now()))
    state.write_submission(folder, "b", state.Submission("13", state.now()))


# ------------------------------------------------------------------------------------- cases

Scenario = Callable[[random.Random, Path, Path], Case]
SCENARIOS: list[Scenario] = []


def scenario(times: int) -> Callable[[Scenario], Scenario]:
    """Of each round of cases so many are of this kind."""

    def add(function: Scenario) -> Scenario:
        SCENARIOS.extend([function] * times)
        return function

    return add


def case(seed: int, root: Path, here: Path) -> Case:
    """The case of a seed; ``root``: of :func:`prepare`, ``here``: an empty folder for it."""
    return SCENARIOS[seed % len(SCENARIOS)](random.Random(seed), root, here)


def copied(root: Path, here: Path, name: str) -> Path:
    """A copy of a file or folder of ``root`` that may be damaged."""
    copy = shutil.copytree if (root / name).is_dir() else shutil.copy
    copy(root / name, here / name)
    return here / name


@scenario(10)
def command_line(rng, root, here):
    """Words of a right command replaced, left out, doubled, exchanged."""
    words, ending = rng.choice(commands(root, here))
    words = [str(word) for word in words]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(1, len(words)) if len(words) > 1 else 0
        rng.choice(
            (
                lambda at=at: words.__setitem__(at, rng.choice(WORDS)),
                lambda at=at: words.insert(at, rng.choice(WORDS)),
                lambda at=at: words.__setitem__(at, _misspelt(rng, words[at])),
                lambda at=at: words.insert(at, words[at]),
                lambda at=at: words.append(words.pop(at)),
                lambda at=at: words.pop(at) if len(words) > 1 else None,
            )
        )()
    return Case([*words, *ending])


def _misspelt(rng: random.Random, word: str) -> str:
    at = rng.randrange(len(word) + 1)
    return word[:at] + rng.choice("xX-_=.9 ") + word[at + 1 :]


def commands(root: Path, here: Path) -> list[tuple[list, list]]:
    """Right commands, and the words that end each before it trains."""
    dry, out = ["--dry-run"], here / "out"
    protocol = ["transfer", "random", "--protocol"]
    own = transfer(root, out)
    return [
        (["pretrain", "--config", "moco_v2", "SOLVER.EPOCHS", "3"], ["--print-config"]),
        (["pretrain", "--config", "setsim_scenes", "--change", "SEED", "3"], ["--print-config"]),
        (["pretrain", "--config", "moco_v2", *pretraining(root, out)], ["SOLVER.MAX_STEPS", "1"]),
        (["convert", root / "torchvision.pth", "-o", out / "w.pkl", "--mean", "1", "2", "3"], []),
        (["inspect", root / "weights.pkl", "--from", "auto"], []),
        ([*protocol, "voc_det_c4", "--mini", "SOLVER.BASE_LR", "0.1"], ["--print-config"]),
        ([*protocol, "coco_mask_fpn_1x", "--variant", "moco2fc"], ["--print-config"]),
        ([*protocol, "knn", "--data", root / "classes", "--seed", "2"], ["--print-config"]),
        (own, ["--print-config"]),
        (["prepare", "ade20k", "--data", root / "scenes", "--workers", "1"], []),
        (["table", root / "trial", "--format", "csv", "--metric", "sem_seg/mIoU"], []),
        (["table", "--paper", "setsim/table4", "--label", "a=b"], []),
        (["compare", root / "trial", root / "trial", "--metric", "sem_seg/mIoU"], []),
        (["plot", "curves", root / "run", "--metric", "loss", "-o", out / "a.svg"], []),
        (["report", root / "run", root / "trial", "-o", out / "a.html", "--title", "x"], []),
        (["audit", root / "pictures", "--workers", "1", "-o", out / "a.json"], []),
        (["advise", root / "pictures", "--gpus", "2", "--time", "2"], ["--no-trial"]),
        (["scenes", out, "--train", "2", "--val", "1", "--size", "32"], ["--workers", "1"]),
        (
            ["show", root / "run" / "backbone_final.pth", root / "pictures", "-o", out],
            ["--limit", "1"],
        ),
        (
            ["submit", "pretrain", "--config", "moco_v2", *pretraining(root, out), "--gpus", "2"],
            dry,
        ),
        (
            ["submit", "transfer", "random", "--protocol", "voc_det_c4", "-o", out, "--time", "1"],
            dry,
        ),
        (["submit", "pipeline", root / "pipeline.yaml", "-o", out, "--nodes", "2"], dry),
        (["submit", "retry", root / "graph"], dry),
        (["reproduce", "setsim/table4", "-o", out, "--trials", "2", "--local"], dry),
        (["reproduce", root / "pipeline.yaml", "--data", root, "--mini", "--seeds", "2"], dry),
        (["study", "--images", root / "pictures", *study(root), "-o", out], [*dry, "--no-trial"]),
        (["status", root / "graph", "--json"], []),
        (["cancel", here], []),
    ]


def study(root: Path) -> list[str]:
    own = root / "own"
    train, val = (f"{own}/{split}_images:{own}/{split}_masks" for split in ("train", "val"))
    return ["--train", train, "--val", val, "--task", "semseg", "--local", "--budget", "1h"]


@scenario(6)
def options(rng, root, here):
    """An option of a pretraining at any value, in a config that is else right."""
    from densessl.pretrain import config

    keys = sorted(config.flat(config.defaults()))
    name = rng.choice(sorted(config.built_in()))
    words = [word for _ in range(rng.choice((1, 1, 2))) for word in (rng.choice(keys), _value(rng))]
    if rng.random() < 0.3:
        end = ["SOLVER.MAX_STEPS", "1", "SOLVER.BATCH_SIZE", "4"]
        return Case(
            ["pretrain", "--config", "moco_v2", *pretraining(root, here / "o"), *words, *end]
        )
    return Case(["pretrain", "--config", name, *words, "--print-config"])


@scenario(3)
def options_of_detectors(rng, root, here):
    """The same of a fine-tuning, of Detectron2's options and our own."""
    from densessl.d2_transfer import protocols, resolve

    name = rng.choice(sorted(protocols.PROTOCOLS))
    if name.startswith("custom"):
        name = "voc_det_c4"
    keys = sorted(_flat(resolve.resolve(name, None, 1, mini=True)))
    words = [word for _ in range(rng.choice((1, 1, 2))) for word in (rng.choice(keys), _value(rng))]
    return Case(["transfer", "random", "--protocol", name, *words, "--print-config"])


def _flat(node: dict, prefix: str = "") -> list[str]:
    return [
        name
        for key, value in node.items()
        for name in (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
        )
    ]


def _value(rng: random.Random) -> str:
    return rng.choice((*WORDS, *map(str, VALUES)))


@scenario(4)
def config_file(rng, root, here):
    """A config of a pretraining, damaged."""
    file = here / "config.yaml"
    shutil.copy(root / "run" / "config.yaml", file)
    return Case(["pretrain", "--config", str(damage(rng, file)), "--print-config"], file)


@scenario(3)
def pipeline_file(rng, root, here):
    """A pipeline file, or the cluster's settings, damaged."""
    file = copied(root, here, rng.choice(("pipeline.yaml", "slurm.yaml")))
    pipe, damaged = copied(root, here, "pipeline.yaml"), damage(rng, file)
    settings = ["--settings", str(file)] if damaged.name == "slurm.yaml" else []
    end = ["-o", str(here / "out"), *settings, "--dry-run"]
    return Case(["submit", "pipeline", str(pipe), *end], file)


@scenario(6)
def run_folder(rng, root, here):
    """The folder of a run that has steps left, one of its files damaged."""
    folder = copied(root, here, "run")
    for file in folder.glob("backbone_final.pth*"):
        file.unlink()
    kinds = (
        "checkpoints/step_00000002.pth",
        "metrics.jsonl",
        "config.yaml",
        "checkpoints/*.sha256",
    )
    file = rng.choice(sorted(folder.glob(rng.choice(kinds))))
    steps = ["SOLVER.MAX_STEPS", "3"]
    (folder / "checkpoints" / "step_00000003.pth").unlink()
    damage(rng, file)
    return Case(["pretrain", "--config", "moco_v2", *pretraining(root, folder), *steps], file)


@scenario(4)
def weights(rng, root, here):
    """A checkpoint or weights, damaged, given to what reads them."""
    name = rng.choice(("torchvision.pth", "weights.pkl", "weights.safetensors", "final.pth"))
    if name == "final.pth":
        file = Path(shutil.copy(root / "run" / "backbone_final.pth", here / name))
    else:
        file = copied(root, here, name)
    damage(rng, file)
    image, out = root / "pictures" / "00.jpg", here / "out"
    choices = [["inspect", str(file)]] * 4 + [["convert", str(file), "-o", str(out / "w.pkl")]]
    if name == "final.pth":  # others are converted, which takes a process
        choices += [["show", str(file), str(image), "-o", str(out), "--size", "32"]]
    if name == "weights.pkl":
        choices += [["transfer", str(file), *transfer(root, out)[2:]]]
    return Case(rng.choice(choices), file)


@scenario(4)
def annotations(rng, root, here):
    """Annotations in COCO's format, damaged, given to what reads them."""
    coco = root / "scenes" / "coco"
    file = Path(shutil.copy(coco / "annotations" / "instances_train2017.json", here / "a.json"))
    damage(rng, file)
    images = str(coco / "train2017")
    val = ["--val-json", str(coco / "annotations" / "instances_val2017.json")]
    own = ["--train-json", str(file), "--train-images", images, *val]
    own += ["--val-images", str(coco / "val2017"), "--print-config"]
    protocol = rng.choice(("custom_det", "custom_mask"))
    source = ["--source", "coco", "--annotations", str(file)]
    choices = [["transfer", "random", "--protocol", protocol, *own]] * 3
    choices += [
        ["audit", images, *source, "--workers", "1"],
        ["advise", images, *source, "--no-trial"],
    ]
    return Case(rng.choice(choices), file)


@scenario(3)
def label_images(rng, root, here):
    """One of the user's own images or label images, damaged."""
    copied(root, here, "own")
    file = damage(rng, rng.choice(sorted((here / "own").rglob("*.png"))))
    return Case([*transfer(here, here / "out"), "--print-config"], file)


@scenario(4)
def trial(rng, root, here):
    """The folder of a finished trial, one of its files damaged, given to what reads it."""
    folder = copied(root, here, "trial")
    texts = [file for file in folder.rglob("*") if file.suffix in (".json", ".jsonl", ".yaml")]
    file = damage(rng, rng.choice(sorted(texts)))
    words = (["table"], ["report", "-o", str(here / "a.html")], ["compare", str(root / "trial")])
    choices = [[*each, str(folder)] for each in words]
    choices += [transfer(root, folder)] * 2
    return Case(rng.choice(choices), file)


@scenario(3)
def numbers_of_a_run(rng, root, here):
    """What a pretraining wrote, damaged, given to what shows it."""
    folder = copied(root, here, "run")
    file = damage(rng, folder / rng.choice(("metrics.jsonl", "metrics.jsonl", "config.yaml")))
    show = (["plot", "curves", "-o", str(here / "a.svg")], ["report", "-o", str(here / "a.html")])
    return Case([*rng.choice(show), str(folder)], file)


@scenario(4)
def graph(rng, root, here):
    """A folder of jobs, one of its files damaged."""
    folder = copied(root, here, "graph")
    file = damage(rng, rng.choice(sorted(folder.rglob("*.json"))))
    report = ["report", "-o", str(here / "a.html")]
    choices = (["status"], ["status", "--json"], ["cancel"], ["submit", "retry"], report)
    return Case([*rng.choice(choices), str(folder)], file)


@scenario(3)
def images(rng, root, here):
    """Folders and lists of images, damaged, given to what reads them."""
    folder = copied(root, here, "pictures")
    listed = here / "list.txt"
    listed.write_text("".join(f"pictures/{number:02d}.jpg\n" for number in range(12)))
    file = damage(rng, rng.choice((listed, folder / "03.jpg")))
    source = ["--source", "list"] if file == listed else []
    place = str(file if source else folder)
    audit = ["audit", place, *source, "--workers", "1", "-o", str(here / "a.json")]
    return Case(rng.choice((audit, ["advise", place, *source, "--no-trial"])), file)


@scenario(1)
def scenes(rng, root, here):
    """A data set that was drawn, one of its records damaged."""
    folder = copied(root, here, "scenes")
    records = [file for file in folder.rglob("*.json") if "annotations" not in file.parts]
    file = damage(rng, rng.choice(sorted(records)))
    return Case(
        ["scenes", str(folder), *["--train", "6", "--val", "2", "--size", "64", "--workers", "1"]],
        file,
    )
