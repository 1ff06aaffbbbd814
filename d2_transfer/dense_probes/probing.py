"""The three measures on features of positions: their probes, and pixels counted against labels."""

import logging
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl import probes
from densessl.core import waiting
from densessl.core.distributed import all_reduce_sum, any_rank, from_first, rank, world_size
from densessl.core.errors import InputError, StoppedEarly
from densessl.core.progress import Bar

from .. import channels
from ..classification import controls
from ..classification.networks import build_backbone, stages_of
from .data import Split
from .features import DenseFeatures, Draw, Levels
from .loading import Samples
from .predictions import Predictions
from .windows import Windows, bands, cut

logger = logging.getLogger("densessl")
Predict = Callable[[Tensor], Tensor]  # features [n, C] -> logits or probabilities [n, classes]


def measure(
    cfg: CfgNode,
    train: Split,
    test: Split,
    sha256: str,
    cache: Path,
    device: torch.device,
    trial: Path | None = None,
) -> dict[str, float]:
    """The metrics of ``cfg.TASK``, per cent; ``sha256``: of the weights; ``trial``: the folder that
    TEST.PREDICTIONS go to."""
    train, test = cut(train, cfg), cut(test, cfg)
    backbone = build_backbone(
        cfg.MODEL.BACKBONE, cfg.MODEL.WEIGHTS, cfg.INPUT.SIZE, cfg.SEED, channels.of(cfg)
    )
    backbone = backbone.eval().requires_grad_(False).to(device)
    controls.settle(backbone, Samples(train, cfg), len(train), cfg, train.path)
    if cfg.MODEL.CHANNELS_LAST:
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    levels = levels_of(cfg, backbone)
    start = controls.start_of(cfg, sha256, train.fingerprint)
    if cfg.TASK == "overcluster":
        drawn = _drawn(cfg, levels, test, start, cache)
        drawn.compute("features of the test images")
        return _clustered(cfg, drawn, device)
    memory = _drawn(cfg, levels, train, start, cache)
    queries = DenseFeatures(cfg, levels, test, start, cache)
    memory.compute("features of the training images")
    queries.compute("features of the test images")
    kept = Predictions(trial, test.whole, cfg.TEST.PREDICTIONS) if trial else None
    if cfg.TASK == "linear_semseg":
        (found,) = evaluate(queries, [_linear(cfg, memory, device)], kept)
        return _metrics(found, test)
    searches = _searches(cfg, memory, device)
    confusions = evaluate(queries, list(searches.values()), kept)
    of_shares = {
        f"sem_seg/mIoU_{share.replace('/', '_')}": found.miou()
        for share, found in zip(searches, confusions, strict=True)
    }
    return _metrics(confusions[-1], test) | of_shares


def levels_of(cfg: CfgNode, backbone) -> Levels:
    """The levels that FEATURES.LEVELS names."""
    names = stages_of(backbone.name, cfg.FEATURES.LEVELS, "FEATURES.LEVELS")
    return Levels(backbone, names, tuple(cfg.INPUT.SIZE))


