"""From the command to the plan: what is compared, on which shares of the labels, for how long."""

import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from densessl.core.errors import InputError, unknown
from densessl.d2_transfer.option_rules import BACKBONES
from densessl.pretrain.advise import look, machine_of
from densessl.pretrain.advise_model import ImageStats, Machine
from densessl.pretrain.advise_rules import FEWEST
from densessl.pretrain.views import ImageSource, build_source

from ..jobs import RANDOM_STARTS as CONTROLS
from ..pipeline import NAME
from . import draws, recipe
from .budget import Costs, Fitting, Offer
from .graph import Data, StudyMachines
from .model import GIVEN, PRETRAINED, RANDOM, Arm, Plan, parse_duration, unique
from .recipe import Recipe

logger = logging.getLogger("densessl")
DECIDES = (
    "images",
    "train",
    "val",
    "task",
    "budget",
    "methods",
    "seeds",
    "labels",
    "network",
    "steps",
    "classes",
    "ignore",
    "image_suffix",
    "mask_suffix",
    "mini",
)


class Planner:
    """What the command asks for, checked; :meth:`plan` measures, and fits it into the budget."""

    def __init__(
        self, args: Namespace, folder: Path, data: Data, machines: StudyMachines, command: str
    ):
        self.args, self.folder, self.data = args, folder, data
        self.machines, self.command = machines, command
        self.budget = parse_duration(args.budget, "--budget") if args.budget else None
        self.weights = given_weights(args.weights)
        self.source = source_of(args.images)
        if len(self.source) < FEWEST:
            raise InputError(
                f"--images: {self.source.where} has {len(self.source)} images; "
                f"{FEWEST} or more are needed"
            )
        self.images: ImageStats = look(self.source)
        self.machine: Machine = machine_of(machines.gpus * machines.nodes)
        self.network = self._network()
        methods = methods_of(args) or recipe.default_methods(self.images)
        self.asked = args.methods is not None
        self.recipes = tuple(self._recipe(method) for method in methods)
        self.seeds = args.seeds
        unique([*CONTROLS, *self.weights, *(each.name for each in self.recipes)], "the arm")
        numbers = range(self.seeds)
        needed = draws.least(data.classes_of, numbers)
        self.shares, self.notes = draws.shares(data.images, percents(args.labels), needed)

    def _recipe(self, method: str) -> Recipe:
        return recipe.first(method, self.network, self.images, self.machine)

    def _network(self) -> str:
        """That of the given weights, which all arms have; else what suits the images."""
        found = {name: network_in(file) for name, file in self.weights.items()}
        if self.args.network:
            found["--network"] = self.args.network
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name}: {network}" for name, network in found.items())
            raise InputError(f"all arms have one network, and these are several: {listed}")
        if found:
            return next(iter(found.values()))
        return recipe.default_network(self.images, self.machine)

    def _controls(self) -> tuple[str, ...]:
        """Random starts: batch norm of the data only where a network stays frozen."""
        frozen = self.data.frozen and self.network.startswith("resnet")
        return CONTROLS if frozen else CONTROLS[:1]

    def plan(self) -> Plan:
        """The plan; what was measured for it took some seconds."""
        began = time.monotonic()
        cuda = self.machines.gpus > 0
        offer = Offer(
            recipes=self.recipes,
            shares=tuple(self.shares),
            seeds=self.seeds,
            others=len(self._controls()) + len(self.weights),
            asked=self.asked,
            efforts=self.data.efforts,
        )
        costs = self._costs(cuda)
        if self.budget and costs:
            offer = Fitting(costs, self.budget, time.monotonic() - began).fit(offer)
        steps = offer.steps or (self.args.steps,) * len(offer.recipes)
        arms = [Arm(name, RANDOM, trials=offer.seeds) for name in self._controls()]
        given = self.weights.items()
        arms += [Arm(name, GIVEN, str(file), trials=offer.seeds) for name, file in given]
        for each, most in zip(offer.recipes, steps, strict=True):
            arms.append(self._pretrained(each, most, offer.seeds, costs))
        return Plan(
            task=self.args.task,
            images=self.args.images,
            n_images=self.images.number,
            train=self.args.train,
            val=self.args.val,
            network=self.network,
            protocols=self.data.protocols(self.network, cuda, offer.effort),
            arms=tuple(arms),
            labels=offer.shares,
            seeds=offer.seeds,
            mini=self.args.mini,
            budget_s=self.budget,
            left_out=(*self.notes, *offer.notes),
            command=self.command,
            told=identity(self.args, self.machines.gpus),
            expected=self._expected(offer, arms, costs) if costs else {},
        )

    def _costs(self, cuda: bool) -> Costs | None:
        """What things take here; None where the jobs run elsewhere, with other machines."""
        import torch

        if self.args.no_trial:
            return None
        if not self.machines.local and not (cuda and torch.cuda.is_available()):
            if self.budget:
                raise InputError(
                    "--budget takes speeds that are measured, and the machines of the cluster are "
                    "not those here; submit from a machine like them, or leave --budget out"
                )
            return None
        from . import speeds

        start = time.process_time()  # of this process, which has now imported what they do
        logger.info("a trial of each kind of work, some seconds each")
        trial, network = self.data.trial_seconds(self.network, cuda)
        return Costs(start, trial, speeds.Steps(self.source), network)

    def _pretrained(self, each: Recipe, most: int | None, seeds: int, costs: Costs | None) -> Arm:
        words, cfg = each.words(most)
        batch = cfg.SOLVER.BATCH_SIZE
        return Arm(
            each.name,
            PRETRAINED,
            config=each.config,
            options=words,
            pretrainings=seeds,
            steps=recipe.run_steps(cfg, self.images.number),
            steps_full=each.full,
            images_per_second=round(batch / costs.step(each), 2) if costs else None,
        )

    def _expected(self, offer: Offer, arms: Sequence[Arm], costs: Costs) -> dict[str, float]:
        each = costs.draw(offer.effort, offer.shares)
        found = {f"measure-{arm.name}": costs.start + offer.seeds * each for arm in arms}
        recipes = {each.name: each for each in offer.recipes}
        for arm in arms:
            for seed in range(arm.pretrainings):
                seconds = costs.start + arm.steps * costs.step(recipes[arm.name])
                found[f"pretrain-{arm.name}-{seed}"] = seconds
        found["page"] = costs.start
        return {name: round(seconds, 1) for name, seconds in found.items()}


