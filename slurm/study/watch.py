"""A study on this machine and its budget: what is left out when jobs take longer than was said."""

import logging
from collections.abc import Sequence
from pathlib import Path

from console.progress import duration
from slurm.graph import Finished, Job

from . import model
from .model import PRETRAINED, Plan

LATE = 1.1  # times the budget, from which on something is left out
KEPT = 2  # pretrainings of the first method: of fewer there is no spread

logger = logging.getLogger("densessl")


class Watch:
    """``leaves_out(job)``, asked before each: whether the whole would pass the budget with it.

    What can be left out are the pretrainings of all methods but the first, and of that one those
    beyond two. It is said in the log and in the plan.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path):
        self.jobs, self.folder = jobs, folder
        self.left: set[str] = set()
        self.warned = False

    def leaves_out(self, job: Job) -> bool:
        plan = model.read(self.folder)
        if plan is None or not plan.budget_s:
            return False
        if _is_of_none(plan, job, self.left):
            self.left.add(job.name)
            return True
        done = Finished(self.jobs, self.folder)
        took = {each.name: done.seconds(each.name) for each in self.jobs}
        spent, slower = _so_far(plan, took)
        ahead = sum(
            plan.expected.get(name, 0)
            for name, seconds in took.items()
            if seconds is None and (name == job.name or not self._may_go(plan, name))
        )
        in_all = spent + slower * ahead
        if in_all <= LATE * plan.budget_s:
            return False
        late = f"{duration(in_all)} of {duration(plan.budget_s)}: the jobs take {slower:.1f} times "
        late += "as long as was measured before"
        if job.name not in _extras(plan):
            if not self.warned:
                logger.warning("the study will take about %s", late)
            self.warned = True
            return False
        self.left.add(job.name)
        sentence = f"{job.name} is left out; with it the study would take about {late}"
        logger.warning("%s", sentence)
        plan.with_left_out(sentence).write(self.folder)
        return True

    def _may_go(self, plan: Plan, name: str) -> bool:
        return name in self.left or name in _extras(plan)


def _so_far(plan: Plan, took: dict[str, float | None]) -> tuple[float, float]:
    """The seconds of finished jobs, and how many times as long they took as was expected."""
    known = {name: seconds for name, seconds in took.items() if seconds and name in plan.expected}
    spent, meant = sum(known.values()), sum(plan.expected[name] for name in known)
    return spent, max(spent / meant, 1.0) if meant else 1.0


def _extras(plan: Plan) -> set[str]:
    """The jobs without which there is still an answer."""
    methods = [arm for arm in plan.arms if arm.kind == PRETRAINED]
    return {
        f"pretrain-{arm.name}-{seed}"
        for number, arm in enumerate(methods)
        for seed in range(0 if number else KEPT, arm.pretrainings)
    }


def _is_of_none(plan: Plan, job: Job, left: set[str]) -> bool:
    """Whether a job measures a method whose pretrainings were all left out."""
    return bool(job.after) and job.name.startswith("measure-") and set(job.after) <= left