def _drawn(cfg: CfgNode, levels: Levels, split: Split, start: str, cache: Path) -> DenseFeatures:
    each = max(cfg.FEATURES.POSITIONS // len(split), 1)
    draw = Draw(each, cfg.TASK == "knn_semseg", cfg.SEED)
    return DenseFeatures(cfg, levels, split, start, cache, draw)


def _linear(cfg: CfgNode, memory: DenseFeatures, device: torch.device) -> Predict:
    """The layer that one process fits, and all have."""
    classes = len(memory.split.classes)
    weight = torch.empty(classes, memory.levels.channels, device=device)
    bias = torch.empty(classes, device=device)
    if rank() == 0:
        layer = _fit(cfg, memory, device)
        weight.copy_(layer.weight)
        bias.copy_(layer.bias)
    from_first(weight)
    from_first(bias)
    return lambda rows: F.linear(rows, weight, bias)


def _fit(cfg: CfgNode, memory: DenseFeatures, device: torch.device) -> probes.LinearProbe:
    features, counts = (_whole(memory, name) for name in ("features", "counts"))
    with Bar("linear layer", cfg.LINEAR.STEPS) as bar:

        def report(step: int, loss: float) -> None:
            _stop_alone()
            bar.advance(note=f"loss {loss:.4f}")

        layer = probes.linear_probe(
            features.to(device),
            counts,
            counts.shape[1],
            l2=cfg.LINEAR.L2,
            batch_norm=cfg.LINEAR.BATCH_NORM,
            iterations=cfg.LINEAR.STEPS,
            report=report,
        )
    logger.info(
        "linear layer on %d positions of %d channels: loss %.4f after %d steps",
        features.shape[0],
        features.shape[1],
        layer.loss,
        layer.iterations,
    )
    if not layer.converged:
        logger.info(
            "it is not at its optimum (gradient %.1e): LINEAR.STEPS is %d",
            layer.gradient,
            cfg.LINEAR.STEPS,
        )
    return layer


def _searches(cfg: CfgNode, memory: DenseFeatures, device: torch.device) -> dict[str, Predict]:
    """For each share of the training images the search among their positions."""
    features, counts, images = (_whole(memory, name) for name in memory.names)
    images = torch.from_numpy(memory.split.images_of(images.numpy()))
    labels = probes.shares(counts)
    found: dict[str, Predict] = {}
    for share in map(str, cfg.KNN.SHARES):
        chosen = probes.subset(len(memory.split.whole), share, cfg.SEED)
        kept: Any = torch.isin(images, torch.tensor(chosen))
        if Fraction(share) == 1:
            kept = slice(None)
        keys, values = features[kept].to(device), labels[kept].to(device)
        if not len(keys):
            raise InputError(f"{memory.where}: no pixel of KNN.SHARES {share} has a class")

        def search(rows: Tensor, keys=keys, values=values) -> Tensor:
            k, temperature = cfg.KNN.K, cfg.KNN.TEMPERATURE
            return probes.knn_segment(rows, keys, values, k, temperature)

        found[share] = search
    return found


def _clustered(cfg: CfgNode, drawn: DenseFeatures, device: torch.device) -> dict[str, float]:
    """As many clusters as classes, one a class; and more, each the class that most of it has.

    Classes are those that a label shows: a cluster for another one could only be wrong.
    """
    if rank():
        return {}
    features, counts = (_whole(drawn, name) for name in ("features", "counts"))
    classes = int(counts.any(0).sum())
    if (most := max(classes, *cfg.CLUSTERS.COUNTS, 1)) > len(features):
        raise InputError(
            f"CLUSTERS.COUNTS is {tuple(cfg.CLUSTERS.COUNTS)} beside one a class; {most} clusters "
            f"need more than the {len(features)} labelled positions of {drawn.where}: fewer, or "
            "another INPUT.SIZE or FEATURES.LEVELS"
        )
    metrics: dict[str, float] = {}
    for clusters in (classes, *cfg.CLUSTERS.COUNTS):
        found = probes.overcluster(
            features.to(device),
            counts,
            clusters,
            seed=cfg.SEED,
            matching="hungarian" if clusters <= classes else "precision",
            restarts=cfg.CLUSTERS.STARTS,
            report=lambda step, inertia: _stop_alone(),
        )
        if not metrics:
            metrics = _metrics(found.confusion, drawn.split)
        metrics[f"sem_seg/mIoU_k{clusters}"] = found.miou
    return metrics


def evaluate(
    queries: DenseFeatures, predictors: Sequence[Predict], kept: Predictions | None = None
) -> list[probes.Confusion]:
    """The pixels of all images, for each predictor.

    Its logits or probabilities are upsampled to the label image, where the largest is the class; of
    windows their mean (:func:`windows.bands`). Each process takes its share of the pieces, or of
    the images that are cut into windows. What the last predictor finds goes to ``kept``. Raises
    StoppedEarly between two of these.
    """
    if kept and rank() == 0:
        kept.begin()
    split, device = queries.split, queries.device
    window = None
    counted = [probes.Confusion(len(split.classes)) for _ in predictors]
    shares = [queries.images_of(first) for first in queries.firsts]
    if isinstance(split, Windows):
        shares, window = split.of_images(), split.window
    rounds = [shares[n : n + world_size()] for n in range(0, len(shares), world_size())]
    with Bar("evaluation", len(rounds)) as bar:
        for share in rounds:
            numbers = share[rank()] if rank() < len(share) else range(0)
            maps = _maps(queries, predictors, numbers)
            for number in dict.fromkeys(split.images_of(numbers).tolist()):
                labels, classes = split.whole.labels_of(number), []
                size = labels.shape[0], labels.shape[1]
                for rows, found in bands(maps, size, window):
                    for confusion, each in zip(counted, found, strict=True):
                        confusion.add(each.cpu(), labels[rows])
                    classes.append(found[-1].byte())
                if kept:
                    kept.keep(number, torch.cat(classes), labels)
            bar.advance()
            if share is not rounds[-1]:
                _stop(any_rank(waiting.asked()))
    for confusion in counted:
        confusion.counts = all_reduce_sum(confusion.counts.to(device)).cpu()
    return counted


def _maps(
    queries: DenseFeatures, predictors: Sequence[Predict], numbers: range
) -> Iterator[list[Tensor]]:
    """What each predictor makes of each image's positions, ``[1, classes, h, w]``."""
    positions, grid, size = queries.levels.positions, queries.levels.grid, queries.size
    for first in range(numbers.start // size * size, numbers.stop, size):
        held = queries.images_of(first)
        wanted = range(max(held.start, numbers.start), min(held.stop, numbers.stop))
        begin, end = ((number - first) * positions for number in (wanted.start, wanted.stop))
        rows = queries.read("features", first)[begin:end].to(queries.device)
        found = [predict(rows).unflatten(0, (len(wanted), *grid)) for predict in predictors]
        for place in range(len(wanted)):
            # A slice, not [None]: PyTorch upsamples maps whose strides are not those of channels
            # last, in the dimension of one image, too, eight times slower on a CPU.
            yield [values[place : place + 1].permute(0, 3, 1, 2) for values in found]


def _whole(features: DenseFeatures, name: str) -> Tensor:
    return torch.cat(list(features.pieces(name)))


def _metrics(confusion: probes.Confusion, split: Split) -> dict[str, float]:
    """As the fine-tuned protocols record them."""
    from ..evaluation import flat_metrics
    from ..evaluation.semantic import metrics

    return flat_metrics({"sem_seg": metrics(confusion.counts.numpy(), split.classes)})


def _stop_alone() -> None:
    """Within what one process does: the others wait for it, and cannot stop with it."""
    _stop(waiting.asked() and world_size() == 1)


def _stop(asked: bool) -> None:
    if asked:
        raise StoppedEarly("stopped; the features are saved, and the same command resumes")
