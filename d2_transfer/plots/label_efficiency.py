"""A metric over the share of the training images that kept their labels (``transfer --labels``)."""

import logging
from collections.abc import Sequence

from densessl.core.errors import InputError

from ..compare.selection import metrics_of, of_one_kind
from ..results import Record
from ..tables.pretrainings import by_recipe
from .model import Plot, PlotPanel
from .trials import Choice, check, labels, line_through, names_of, notes, y_label

logger = logging.getLogger("densessl")

ALL = 100.0
AXIS = "training images with labels (%)"


def by_labels(records: Sequence[Record], choice: Choice) -> Plot:
    """A line for each pretraining, on a logarithmic axis; records without a share have all labels.

    Records of a number of images whose share is not known are left out with a warning. Raises
    InputError where nothing is left, for records that do not compare, and for trials that have no
    average.
    """
    usable = [record for record in records if _percent(record) is not None]
    if len(usable) < len(records):
        logger.warning(
            "%d of %d records are left out: they tell a number of images (--labels), and not its "
            "share; give it in per cent",
            len(records) - len(usable),
            len(records),
        )
    if not usable:
        raise InputError("no record tells the share of the images that kept their labels")
    found = of_one_kind(usable, choice.protocol, choice.variant)
    metric = metrics_of(found, [choice.metric] if choice.metric else [])[0]
    models = by_recipe(found)
    shares = [_by_share(trials) for trials in models]
    names = labels([names_of(trials) for trials in models])
    lines = [
        line_through(label, each, metric, choice.spread)
        for label, each in zip(names, shares, strict=True)
    ]
    ticks = {x: f"{x:g}" for each in shares for x in each}
    panel = PlotPanel(AXIS, y_label(metric, found[0]), lines, log=dict(sorted(ticks.items())))
    full = [each[max(each)] for each in shares]
    return Plot([panel], notes(lines, full, choice.spread))


def _by_share(trials: Sequence[Record]) -> dict[float, list[Record]]:
    found: dict[float, list[Record]] = {}
    for trial in trials:
        percent = _percent(trial)
        assert percent is not None  # only those that tell it are here
        found.setdefault(percent, []).append(trial)
    for each in found.values():
        check(each)
    return found


def _percent(record: Record) -> float | None:
    return record.labels.get("percent") if record.labels else ALL
