"""A few seconds of each kind of work on this machine: what a study would take."""

import itertools
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode

from densessl import probes
from densessl.core.loader import close_all
from densessl.d2_transfer.classification.images import Images
from densessl.d2_transfer.classification.loading import EvaluationCrops
from densessl.d2_transfer.classification.networks import build_backbone
from densessl.d2_transfer.datasets import custom
from densessl.d2_transfer.dense_probes.data import read
from densessl.d2_transfer.dense_probes.loading import Samples
from densessl.d2_transfer.dense_probes.own import OwnData
from densessl.d2_transfer.dense_probes.probing import levels_of
from densessl.d2_transfer.trials import detectron2_log
from densessl.pretrain import advise_trial
from densessl.pretrain.views import ImageSource

from .recipe import Recipe

IMAGES = 8  # of the trial of a probe
FITTED, FITTED_POSITIONS = 5, 8192  # steps of it, and of how many positions
SECONDS = 3.0  # of the trial of a pretraining
EACH = 1.0  # what a trial does beside: reads its data, writes its record


class Steps:
    """``seconds(recipe)``: of a step of its pretraining here, measured once."""

    def __init__(self, source: ImageSource):
        self.source = source
        self.seconds: dict[tuple, float] = {}

    def __call__(self, recipe: Recipe) -> float:
        key = (recipe.config, recipe.view)
        if key not in self.seconds:
            advice = recipe.advice(100)
            batch = advice.cfg.SOLVER.BATCH_SIZE
            share = batch // advice.processes
            trial = advise_trial.measure(advice.cfg, self.source, share, SECONDS)
            self.seconds[key] = batch / (trial.images_per_second * advice.processes)
        return self.seconds[key]


class Probe:
    """``seconds(images, positions)``: of a trial of linear_semseg that learns from ``images``.

    Measured on a few images with a random network: from the file to its features, a step of the
    fit for each position, the evaluation of an image.
    """

    def __init__(self, cfg: CfgNode, own: OwnData, validation: int):
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
        often = -(-FITTED_POSITIONS // len(rows))  # of few positions what is done once is the most
        many, labels = rows.repeat(often, 1).to(device), torch.cat(counts).repeat(often, 1)
        took = []
        for steps in (1, 1 + FITTED):
            began = time.perf_counter()
            layer = probes.linear_probe(many, labels, classes, batch_norm=True, iterations=steps)
            took.append((time.perf_counter() - began) / len(many))
        self.once, self.fit = took[0], max(took[1] - took[0], 0) / FITTED
        confusion = probes.Confusion(classes)
        for _ in range(2):  # the first warms up
            began = time.perf_counter()
            logits = F.linear(rows[: levels.positions].to(device), layer.weight, layer.bias)
            truth = train.labels_of(0)
            found = probes.upsampled(logits.T.unflatten(1, levels.grid)[None], truth.shape)
            confusion.add(found[0].argmax(0).cpu(), truth)
            self.evaluation = time.perf_counter() - began

    def __call__(self, images: int, positions: int) -> float:
        learnt = min(positions, images * self.positions)
        return (
            EACH
            + images * self.image
            + self.validation * self.evaluation
            + learnt * (self.once + self.steps * self.fit)
        )


class TimedClassifier:
    """``image``: seconds of an image in a step of ``linear``, and as long in its evaluation."""

    def __init__(self, cfg: CfgNode, train: Images):
        device = torch.device(cfg.MODEL.DEVICE)
        network = build_backbone(cfg.MODEL.BACKBONE, "", cfg.INPUT.SIZE, 0).eval().to(device)
        samples = EvaluationCrops(train, cfg)
        count = min(2 * IMAGES, len(train))
        with torch.no_grad():
            network(samples[0][0][None].to(device))  # warm
            began = time.perf_counter()
            network(torch.stack([samples[number][0] for number in range(count)]).to(device)).cpu()
        self.image = (time.perf_counter() - began) / count


class Detector:
    """``step``: seconds of an iteration; ``image``: of the evaluation of an image; ``beside``: of
    what comes before and after. Measured with a detector of a random start."""

    def __init__(self, cfg: CfgNode, data: custom.Custom):
        began = time.perf_counter()
        from detectron2.utils.events import EventStorage

        from densessl.d2_transfer.trainer import Trainer

        custom.register(data)
        with (
            tempfile.TemporaryDirectory() as folder,
            detectron2_log(Path(folder) / "log.txt", main=True),
        ):
            cfg = cfg.clone()
            cfg.defrost()
            cfg.OUTPUT_DIR = folder
            cfg.SEED = 0
            cfg.freeze()
            trainer = Trainer(cfg)
            try:
                with EventStorage(0):
                    trainer.run_step()  # warm
                    self.beside = EACH + time.perf_counter() - began
                    self.step = self._seconds(trainer)
                self.image = self._evaluated(trainer, cfg)
            finally:
                close_all()

    def _seconds(self, trainer) -> float:
        began, done = time.perf_counter(), 0
        while done < FITTED and (not done or time.perf_counter() - began < SECONDS):
            trainer.iter += 1
            trainer.run_step()
            done += 1
        return (time.perf_counter() - began) / done

    def _evaluated(self, trainer, cfg) -> float:
        loader = trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
        model = trainer._bare_model().eval()
        began, done = time.perf_counter(), 0
        with torch.no_grad():
            for batch in itertools.islice(loader, IMAGES):
                model(batch)
                done += len(batch)
        return (time.perf_counter() - began) / done
