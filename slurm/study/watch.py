"""A study on this machine and its budget: what is left out when jobs take longer than was said."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from densessl.core.progress import duration

from ..graph import Finished, Job
from . import model
from .model import PRETRAINED, Arm, Plan

LATE = 1.1  # times the budget, from which on something is left out
KEPT = 2  # pretrainings of the first method: of fewer there is no spread

logger = logging.getLogger("densessl")


class BudgetWatch:
    """``leaves_out(job)``, asked before each: whether the whole would pass the budget with it.

    What can be left out are the pretrainings of all methods but the first, and of that one those
    beyond two. It is said in the log and in the plan, from which they go.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path):
        self.jobs, self.folder = jobs, folder
        self.warned = False

    def leaves_out(self, job: Job) -> bool:
        plan = model.read(self.folder)
        if plan is None or not plan.budget_s:
            return False
        if not _is_in(plan, job.name):
            return True
        ended = Finished(self.jobs, self.folder).of_all()
        took = {each.name: ended.get(each.name) for each in self.jobs}
        spent, slower = _so_far(plan, took)
        extras = _extras(plan)
        ahead = sum(
            plan.expected.get(name, 0)
            for name, seconds in took.items()
            if seconds is None and (name == job.name or name not in extras) and _is_in(plan, name)
        )
        in_all = spent + slower * ahead
        if in_all <= LATE * plan.budget_s:
            return False
        late = f"{duration(in_all)} of {duration(plan.budget_s)}: the jobs take {slower:.1f} times "
        late += "as long as was measured before"
        if job.name in extras:
            arm, seed = extras[job.name]
            what = f"pretraining {seed + 1} of {arm.pretrainings} of {arm.name}"
            sentence = f"{what} is left out; with it the study would take about {late}"
            logger.warning("%s", sentence)
            _without(plan, arm, seed).with_left_out(sentence).write(self.folder)
            return True
        if not self.warned:
            logger.warning("the study will take about %s", late)
        self.warned = True
        return False


def _is_in(plan: Plan, name: str) -> bool:
    """Whether a job is still one of the plan's."""
    kind, _, rest = name.partition("-")
    arms = {arm.name: arm.pretrainings for arm in plan.arms}
    if kind == "measure":
        return rest in arms
    arm, _, seed = rest.rpartition("-")
    return kind != "pretrain" or int(seed) < arms.get(arm, 0)


def _without(plan: Plan, arm: Arm, seed: int) -> Plan:
    """The plan without an arm's pretrainings from ``seed`` on."""
    fewer = [replace(each, pretrainings=seed) if each == arm else each for each in plan.arms]
    kept = [each for each in fewer if each.kind != PRETRAINED or each.pretrainings]
    return replace(plan, arms=tuple(kept))


def _so_far(plan: Plan, took: dict[str, float | None]) -> tuple[float, float]:
    """The seconds of finished jobs, and how many times as long they took as was expected."""
    known = {name: seconds for name, seconds in took.items() if seconds and name in plan.expected}
    spent, meant = sum(known.values()), sum(plan.expected[name] for name in known)
    return spent, max(spent / meant, 1.0) if meant else 1.0


def _extras(plan: Plan) -> dict[str, tuple[Arm, int]]:
    """The jobs without which there is still an answer, with their arm and seed."""
    methods = [arm for arm in plan.arms if arm.kind == PRETRAINED]
    return {
        f"pretrain-{arm.name}-{seed}": (arm, seed)
        for number, arm in enumerate(methods)
        for seed in range(0 if number else KEPT, arm.pretrainings)
    }
