"""k-NN accuracy by stage of the backbone (SCFS, Figure 4)."""

import logging
import re
from collections.abc import Sequence

from densessl.core.errors import InputError, unknown

from ..compare.selection import of_one_kind
from ..results import Record, config_of
from ..tables.pretrainings import by_recipe
from .model import Line, Plot, PlotPanel, line_of
from .trials import Choice, check, labels, names_of, notes, points_of

logger = logging.getLogger("densessl")

STAGE = re.compile(r"((?:res|block)\d+)_k(\d+)")
METRICS = ("knn/top1", "knn/top5")

Accuracies = dict[tuple[str, int], float]  # by stage and k


def layers(records: Sequence[Record], choice: Choice, k: int | None = None) -> Plot:
    """A line for each model, from records of ``--protocol knn --variant stages``.

    ``choice.metric``: ``knn/top1`` (default) or ``knn/top5``. ``k``: how many neighbours vote;
    default: the records' KNN.K. Other records are left out with a warning. Raises InputError where
    none is left, for another metric, for a ``k`` that was not measured, for stages of different
    networks, and for records that do not compare or have no average.
    """
    metric = choice.metric or METRICS[0]
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS, "--metric")
    usable = [record for record in records if accuracies(record, metric)]
    if not usable:
        if any(_stage(name, metric) for record in records for name in record.metrics):
            raise InputError(f"{metric} is undefined at every stage of every record")
        raise InputError(
            f"no record has {metric} by stage; measure it: densessl transfer WEIGHTS --protocol "
            "knn --variant stages --trials 1 -o DIR"
        )
    if len(usable) < len(records):
        logger.warning(
            "%d of %d records are left out: they have no %s by stage",
            len(records) - len(usable),
            len(records),
            metric,
        )
    found = of_one_kind(usable, choice.protocol, choice.variant)
    k = _usual_k(found) if k is None else k
    stages = _stages(found, metric, k)
    models = by_recipe(found)
    lines = [
        _line(label, trials, metric, stages, k, choice.spread)
        for label, trials in zip(
            labels([names_of(trials) for trials in models]), models, strict=True
        )
    ]
    name = metric.rpartition("/")[2].replace("top", "top-")
    mini = " (miniature)" if found[0].mini else ""
    panel = PlotPanel("stage", f"k-NN {name} (%), k = {k}{mini}", lines, tuple(stages))
    return Plot([panel], notes(lines, models, choice.spread))


def accuracies(record: Record, metric: str) -> Accuracies:
    """The record's values of a metric by stage and k, as ``knn/top1_res4_k20`` names them."""
    found = {}
    for name, value in record.metrics.items():
        stage = _stage(name, metric)
        if stage and value == value:  # not NaN
            found[stage[1], int(stage[2])] = value
    return found


def _stage(name: str, metric: str) -> re.Match | None:
    """The stage and the k in a metric's name, where it is of ``metric``."""
    return STAGE.fullmatch(name.removeprefix(f"{metric}_"))


def _usual_k(records: Sequence[Record]) -> int:
    """The k whose accuracy the records' ``knn/top1`` is."""
    from ..classification.config import C

    ks = {(config_of(record) or {}).get("KNN.K", C.KNN.K) for record in records}
    if len(ks) > 1:
        raise InputError(f"the records' KNN.K are {', '.join(sorted(map(str, ks)))}; name one: --k")
    return ks.pop()


def _stages(records: Sequence[Record], metric: str, k: int) -> list[str]:
    """All stages in the order of the network."""
    measured = {id(record): accuracies(record, metric) for record in records}
    for record in records:
        ks = sorted({each for _, each in measured[id(record)]})
        if k not in ks:
            raise InputError(
                f"k is {k}, but {record.folder} has {metric} at k = {', '.join(map(str, ks))}"
            )
    stages = {stage for found in measured.values() for stage, at in found if at == k}
    if len({stage.rstrip("0123456789") for stage in stages}) > 1:
        raise InputError(
            f"the records are of ResNets and of vision transformers ({', '.join(sorted(stages))}), "
            "whose stages do not compare; name the folders of one kind"
        )
    return sorted(stages, key=lambda stage: int(re.sub(r"\D", "", stage)))


def _line(
    label: str, trials: list[Record], metric: str, stages: list[str], k: int, spread: str
) -> Line:
    check(trials)
    points: dict[float, list[float]] = {
        stages.index(stage): points_of(trials, f"{metric}_{stage}_k{k}")
        for stage, at in dict.fromkeys(key for trial in trials for key in accuracies(trial, metric))
        if at == k
    }
    return line_of(label, points, spread)
