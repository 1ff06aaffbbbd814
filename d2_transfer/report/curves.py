"""The curves of one pretraining: a picture a key, with the band of what is normal."""

from dataclasses import dataclass

from .collect import Pretraining
from .health import INDICATORS

FIRST = (
    "loss",
    "loss/image",
    "loss/dense",
    "probe/miou",
    "knn/top1",
    "stat/feature_std",
    "stat/accuracy",
    "stat/positions_accuracy",
)
LAST = ("lr", "images_per_second")
NO_CURVE = {"epoch", "seconds", "skipped", "unreadable", "gpu_memory_gib"}
TITLES = {"lr": "learning rate", "images_per_second": "images/s", "loss": "loss (total)"}
TITLES |= {"loss/image": "image loss", "loss/dense": "dense loss", "grad_norm": "gradient norm"}
SIZE = (3.4, 2.1)  # inches
ROOM = 0.1  # of the curve's height, above and below
CHANCE = {"stat/accuracy": "stat/chance", "stat/positions_accuracy": "stat/positions_chance"}
CONTROLS = {"random": "random start", "random_bn": "with the data's batch norm"}


@dataclass(frozen=True)
class Online:
    """A measure of the backbone while it trains; ``{key}_random`` and ``_random_bn``: controls."""

    key: str
    title: str


ONLINE = (Online("knn/top1", "k-NN"), Online("probe/miou", "mIoU of the online probe"))


def keys_of(run: Pretraining) -> list[str]:
    """What has a curve, the most telling first."""
    keys = {key for values in run.points.values() for key in values} - NO_CURVE
    beside = {*CHANCE.values(), *(f"{each.key}_{name}" for each in ONLINE for name in CONTROLS)}
    keys = {key for key in keys - beside if not key.startswith("collapse/")}
    keys = {key for key in keys if len(run.series(key)[0]) > 1}
    between = sorted(keys - {*FIRST, *LAST})
    return [key for key in (*FIRST, *between, *LAST) if key in keys]


def draw(run: Pretraining) -> list[tuple[str, str]]:
    """Of each key with a curve its title and the picture as SVG text."""
    bands = {each.key: (each.title, each.band(run)) for each in INDICATORS}
    bands |= {each.key: (f"{each.title} (%)", None) for each in ONLINE}
    pictures = []
    for key in keys_of(run):
        title, band = bands.get(key, (title_of(key), None))
        lines = controls(run, key) or _chance(run, key)
        pictures.append((title, _picture(title, *run.series(key), band, lines)))
    return pictures


def title_of(key: str) -> str:
    """What a key of the log is called above its curve."""
    return TITLES.get(key) or key.removeprefix("stat/").replace("_", " ")


def controls(run: Pretraining, key: str) -> list[tuple[str, float]]:
    """Of an online measure, the names and values of its controls, as the run logged them."""
    found = [(name, run.series(f"{key}_{control}")[1]) for control, name in CONTROLS.items()]
    return [(name, values[-1]) for name, values in found if values]


def _chance(run: Pretraining, key: str) -> list[tuple[str, float]]:
    _, values = run.series(CHANCE.get(key, ""))
    return [("guessing", values[-1])] if values else []


def _picture(
    title: str,
    steps: list[int],
    values: list[float],
    band: tuple[float, float] | None,
    lines: list[tuple[str, float]],
) -> str:
    """A curve; ``lines``: names and heights of what it is compared with."""
    from ..plots import style

    with style.look():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        panel = figure.add_subplot()
        if band:
            panel.axhspan(*band, color=style.COLOURS[2], alpha=0.12, linewidth=0)
        panel.plot(steps, values, color=style.COLOURS[0])
        for (name, height), pattern in zip(lines, ("--", ":"), strict=False):
            panel.axhline(height, color=style.COLOURS[1], linestyle=pattern, label=name)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("step")
        panel.margins(x=0.01)
        seen = [*values, *(height for _, height in lines)]
        low, high = min(seen), max(seen)  # the curve decides the scale, not a wide band
        room = ROOM * (high - low) or ROOM * abs(high) or ROOM
        panel.set_ylim(low - room, high + room)
        if lines:
            panel.legend(fontsize=6, loc="best")
        return style.svg(figure)
