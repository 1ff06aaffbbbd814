"""The curves of one pretraining: a picture a key, with the band of what is normal."""

import io

from .collect import Pretraining
from .health import INDICATORS

FIRST = ("loss", "loss/image", "loss/dense", "stat/feature_std")
LAST = ("lr", "images_per_second")
NO_CURVE = {"epoch", "seconds", "skipped", "unreadable", "gpu_memory_gib"}
TITLES = {"lr": "learning rate", "images_per_second": "images/s", "loss": "loss (total)"}
SIZE = (3.4, 2.1)  # inches
ROOM = 0.1  # of the curve's height, above and below


def keys_of(run: Pretraining) -> list[str]:
    """What has a curve, the most telling first."""
    keys = {key for values in run.points.values() for key in values} - NO_CURVE
    keys = {key for key in keys if len(run.series(key)[0]) > 1}
    between = sorted(keys - {*FIRST, *LAST})
    return [key for key in (*FIRST, *between, *LAST) if key in keys]


def draw(run: Pretraining) -> list[tuple[str, str]]:
    """Of each key with a curve its title and the picture as SVG text."""
    bands = {each.key: (each.title, each.band(run)) for each in INDICATORS}
    pictures = []
    for key in keys_of(run):
        title, band = bands.get(key, (TITLES.get(key, key), None))
        pictures.append((title, _picture(title, *run.series(key), band)))
    return pictures


def _picture(title: str, steps: list[int], values: list[float], band) -> str:
    from d2_transfer.plots import style

    with style.look():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        panel = figure.add_subplot()
        if band:
            panel.axhspan(*band, color=style.COLOURS[2], alpha=0.12, linewidth=0)
        panel.plot(steps, values, color=style.COLOURS[0])
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("step")
        panel.margins(x=0.01)
        low, high = min(values), max(values)  # the curve decides the scale, not a wide band
        room = ROOM * (high - low) or ROOM * abs(high) or ROOM
        panel.set_ylim(low - room, high + room)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=style.NO_DATES[".svg"])
    return stream.getvalue()
