"""``densessl doctor``: what is installed, what is missing, and the exact command that fixes it.

Exit code 3 when the main job (pretrain, convert, transfer) cannot run. Every check guards itself,
so this runs where nothing else does.
"""

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from densessl.core import install, limits
from densessl.core.parser import Parser

from .protocols import DENSE, DETECTION, PROTOCOLS

OK, MISSING, OPTIONAL = "ok", "missing", "optional"  # optional: absent, and the main job runs
LIBRARIES = {  # import name: distribution, of what the main job imports besides torch
    "fvcore": "fvcore",
    "iopath": "iopath",
    "numpy": "numpy",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "rich": "rich",
    "yacs": "yacs",
    "termcolor": "termcolor",
    "tabulate": "tabulate",
    "cloudpickle": "cloudpickle",
    "tqdm": "tqdm",
    "omegaconf": "omegaconf",
    "matplotlib": "matplotlib",
    "tensorboard": "tensorboard",
}
EXTRA = "extra 'transfer'"  # the part of the libraries that pretraining does without
FINE_TUNING = {EXTRA, "Detectron2", "pycocotools", "reading"}  # and these
SLURM = ("sbatch", "srun", "squeue", "scontrol", "scancel")
OLDEST_PYTHON = (3, 10)
FREE_GB = 2.0  # below this not even the demo's checkpoints fit
SHARED_BYTES = 1 << 30  # four processes with two batches each of 256 images of two views
HANDLES = 1024

