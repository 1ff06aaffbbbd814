"""The protocol ``knn``: weighted nearest neighbours on frozen features."""

from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from densessl.core import knn
from densessl.core.distributed import rank, world_size

from . import controls
from .accuracy import Counts
from .features import Features
from .images import Images
from .loading import EvaluationCrops
from .networks import build_backbone, stages_of


def evaluate(
    cfg: CfgNode, train: Images, test: Images, sha256: str, cache: Path, device: torch.device
) -> dict[str, float]:
    """The accuracy at every k of KNN.KS and every stage of KNN.STAGES, per cent.

    ``knn/top1`` and ``knn/top5`` are those of k = KNN.K at the last of the stages; beside them
    ``knn/top1_k10`` … (with several stages ``knn/top1_res4_k10`` …). The features of a class of
    their own kind on disk: :class:`Features`; no matrix of all similarities is made. ``sha256``: of
    the weights.
    """
    start = controls.start_of(cfg, sha256, train.fingerprint)
    backbone = build_backbone(cfg.MODEL.BACKBONE, cfg.MODEL.WEIGHTS, cfg.INPUT.SIZE, cfg.SEED)
    backbone = backbone.eval().requires_grad_(False).to(device)
    controls.settle(backbone, EvaluationCrops(train, cfg), len(train), cfg, train.path)
    if cfg.MODEL.CHANNELS_LAST:
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stages = stages_of(backbone.name, cfg.KNN.STAGES)
    database, queries = (
        Features(cfg, backbone, stages, images, start, cache) for images in (train, test)
    )
    database.compute("features of the training images")
    queries.compute("features of the test images")
    metrics: dict[str, float] = {}
    for stage in stages:
        found = _accuracies(cfg, database, queries, stage, device)
        for k, counts in found.items():
            name = f"{stage}_k{k}" if len(stages) > 1 else f"k{k}"
            metrics |= {f"knn/top1_{name}": counts.top1(), f"knn/top5_{name}": counts.top5()}
    chosen = found[cfg.KNN.K]
    return {"knn/top1": chosen.top1(), "knn/top5": chosen.top5()} | metrics


def _accuracies(
    cfg: CfgNode, database: Features, queries: Features, stage: str, device: torch.device
) -> dict[int, Counts]:
    """For each k the counts over all test images, of which each process takes its share."""
    mine = torch.arange(rank(), len(queries.images), world_size())
    rows = knn.unit(torch.cat(list(queries.pieces(stage)))[mine].to(device))
    parts = (knn.unit(part.to(device)) for part in database.pieces(stage))
    labels = torch.from_numpy(database.images.labels).to(device)
    truth = torch.from_numpy(queries.images.labels)[mine].to(device)
    classes = len(database.images.classes)
    found = knn.classify(rows, parts, labels, classes, cfg.KNN.KS, cfg.KNN.TEMPERATURE)
    counted = {}
    for k, predictions in found.items():
        counts = Counts(1, classes, device)
        counts.add(predictions[None], truth)
        counted[k] = counts.gathered()
    return counted
