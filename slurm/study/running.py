"""The plan of a study and its jobs: made or found again, shown, run here within its budget."""

import json
import logging
import os
import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from densessl.core import form, log
from densessl.core.errors import DenseSSLError, InputError, StoppedEarly, unknown
from densessl.core.files import write_json
from densessl.core.progress import duration
from densessl.core.remote import BETWEEN, is_remote
from densessl.d2_transfer import main as transfer

from ..graph import MARKER
from ..local import run_local
from . import classes, coco, model, segmentation
from .graph import Data, Graph, StudyMachines, measured, pretraining
from .model import PRETRAINED, Plan
from .planning import Planner, identity
from .watch import BudgetWatch

READERS: dict[str, Callable[[Namespace, Path], Data]] = {
    "semseg": segmentation.read,
    "det": coco.read,
    "mask": coco.read,
    "cls": classes.read,
}

logger = logging.getLogger("densessl")


def planned(args: Namespace, folder: Path, line: str) -> tuple[Plan, Graph]:
    """The plan that lies in the folder, or a new one; InputError where the folder is another
    study's. Nothing is written where the call only shows it (``--dry-run``)."""
    machines = _machines(args)
    for name in ("images", "train", "val", "classes"):
        setattr(args, name, _absolute(getattr(args, name)))
    args.weights = [_weights(word) for word in args.weights]
    found = model.read(folder)
    if found and (differ := _differing(found.told, identity(args, machines.gpus))):
        raise InputError(
            f"{folder} holds another study ({differ}); give the same command as before, or "
            "another -o"
        )
    data = READERS[args.task](args, folder)
    if found:
        return found, Graph(found, data, folder, machines)
    plan = Planner(args, folder, data, machines, line.removeprefix("$ ")).plan()
    graph = Graph(plan, data, folder, machines)
    for arm in plan.arms:
        graph.pretrainings(arm)  # what is wrong with one is said before anything is written
    if not args.dry_run:
        plan.write(folder)
        data.prepare()
    return plan, graph


def graph_of(folder: Path) -> Graph:
    """The graph of the study in a folder, for one of its jobs."""
    plan = _read(folder)
    args = Namespace(**plan.told)
    machines = StudyMachines(gpus=plan.told["gpus"])
    return Graph(plan, READERS[plan.task](args, folder), folder, machines)


def _read(folder: Path) -> Plan:
    if (plan := model.read(folder)) is None:
        raise InputError(f"{folder} holds no {model.FILE}: it is no folder of a study")
    return plan


def _machines(args: Namespace) -> StudyMachines:
    if not args.local:
        return StudyMachines(args.nodes, args.gpus, local=False)
    from ..reproduce import gpus_here

    return StudyMachines(1, min(gpus_here(), args.gpus), local=True)


def _absolute(word: str | None) -> str | None:
    """A path, or several as ``a:b``: its jobs may run in another folder. Addresses stay."""
    if not word:
        return word
    parts = [word] if Path(word).exists() else BETWEEN.split(word)
    return os.pathsep.join(
        part if is_remote(part) or not part else str(Path(part).absolute()) for part in parts
    )


def _weights(word: str) -> str:
    name, equals, file = word.partition("=")
    return f"{name}={Path(file).absolute()}" if file else word


def _differing(there: dict, here: dict) -> str:
    names = [name for name in here if there.get(name) != json.loads(json.dumps(here[name]))]
    return ", ".join(f"{name} {there.get(name)} there, {here[name]} here" for name in names)


def describe(plan: Plan) -> str:
    """The plan in words: arms, jobs, minutes, what was left out and why."""
    shares = ", ".join(f"{share.name} % ({share.images} images)" for share in plan.labels)
    lines = [
        f"study of {plan.n_images:,} images with a {plan.network}: {plan.task}, labels {shares}, "
        f"{plan.seeds} of everything random",
        "",
        f"{'arm':16s} {'kind':11s} {'jobs':>4s} {'of steps':>8s}  {'each':>10s}",
    ]
    for arm in plan.arms:
        count = f"{arm.pretrainings} + 1" if arm.pretrainings else "1"
        expected = plan.expected.get(f"pretrain-{arm.name}-0")
        seconds = [expected] if arm.pretrainings else []
        seconds.append(plan.expected.get(f"measure-{arm.name}"))
        each = " + ".join(duration(s) for s in seconds if s is not None) or "not known"
        steps = f"{arm.steps:,}" if arm.steps else "–"
        lines.append(f"{arm.name:16s} {arm.kind:11s} {count:>4s} {steps:>8s}  {each:>10s}")
    if plan.expected:
        total = sum(plan.expected.values())
        of = f" of {duration(plan.budget_s)}" if plan.budget_s else ""
        lines += ["", f"in all about {duration(total)}{of}"]
    lines += [f"not in it: {sentence}" for sentence in plan.left_out]
    return "\n".join(lines) + "\n"


def run_here(plan: Plan, graph: Graph, folder: Path) -> int:
    """All jobs on this machine, one after the other; what the budget does not hold is left out."""
    log.setup(folder)
    jobs = graph.jobs()
    run_local(jobs, folder, BudgetWatch(jobs, folder).leaves_out)
    logger.info("the study's page is %s", shlex.quote(str(folder / "report.html")))
    return 0


def measure(graph: Graph, name: str, folder: Path) -> int:
    """Run the trials of an arm that are not finished, those of a draw together, in this process.

    A graph on one machine calls it (``densessl study --measure ARM``). A trial that fails keeps
    none of the others from running, and a pretraining that is not there leaves its own out. Raises
    StoppedEarly as a trial does, and the first error once all others have run.
    """
    arms = {arm.name: arm for arm in graph.plan.arms}
    if name not in arms:
        raise unknown("arm", name, arms, "--measure")
    arm, failed, done = arms[name], [], []
    for seed in range(arm.pretrainings or graph.plan.seeds):
        weights = pretraining(folder, name, seed) / "backbone_final.pth"
        if arm.kind == PRETRAINED and not weights.is_file():
            logger.warning("%s: there is no %s; its trials are left out", name, weights)
            continue
        for job in graph.trials(arm, seed):
            try:
                transfer.main(list(map(str, job.argv[1:])))
                done.append(job.name)
            except StoppedEarly:
                raise
            except DenseSSLError as error:
                failed.append(error)
                log.setup()
                logger.error("%s: %s", job.name, error)
        shutil.rmtree(graph.features(arm, seed), ignore_errors=True)
    if failed:
        raise failed[0]
    if not done:
        raise InputError(f"no pretraining of {name} has finished: there is nothing to measure")
    write_json(measured(folder, name), done)
    return 0


def page(folder: Path) -> None:
    """Write what pretrainings took into the plan, and the page."""
    from densessl.d2_transfer.report.study_page import write_study_page

    plan = _read(folder)
    arms = [
        replace(arm, seconds=_mean_seconds(folder, arm.name, arm.pretrainings))
        if arm.kind == PRETRAINED
        else arm
        for arm in plan.arms
    ]
    replace(plan, arms=tuple(arms)).write(folder)
    write_study_page(folder, folder / "report.html")


def _mean_seconds(folder: Path, arm: str, pretrainings: int) -> float | None:
    found = []
    for seed in range(pretrainings):
        marker = folder / "jobs" / f"pretrain-{arm}-{seed}.json"
        if marker.is_file():
            found.append(float(form.read(marker, "what a finished job left", MARKER)["seconds"]))
    return round(sum(found) / len(found), 1) if found else None
