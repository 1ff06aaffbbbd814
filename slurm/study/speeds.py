"""A few seconds of each kind of work on this machine: what a study would take."""

import time

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode

import probes
from d2_transfer.classification.networks import build_backbone
from d2_transfer.dense_probes.data import read
from d2_transfer.dense_probes.loading import Samples
from d2_transfer.dense_probes.probing import levels_of
from pretrain import advise_trial
from pretrain.views import ImageSource

from .recipe import Recipe

IMAGES = 8  # of the trial of a probe
FITTED = 5  # steps of it
SECONDS = 3.0  # of the trial of a pretraining
EACH = 1.0  # what a trial does beside: reads its data, writes its record


class Steps:
    """``seconds(recipe)``: of a step of its pretraining here, measured once."""

    def __init__(self, source: ImageSource):
        self.source = source
        self.speeds: dict[tuple, float] = {}  # images a second

    def images_per_second(self, recipe: Recipe) -> float:
        key = (recipe.config, recipe.view)
        if key not in self.speeds:
            advice = recipe.advice(100)
            share = advice.cfg.SOLVER.BATCH_SIZE // advice.processes
            trial = advise_trial.measure(advice.cfg, self.source, share, SECONDS)
            self.speeds[key] = trial.images_per_second * advice.processes
        return self.speeds[key]

    def __call__(self, recipe: Recipe) -> float:
        batch = recipe.advice(100).cfg.SOLVER.BATCH_SIZE
        return batch / self.images_per_second(recipe)


class Probe:
    """``seconds(images, positions)``: of a trial of linear_semseg that learns from ``images``.

    Measured on a few images with a random network: from the file to its features, a step of the
    fit for each position, the evaluation of an image.
    """

    def __init__(self, cfg: CfgNode, own, validation: int):
        train, _ = read(cfg, own)
        device = torch.device(cfg.MODEL.DEVICE)
        network = build_backbone(cfg.MODEL.BACKBONE, "", cfg.INPUT.SIZE, 0).eval().to(device)
        levels = levels_of(cfg, network)
        self.positions, self.steps, self.validation = levels.positions, cfg.LINEAR.STEPS, validation
        samples = Samples(train, cfg, levels.grid)
        numbers = range(min(IMAGES, len(train)))
        with torch.no_grad():
            levels(samples[0][0][None].to(device))  # warm
            began = time.perf_counter()
            images, counts = zip(*(samples[number] for number in numbers), strict=True)
            maps = levels(torch.stack(images).to(device))
            rows = maps.flatten(2).transpose(1, 2).flatten(0, 1).cpu()
            self.image = (time.perf_counter() - began) / len(numbers)
        classes = len(train.classes)
        began = time.perf_counter()
        layer = probes.linear_probe(
            rows.to(device), torch.cat(counts), classes, batch_norm=True, iterations=FITTED
        )
        self.fit = (time.perf_counter() - began) / FITTED / len(rows)
        began = time.perf_counter()
        logits = F.linear(rows[: levels.positions].to(device), layer.weight, layer.bias)
        labels = train.labels_of(0)
        found = probes.upsampled(logits.T.unflatten(1, levels.grid)[None], labels.shape)
        probes.Confusion(classes).add(found[0].argmax(0).cpu(), labels)
        self.evaluation = time.perf_counter() - began

    def __call__(self, images: int, positions: int) -> float:
        learnt = min(positions, images * self.positions)
        return (
            EACH
            + images * self.image
            + self.validation * (self.image + self.evaluation)
            + self.steps * learnt * self.fit
        )
