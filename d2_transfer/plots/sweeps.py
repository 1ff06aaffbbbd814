"""A metric over an option of pretraining: AP by threshold (SetSim), k-NN by crops (SCFS)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from densessl.core.errors import InputError

from ..compare.selection import metrics_of, of_one_kind
from ..results import Record
from ..tables import layouts, matching
from ..tables.experiments import number, short_hash
from ..tables.pretrainings import by_recipe
from .model import Line, Plot, PlotPanel
from .options import CROPS, THRESHOLD, SweptOption
from .trials import Choice, check, labels, line_through, notes, points_of, y_label

logger = logging.getLogger("densessl")

FIGURE = "setsim/fig3"  # whose text gives differences from one threshold
AXES = {THRESHOLD: "threshold of the salient set", CROPS: "local crops"}


@dataclass
class Series:
    """Models that differ in the option alone, as far as their records tell; each a list of trials.

    ``names``: what to call it, from short to complete.
    """

    names: tuple[str, ...]
    models: dict[float, list[Record]] = field(default_factory=dict)


def threshold(records: Sequence[Record], choice: Choice) -> Plot:
    """AP by the threshold of the salient set (SetSim, Figure 3), beside what its text tells.

    The paper gives no AP of single thresholds, only two differences from 0.7. They are set on our
    own trials at 0.7 where those are the paper's (its data, epochs and protocol); without records
    the plot has the differences alone. Raises InputError as :func:`sweep` does.
    """
    if not records:
        base, differences = _differences()
        line = Line("published (SetSim, text on Figure 3)", sorted(differences), [], published=True)
        line.y = [differences[x] for x in line.x]
        panel = PlotPanel(AXES[THRESHOLD], f"AP minus AP at {base:g}", [line])
        return Plot([panel], ["bbox/AP of voc_det_c4; no record of ours"])
    plot, series, metric = sweep(records, THRESHOLD, choice, "voc_det_c4")
    if metric == "bbox/AP":
        drawn = zip(plot.panels[0].lines, series, strict=True)
        plot.panels[0].lines += filter(None, [_published_on(*ours) for ours in drawn])
    return plot


def crops(records: Sequence[Record], choice: Choice) -> Plot:
    """k-NN accuracy by the number of local crops (SCFS, Figure 5, which prints no numbers)."""
    return sweep(records, CROPS, choice, "knn")[0]


def sweep(
    records: Sequence[Record], option: SweptOption, choice: Choice, usual: str
) -> tuple[Plot, list[Series], str]:
    """A line for each series over the option's values, the series, and the metric.

    Records that do not tell the option are left out with a warning, and so are series of one point
    beside longer ones, and series whose metric is undefined in every trial; where it is undefined
    in all trials of a point, the line has a gap there. Raises InputError where nothing is left, for
    records that do not compare, for two models with one value, and for trials that have no average.
    """
    usable = [record for record in records if option.of(record) is not None]
    if not usable:
        raise InputError(
            f"no record tells {option.key} of its pretraining, neither by a fact '{option.fact}' "
            "nor by the name of a config that sets it"
        )
    if len(usable) < len(records):
        logger.warning(
            "%d of %d records are left out: they do not tell %s of their pretraining",
            len(records) - len(usable),
            len(records),
            option.key,
        )
    found = of_one_kind(usable, choice.protocol, choice.variant, usual)
    metric = metrics_of(found, [choice.metric] if choice.metric else [])[0]
    series = _series(found, option)
    for each in series:
        if len(each.models) == 1 < max(len(other.models) for other in series):
            logger.warning("%s is left out: it has but one %s", each.names[-1], option.key)
    most = max(len(each.models) for each in series)
    series = [each for each in series if len(each.models) > 1 or most == 1]
    series = _defined(series, metric)
    lines = [
        line_through(label, each.models, metric, choice.spread)
        for label, each in zip(labels([each.names for each in series]), series, strict=True)
    ]
    panel = PlotPanel(AXES[option], y_label(metric, found[0]), lines)
    models = [trials for each in series for trials in each.models.values()]
    return Plot([panel], notes(lines, models, choice.spread)), series, metric


def _series(records: Sequence[Record], option: SweptOption) -> list[Series]:
    found: dict[tuple, Series] = {}
    for trials in by_recipe(records):
        check(trials)
        first, value = trials[0], option.of(trials[0])
        assert value is not None  # only those that tell it are here
        family, data = option.family(first), str(first.pretrain.get("dataset") or "")
        epochs = number(first.pretrain.get("epochs"))
        facts = [family, data, epochs and f"{epochs} epochs"]
        complete = ", ".join(filter(None, facts))
        key = (first.method, family, data, epochs)
        each = found.setdefault(key, Series((first.method, family, complete)))
        if value in each.models:
            other = each.models[value][0]
            raise InputError(
                f"two models of {complete} have {option.key} {value:g}: {short_hash(other)} in "
                f"{other.folder} and {short_hash(first)} in {first.folder}; name the folders of one"
            )
        each.models[value] = trials
    return list(found.values())


def _defined(series: Sequence[Series], metric: str) -> list[Series]:
    """Those with a value somewhere; what is undefined is named. InputError if nothing is left."""
    found = []
    for each in series:
        gaps = sorted(x for x, trials in each.models.items() if not points_of(trials, metric))
        if len(gaps) < len(each.models):
            found.append(each)
        if gaps:
            places = "" if each not in found else f" at {', '.join(f'{x:g}' for x in gaps)}"
            name = f"{each.names[0]} ({each.names[-1]})"
            logger.warning("%s: %s is undefined in every trial%s", name, metric, places)
    if not found:
        raise InputError(f"{metric} is undefined in every trial; name another with --metric")
    return found


def _differences() -> tuple[float, dict[float, float]]:
    """The threshold that the paper compares with, and the differences from it, its own 0 too."""
    layout = layouts.find(FIGURE)
    base = float(layout.baselines[0])
    deltas = {float(row.label): each.delta for row in layout.rows for each in row.numbers}
    return base, {base: 0.0} | {x: delta for x, delta in deltas.items() if not math.isnan(delta)}


def _published_on(ours: Line, series: Series) -> Line | None:
    """The published differences over our mean at the paper's threshold; None where they differ."""
    base, deltas = _differences()
    trials = series.models.get(base)
    if trials is None or base not in ours.x:
        return None
    layout = layouts.find(FIGURE)
    placed = matching.place(layout, trials).rows
    if not any(float(layout.rows[row].label) == base for row in placed):
        logger.info("no published number is drawn: these are not the paper's data and epochs")
        return None
    level = ours.y[ours.x.index(base)]
    if math.isnan(level):
        return None
    places = sorted(x for x in deltas if x != base)
    label = f"published differences (SetSim's text), from ours at {base:g}"
    return Line(label, places, [level + deltas[x] for x in places], published=True)
