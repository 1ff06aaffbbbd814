"""What a graph of jobs costs: GPU-hours, from the head comments of the configs."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from densessl.core.files import read_text

from .graph import Job

GPU = "V100"  # all figures in the heads are of this one
TRAIN = ("pretrain", "transfer")  # the verbs that cost
SAME_TIME = ("MODEL.FPN.TRANSFER",)  # options of fine-tunings that change no figure
HOURS = {"h": 1.0, "days": 24.0, "day": 24.0}
NUMBER = r"(?P<number>[\d.]+) (?P<unit>h|days?)\b"
FIGURES = (  # how heads say it, once their lines are joined
    rf"Expected: the work of (?P<gpus>\d+) {GPU} for about {NUMBER}",
    rf"Published time: {NUMBER} on (?P<gpus>\d+) {GPU}",
    rf"Cost: [^;:.]*(?:\.\d[^;:.]*)?on (?P<gpus>\d+) {GPU}[^;:.]*: {NUMBER}",
)


def of_head(config: Path) -> float | None:
    """The GPU-hours that the head comment of a config says; None where it says none."""
    head = []
    for line in read_text(config).splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    for pattern in FIGURES:
        if found := re.search(pattern, " ".join(head)):
            return int(found["gpus"]) * float(found["number"]) * HOURS[found["unit"]]
    return None


def of_pretraining(config: str, words: Sequence[str], gpus: int) -> float | None:
    """The hours of a pretraining on ``gpus``, by its head; None where an option changes the run."""
    from densessl.pretrain import config as pretraining
    from densessl.pretrain.engine.resume import FREE

    known = Path(config).is_file() or config in pretraining.built_in()  # and no twin of one
    if not gpus or not known or any(key not in (*FREE, "SEED") for key in words[::2]):
        return None
    hours = of_head(pretraining.find(config))
    return hours and hours / gpus


def of_fine_tuning(config: Path, options: Sequence[str], gpus: int) -> float | None:
    """The hours of a fine-tuning on ``gpus``, by its head; None where an option may change them."""
    if not gpus or any(key not in SAME_TIME for key in options[::2]):
        return None
    hours = of_head(config)
    return hours and hours / gpus


def gpu_hours(job: Job) -> float | None:
    """The job's GPU-hours; 0 for what needs no GPU, None where there is no figure."""
    resources = job.resources
    if _kind(job) not in TRAIN:
        return 0.0
    return None if resources.hours is None else resources.hours * resources.nodes * resources.gpus


def summary(jobs: Sequence[Job], is_done: Callable[[str], bool] = lambda name: False) -> str:
    """A table in plain text: a line for each kind of job, and the sum of what is left to do.

    ``is_done(name)`` tells which jobs are finished: they cost nothing any more.
    """
    lines = [f"{'':14s}{'jobs':>6s}{'done':>6s}  {GPU}-hours left"]
    for kind in dict.fromkeys(_kind(job) for job in jobs):
        group = [job for job in jobs if _kind(job) == kind]
        left = [job for job in group if not is_done(job.name)]
        done = len(group) - len(left)
        lines.append(f"{kind:14s}{len(group):6d}{done:6d}  {_sum(left)}")
    left = [job for job in jobs if not is_done(job.name)]
    lines.append(f"{'sum':14s}{len(jobs):6d}{len(jobs) - len(left):6d}  {_sum(left)}")
    lines.append(f"(by the heads of the configs: published or estimated for 8 {GPU})")
    return "\n".join(lines)


def _kind(job: Job) -> str:
    return str(job.argv[0]) if job.program[-1] == "densessl" else job.name


def _sum(jobs: Sequence[Job]) -> str:
    hours = [gpu_hours(job) for job in jobs]
    known = sum(each for each in hours if each is not None)
    if missing := hours.count(None):
        what = f"no figure for {missing} job{'s' if missing > 1 else ''}"
        return f"at least {known:,.0f} ({what})" if known else what
    return f"{known:,.0f}"
