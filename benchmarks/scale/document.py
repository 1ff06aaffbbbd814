"""docs/scale.md, made of the recorded steps and of the assumptions below: every number of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from densessl.configs.presets import find
from densessl.pretrain import config

from .recorded import Step, record

PAGE = Path(__file__).with_name("page.md")
MEASUREMENTS = Path(__file__).parents[2] / "docs" / "measurements.md"

GPUS, NODE = (8, 64, 512), 8  # GPUs a run, GPUs a node
IMAGES = 32  # a GPU and step
IMAGENET = 1_281_167
LINK = 25e9  # bytes a second that each GPU sends to other nodes
DISKS = (0.2e9, 1e9, 5e9)  # bytes a second
FASTER = 5  # how many V100s a newer GPU is
FAILURES = (2.34, 6.50)  # of a node in 1,000 days
RESTART = 10  # minutes from a failure to the first step
PERIODS = (10, 60, 240)  # minutes between checkpoints

# fmt: off
STEPS = (
    "moco_v2", "densecl", "houghcl", "setsim_paper", "vader", "resim_fpn",
    "simsiam", "setsim_simsiam", "byol", "pixpro", "simclr", "swav",
    "dino", "dino_vit_small", "scfs",
)
# fmt: on
TWO_VIEWS = ("moco_v2", "densecl", "resim_fpn", "byol", "setsim")  # whose runs have a published
RUN = "{}_r50_in1k_200ep"  # or an estimated length


def render() -> str:
    """The page; some seconds a method, as each makes one step."""
    steps = {name: step_of(name) for name in STEPS}
    norms = [step.norms for step in steps.values() if step.norms_reduced]
    tables = {
        "communication": communication(steps),
        "checkpoints": checkpoints(steps),
        "epochs": epochs(sum(steps["moco_v2"].checkpoint.values())),
        "lost": lost(sum(steps["moco_v2"].checkpoint.values())),
        "loader": loader(),
        "restarts": restarts(),
    }
    facts = {
        "decoding": f"{decoding():.1f}",
        "step": f"{1000 * IMAGES / images_per_second('moco_v2'):.0f}",
        "norms": f"{min(norms)} to {max(norms)}",
        "times": _times(steps),
        "resim": f"{steps['resim_fpn'].gathered * (GPUS[-1] - 1) / 1e9:.1f}",
        "large": f"{GPUS[-1]:,}",
        "at_1024": f"{24 * 1000 / FAILURES[1] / (1024 / NODE):.1f}",
    }
    return Template(PAGE.read_text("utf-8")).substitute(tables | facts)


def step_of(name: str) -> Step:
    """The step of a built-in config; the same for any number of processes."""
    cfg = config.load(name, ["DATA.PATH", "imagenet/train"])
    return record(cfg, GPUS[1], IMAGES)


def _times(steps: Mapping[str, Step]) -> str:
    """Those that send the most for synchronised batch norm beside their gradients, in words."""
    others = GPUS[-1] - 1
    share = {
        name: step.norms_gathered * others / (2 * step.gradients * others / GPUS[-1])
        for name, step in steps.items()
    }
    most = sorted((name for name in share if share[name] > 1), key=lambda name: -share[name])
    first, *others_too = (f"`{name}` {share[name]:.1f} times" for name in most)
    first = first.replace("` ", "` sends ") + " as much for them as for its gradients"
    return ", ".join([first, *others_too])


def communication(steps: Mapping[str, Step]) -> str:
    """What a GPU gives to each kind of collective, and what it sends for them."""
    rows = []
    for name, step in steps.items():
        parts = (step.gradients, step.exchanged, step.gathered, step.reduced)
        norms = step.norms_gathered + step.norms_reduced
        sent = [step.sent(gpus) for gpus in GPUS]
        cells = [_mb(x) for x in (*parts, norms, step.statistics, *sent)]
        rows.append([f"`{name}`", *cells, f"{1000 * sent[-1] / LINK:.1f}"])
    heads = ["gradients", "ShuffleBN", "gathered", "reduced", "SyncBN", "statistics"]
    sent_heads = [f"sent, {gpus} GPUs" for gpus in GPUS]
    return _table(["config", *heads, *sent_heads, f"ms, {GPUS[-1]} GPUs"], rows)


def checkpoints(steps: Mapping[str, Step]) -> str:
    """The size of a checkpoint by its keys, and the time that a disk takes for it."""
    rows = []
    for name, step in steps.items():
        parts = step.checkpoint
        total = sum(parts.values())
        sizes = [parts["model"], parts["optimizer"], total]
        times = [f"{total / rate:.1f}" for rate in DISKS]
        rows.append([f"`{name}`", *map(_mb, sizes), *times])
    heads = ["model", "optimizer", "all"]
    return _table(["config", *heads, *(f"s at {rate / 1e9:g} GB/s" for rate in DISKS)], rows)


def epochs(checkpoint: int) -> str:
    """An epoch of ImageNet on so many GPUs as fast as a V100, and what saving after each takes."""
    queue = config.load("moco_v2").MOCO.QUEUE
    rows = []
    for gpus in GPUS:
        batch = gpus * IMAGES
        seconds = IMAGENET // batch * IMAGES / images_per_second("moco_v2")
        share = checkpoint / DISKS[1] / seconds
        cells = [f"{batch:,}", f"{IMAGENET // batch:,}", f"{queue / batch:g}", f"{seconds:.0f}"]
        rows.append([str(gpus), *cells, f"{100 * share:.2f} %"])
    heads = ["batch", "steps an epoch", "steps of keys in the queue", "s an epoch", "saving takes"]
    return _table(["GPUs", *heads], rows)


def loader() -> str:
    """Images a second that a node reads, and how many cores decode them."""
    rows = []
    for name in TWO_VIEWS:
        cost = find(RUN.format(name)).about()["cost"]
        rate = images_per_second(name)
        nodes = [NODE * rate, FASTER * NODE * rate]
        cells = [f"{each:,.0f} | {each / decoding():.1f}" for each in nodes]
        run = f"{cost['hours']:g} h on {cost['v100']} ({cost['source']})"
        rows.append([f"`{name}`", run, f"{rate:.0f}", *cells])
    faster = f"{NODE} GPUs, {FASTER} × V100, images/s"
    heads = ["200 epochs", "images/s a V100", f"{NODE} V100s, images/s", "cores", faster, "cores"]
    return _table(["config", *heads], rows)


def restarts() -> str:
    """How often a run on so many GPUs loses a node."""
    rows = []
    for gpus in GPUS:
        daily = [rate / 1000 * gpus / NODE for rate in FAILURES]
        cells = [f"{each:.3f} | {1 / each:.1f}" for each in daily]
        rows.append([str(gpus), str(gpus // NODE), *cells])
    heads = [f"a day, at {rate:.2f} | days between two" for rate in FAILURES]
    return _table(["GPUs", "nodes", *" | ".join(heads).split(" | ")], rows)


def lost(checkpoint: int) -> str:
    """The share of the time that failures and saving take, by the period of the checkpoints."""
    seconds = checkpoint / DISKS[1]
    rows = []
    for gpus in GPUS:
        days = 1000 / FAILURES[1] / (gpus / NODE)
        best = (2 * seconds / 60 * days * 1440) ** 0.5  # Young 1974
        shares = [
            (RESTART + period / 2) / (days * 1440) + seconds / 60 / period
            for period in (*PERIODS, best)
        ]
        rows.append([str(gpus), *(f"{100 * each:.2f} %" for each in shares), f"{best:.0f}"])
    heads = [f"every {period} min" for period in PERIODS]
    return _table(["GPUs", *heads, "at the best period", "that is, min"], rows)


def images_per_second(name: str) -> float:
    """What one V100 trains, by the length of the run that its config names."""
    preset = find(RUN.format(name))
    epochs = config.load(RUN.format(name)).SOLVER.EPOCHS
    return epochs * IMAGENET / (preset.gpu_hours() * 3600)


def decoding() -> float:
    """Images a second that one core decodes and crops, as docs/measurements.md has it."""
    text = MEASUREMENTS.read_text("utf-8")
    return float(re.search(r"\| ours, the loader's part alone[^|]*\| ([\d.]+) ", text)[1])


def _mb(size: float) -> str:
    if not size:
        return "–"
    return f"{size / 1e6:,.1f}" if size >= 1e5 else f"{size / 1e6:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in (heads, *rows)]
    return "\n".join([head, "|---" + "|--:" * (len(heads) - 1) + "|", *body])