def source_of(path: str) -> ImageSource:
    """The unlabelled images; its messages name the flag."""
    try:
        return build_source(CfgNode({"DATA": {"SOURCE": "folder", "PATH": path}}))
    except InputError as error:
        raise InputError(str(error).replace("DATA.PATH", "--images")) from None


def check(args: Namespace) -> None:
    """InputError for words that are wrong by themselves, before any file is read."""
    if args.budget:
        parse_duration(args.budget, "--budget")
    given_weights(args.weights)
    percents(args.labels)
    methods_of(args)
    if args.network and args.network not in BACKBONES:
        raise unknown("network", args.network, BACKBONES, "--network")


def methods_of(args: Namespace) -> tuple[str, ...]:
    """The methods that were named; none: ()."""
    if args.methods is None:
        return ()
    methods = tuple(filter(None, args.methods.split(",")))
    for method in methods:
        recipe.check(method)
    if not methods:
        raise InputError(
            f"--methods is '{args.methods}'; allowed: names of configs, as simclr,densecl"
        )
    return methods


def identity(args: Namespace, gpus: int) -> dict[str, Any]:
    """What decides which study it is."""
    more = {"weights": list(args.weights), "gpus": gpus}
    return {name: getattr(args, name) for name in DECIDES} | more


def given_weights(words: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE`` of each; InputError."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not (equals and file and NAME.fullmatch(name)):
            raise InputError(f"--weights '{word}' is not NAME=FILE, as imagenet=resnet50.pth")
        if not Path(file).is_file():
            raise InputError(f"--weights {name}: the file '{file}' is not there")
        if name in found:
            raise InputError(f"--weights: the name '{name}' is there twice")
        found[name] = Path(file).absolute()
    return found


def network_in(file: Path) -> str:
    """The network of a checkpoint; InputError for one that is not understood."""
    from densessl.weight_files.recognise import from_file

    return from_file(file)[1].network


def percents(word: str) -> list[float]:
    """The shares of the labels, in per cent."""
    try:
        found = [float(part.strip().rstrip("%")) for part in word.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each <= 100 for each in found):
        raise InputError(f"--labels is '{word}'; allowed: per cent above 0 to 100, as 1,10,100")
    return found