# Data set: what it needs below DETECTRON2_DATASETS, one of its names in the protocols, and what
# derives a part of it.
DATA_SETS = {
    "VOC": (
        "VOC2007/Annotations VOC2007/ImageSets/Main VOC2007/JPEGImages "
        "VOC2012/Annotations VOC2012/ImageSets/Main VOC2012/JPEGImages",
        "voc_2007_test",
        "",
    ),
    "VOC masks": (
        "VOC2012/JPEGImages voc_aug/labels",
        "voc_2012_semseg_val",
        "densessl prepare voc_aug",
    ),
    "COCO": (
        "coco/annotations/instances_train2017.json coco/annotations/instances_val2017.json "
        "coco/train2017 coco/val2017",
        "coco_2017_val",
        "",
    ),
    "COCO keypoints": (
        "coco/annotations/person_keypoints_train2017.json "
        "coco/annotations/person_keypoints_val2017.json coco/train2017 coco/val2017",
        "keypoints_coco_2017_val",
        "",
    ),
    "COCO-Stuff": (
        "coco/stuffthingmaps/train2017 coco/stuffthingmaps/val2017 coco/train2017 coco/val2017",
        "coco_stuff27_val",
        "",
    ),
    "COCO panoptic": (
        "coco/annotations/panoptic_train2017.json coco/annotations/panoptic_val2017.json "
        "coco/panoptic_train2017 coco/panoptic_val2017 coco/panoptic_stuff_train2017 "
        "coco/panoptic_stuff_val2017 coco/train2017 coco/val2017",
        "coco_2017_val_panoptic_separated",
        "densessl prepare coco_panoptic",
    ),
    "LVIS v0.5": (
        "lvis/lvis_v0.5_train.json lvis/lvis_v0.5_val.json coco/train2017 coco/val2017",
        "lvis_v0.5_val",
        "",
    ),
    "LVIS v1": (
        "lvis/lvis_v1_train.json lvis/lvis_v1_val.json coco/train2017 coco/val2017",
        "lvis_v1_val",
        "",
    ),
    "Cityscapes": (
        "cityscapes/leftImg8bit/train cityscapes/leftImg8bit/val "
        "cityscapes/gtFine/train cityscapes/gtFine/val",
        "cityscapes_fine",
        "",
    ),
    "ADE20K": (
        "ADEChallengeData2016/images/training ADEChallengeData2016/images/validation "
        "ADEChallengeData2016/annotations_detectron2/training "
        "ADEChallengeData2016/annotations_detectron2/validation",
        "ade20k_sem_seg_val",
        "densessl prepare ade20k",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: a part, its state, what was seen, the command that fixes it."""

    part: str
    state: str  # OK, MISSING or OPTIONAL
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Every finding, most basic first."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _torch,
        _torchvision,
        _libraries,
        _detectron2,
        _projects,
        _packages,
        _reading,
        _cluster,
        _data_sets,
        _disk,
        _shared_memory,
        _file_handles,
    ]
    findings = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # a broken installation raises anything; that is a finding too
            part = check.__name__.strip("_").replace("_", " ")
            reason = f"{type(error).__name__}: {error}"
            findings.append(Finding(part, MISSING, reason, install.command("transfer")))
    return findings


def main(argv: list[str]) -> int:
    parser = Parser(prog="densessl doctor", description=__doc__)
    parser.parse_args(argv)
    findings = examine()
    _show(findings)
    missing = [finding.part for finding in findings if finding.state == MISSING]
    if missing:
        verbs = "pretrain, convert, transfer cannot run"
        if {*missing} <= FINE_TUNING:
            verbs = "pretrain can run; transfer, and convert for Detectron2, cannot"
        print(f"\n{verbs}: {', '.join(missing)}", file=sys.stderr)
        return 3
    return 0


# The checks ---------------------------------------------------------------------------------------


def _python() -> list[Finding]:
    seen = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        return [Finding("Python", OK, seen)]
    again = "make clean setup" if install.CHECKOUT else install.command()
    fix = f"install Python 3.10, 3.11 or 3.12, then: {again}"
    return [Finding("Python", MISSING, seen, fix)]


def _torch() -> list[Finding]:
    if error := _import_error("torch"):
        return [Finding("torch", MISSING, error, install.command())]
    import torch

    found = [Finding("torch", OK, torch.__version__)]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        return [*found, Finding("CUDA", OK, f"{torch.version.cuda}: {', '.join(names)}")]
    if shutil.which("nvidia-smi"):
        fix = f"update the NVIDIA driver to one for CUDA {torch.version.cuda}"
        return [*found, Finding("CUDA", OPTIONAL, "a driver is there, torch sees no GPU", fix)]
    return [*found, Finding("CUDA", OPTIONAL, "no GPU; everything runs on the CPU, slowly")]


def _torchvision() -> list[Finding]:
    if error := _import_error("torchvision"):
        return [Finding("torchvision", MISSING, error, install.command())]
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        return [
            Finding("torchvision ops", MISSING, f"nms kept {kept}, not [0, 2]", install.command())
        ]
    return [Finding("torchvision", OK, f"{torchvision.__version__}, its ops run")]


def _libraries() -> list[Finding]:
    lacking = [name for name in LIBRARIES if _import_error(name)]
    if lacking:
        part = EXTRA if {*lacking} <= install.EXTRAS.keys() else "libraries"
        seen = f"not there: {', '.join(LIBRARIES[name] for name in lacking)}"
        return [Finding(part, MISSING, seen, install.command("transfer"))]
    return [Finding("libraries", OK, ", ".join(f"{d} {_version(d)}" for d in LIBRARIES.values()))]


def _detectron2() -> list[Finding]:
    from densessl.core.errors import EnvironmentLacks

    from . import compat

    try:
        compat.setup()
        for name in ("modeling", "engine", "evaluation"):
            importlib.import_module(f"detectron2.{name}")
    except EnvironmentLacks as error:
        return [Finding("Detectron2", MISSING, str(error).split(";")[0], install.detectron2())]
    except Exception as error:
        return [
            Finding("Detectron2", MISSING, f"{type(error).__name__}: {error}", install.detectron2())
        ]
    ops = "compiled ops" if compat.has_compiled_ops() else "no compiled ops (none is needed)"
    which = "the release on PyPI" if compat.is_release() else "the official main"
    return [Finding("Detectron2", OK, f"{compat.version()}, {which}, {ops}")]


def _projects() -> list[Finding]:
    """The models of Detectron2's own projects, which single protocols need."""
    from densessl.core.errors import EnvironmentLacks

    from . import compat, projects

    part = ", ".join(projects.MODULES)
    try:
        compat.get_cfg(projects.MODULES)
    except EnvironmentLacks as error:
        seen, _, fix = str(error).partition("; fix it with: ")
        return [Finding(part, OPTIONAL, seen, fix)]
    return [Finding(part, OK, "Detectron2's projects, which add their options and models")]


def _packages() -> list[Finding]:
    """What single protocols and networks need."""
    return [
        _package("pycocotools", "pycocotools.cocoeval", "pycocotools", "transfer", MISSING),
        _package("faster-coco-eval", "faster_coco_eval", "faster-coco-eval", "transfer"),
        _package("timm (for ViTs)", "timm", "timm", "vit"),
        _package("cityscapesScripts", "cityscapesscripts", "cityscapesscripts", "transfer"),
    ]


def _package(part: str, module: str, name: str, extra: str, state: str = OPTIONAL) -> Finding:
    if error := _import_error(module):
        return Finding(part, state, error, install.command(extra))
    return Finding(part, OK, _version(name))


def _reading() -> list[Finding]:
    """An image of each data set for Detectron2, drawn in miniature, as a trial reads it."""
    from . import compat

    if not compat.is_installed("detectron2"):
        return []  # that is a finding already

    from . import datasets, resolve, trainer

    compat.setup()
    from detectron2.data import DatasetCatalog

    failed = {}
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "scenes")
        size = ["--train", "8", "--val", "2", "--size", "64", "--workers", "1"]
        draw = [sys.executable, "-m", "densessl", "scenes", str(drawn), *size]
        done = subprocess.run(draw, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            return [Finding("readers", OPTIONAL, f"not tried, as nothing could be drawn: {last}")]
        datasets.register(drawn)
        read = {  # by the first protocol that is on it
            name: protocol.name
            for protocol in reversed(PROTOCOLS.values())
            if protocol.family == DETECTION and not protocol.needs
            for name in protocol.datasets
        }
        for name, protocol in read.items():
            try:
                cfg = resolve.resolve(protocol, gpus=1, mini=True, cuda=False)
                trainer.build_mapper(cfg, is_train=True)(DatasetCatalog.get(name)[0])
            except Exception as error:  # whatever a package of another version raises
                failed[name] = f"{name}: {type(error).__name__}: {error}"
    if failed:
        return [
            Finding("readers", OPTIONAL, "; ".join(failed.values()), install.command("transfer"))
        ]
    return [Finding("readers", OK, f"an image of each of {len(read)} data sets was read")]


def _cluster() -> list[Finding]:
    lacking = [command for command in SLURM if shutil.which(command) is None]
    slurm = Finding("Slurm", OK, ", ".join(SLURM))
    if lacking:
        detail = f"not on PATH: {', '.join(lacking)}; only 'densessl submit' needs them"
        fix = "log in to the cluster (one machine: apt-get install slurm-wlm)"
        slurm = Finding("Slurm", OPTIONAL, detail, fix)
    return [slurm, _package("submitit", "submitit", "submitit", "cluster")]


def _data_sets() -> list[Finding]:
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    findings = []
    for name, (needed, data_set, derive) in DATA_SETS.items():
        protocols = _readers(data_set)
        absent = [path for path in needed.split() if not _holds_something(root / path)]
        if not absent:
            findings.append(Finding(name, OK, f"{root} ({protocols})"))
            continue
        count = f"{len(absent)} of {len(needed.split())} absent under {root}"
        fix = "export DETECTRON2_DATASETS=DIR  (to try: densessl scenes DIR)"
        if len(absent) < len(needed.split()):
            fix = derive or f"put {', '.join(absent)} under {root}"
        findings.append(Finding(name, OPTIONAL, f"{count} ({protocols})", fix))
    return findings


def _readers(data_set: str) -> str:
    """The protocols that read a data set; both schedules, and all dense probes, are one word."""
    names = [
        "dense probes" if each.family == DENSE else re.sub("_[123]x$", "_*", each.name)
        for each in PROTOCOLS.values()
        if any(name.startswith(data_set) for name in each.datasets)
    ]
    return ", ".join(dict.fromkeys(names))


def _disk() -> list[Finding]:
    free = shutil.disk_usage(".").free / 1e9
    if free < FREE_GB:
        fix = f"free {FREE_GB - free:.1f} GB, or run elsewhere"
        return [Finding("disk", MISSING, f"{free:.1f} GB free in {Path.cwd()}", fix)]
    return [Finding("disk", OK, f"{free:.0f} GB free in {Path.cwd()}")]


def _shared_memory() -> list[Finding]:
    found = limits.shared_memory()
    if found is None:
        return [Finding("shared memory", OK, f"{limits.SHARED} has no limit, or there is none")]
    free, total = found
    seen = f"{limits.size(free)} of {limits.size(total)} free in {limits.SHARED}"
    if free < SHARED_BYTES:
        detail = f"{seen}; loader processes at ImageNet's sizes need {limits.size(SHARED_BYTES)}"
        return [
            Finding("shared memory", OPTIONAL, detail, limits.more_shared_memory(0, "DATA.WORKERS"))
        ]
    return [Finding("shared memory", OK, seen)]


def _file_handles() -> list[Finding]:
    _, soft, hard = limits.handles()
    seen = f"ulimit -n is {soft}, at most {hard}"
    if hard < HANDLES:
        fix = limits.more_handles(HANDLES, "DATA.WORKERS")
        return [Finding("file handles", OPTIONAL, f"{seen}; loader processes need more", fix)]
    return [Finding("file handles", OK, seen)]


def _import_error(name: str) -> str:
    """Why a module cannot be imported; empty when it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken shared library raises OSError, and so on
        return f"{type(error).__name__}: {error}"
    return ""


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _holds_something(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and next(path.iterdir(), None) is not None)


# Showing ------------------------------------------------------------------------------------------


def _show(findings: list[Finding]) -> None:
    """A table on a terminal; elsewhere one plain line a finding, and one for what fixes it."""
    if sys.stdout.isatty() and not _import_error("rich"):
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        colours = {OK: "green", MISSING: "bold red", OPTIONAL: "yellow"}
        table = Table("part", "state", "found", "how to fix it", title="densessl doctor")
        for finding in findings:
            colour = colours[finding.state]
            state = f"[{colour}]{finding.state}[/{colour}]"
            table.add_row(finding.part, state, escape(finding.detail), escape(finding.fix))
        Console().print(table)
        return
    for finding in findings:
        print(f"{finding.state:9s}{finding.part:19s}{finding.detail}")
        if finding.fix:
            print(f"{'':9s}{'':19s}fix: {finding.fix}")
