"""The metric of each start over the number of labelled images, as the text of an SVG."""

import statistics

from ..plots import drawing
from ..plots.model import Panel, Plot, line_of
from ..plots.style import DASHES, MARKERS
from . import study_words
from .study_data import RANDOM, Study

APART = 0.0075  # of the axis: so much apart stand two starts' points at one number of images
MOST = len(DASHES) * len(MARKERS)


def draw(study: Study, protocol: int = 0) -> str | None:
    """A line a start, bars of one standard deviation between its networks; None without values."""
    arms = [arm for arm in study.arms if study.measured(arm.name, protocol)][:MOST]
    if not arms:
        return None
    counts = [share.images for share in study.shares]
    apart = (max(counts) / min(counts)) ** APART
    lines = []
    for nth, arm in enumerate(arms):
        shift = apart ** (nth - (len(arms) - 1) / 2)
        points = {
            share.images * shift: [*map(statistics.fmean, units)]
            for share in study.shares
            if (units := study.units(arm.name, share, protocol))
        }
        lines.append(line_of(arm.name, points, "std"))
    lines.sort(key=lambda line: line.label in {arm.name for arm in study.of(RANDOM)})
    ticks = {float(s.images): f"{s.images}\n({s.text})" for s in study.shares}
    metric = study_words.name(study.protocols[protocol].metric)
    panel = Panel("labelled images", f"{metric} (%)", lines, log=ticks)
    notes = []
    if any(line.low for line in lines):
        notes = ["bars: ± standard deviation between pretrainings, or random networks (n of each)"]
    return drawing.svg(Plot([panel], notes))
