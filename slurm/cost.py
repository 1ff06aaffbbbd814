"""What a graph of jobs costs: GPU-hours, as the configs and ``configs/costs.yaml`` have them."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import yaml

from densessl import configs
from densessl.configs import presets

from .graph import Job

GPU = "V100"  # all figures are of this one
TRAIN = ("pretrain", "transfer")  # the verbs that cost
SAME_TIME = ("MODEL.FPN.TRANSFER",)  # options of fine-tunings that change no figure
FINE_TUNINGS = configs.FOLDER / "costs.yaml"


def of_pretraining(config: str, words: Sequence[str], gpus: int) -> float | None:
    """The hours of a pretraining on ``gpus``; None where an option changes the run."""
    from densessl.pretrain.engine.resume import FREE

    known = Path(config).is_file() or config in presets.built_in()  # and no twin of one
    if not gpus or not known or any(key not in (*FREE, "SEED") for key in words[::2]):
        return None
    hours = presets.find(config).gpu_hours()
    return hours / gpus if hours else None


def of_fine_tuning(config: Path, options: Sequence[str], gpus: int) -> float | None:
    """The hours of a fine-tuning on ``gpus``; None where an option may change them."""
    if not gpus or any(key not in SAME_TIME for key in options[::2]):
        return None
    cost = _fine_tunings().get(config.stem)
    if not cost:
        return None
    return presets.gpu_hours(cost, f"{config.stem} in {FINE_TUNINGS}") / gpus


@cache
def _fine_tunings() -> dict[str, dict]:
    return yaml.safe_load(FINE_TUNINGS.read_text(encoding="utf-8"))


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
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(_kind(job), []).append(job)
    for kind, group in kinds.items():
        left = [job for job in group if not is_done(job.name)]
        done = len(group) - len(left)
        lines.append(f"{kind:14s}{len(group):6d}{done:6d}  {_sum(left)}")
    left = [job for job in jobs if not is_done(job.name)]
    lines.append(f"{'sum':14s}{len(jobs):6d}{len(jobs) - len(left):6d}  {_sum(left)}")
    lines.append(f"(published or estimated for 8 {GPU})")
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
