"""A study's pictures: its metric over labels, and images with what two starts predicted."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from densessl.core import files
from densessl.probes import label_images

from ..dense_probes.predictions import FOLDER, INDEX, name
from ..plots import drawing
from ..plots.model import Plot, PlotPanel, line_of
from ..plots.style import DASHES, MARKERS
from . import study_words
from .one_file import inlined
from .study_data import RANDOM, Study, StudyShare

MOST = 4  # images
PIXELS = 2**21  # of a picture; ours have far fewer
APART = 0.0075  # of the axis: so much apart stand two starts' points at one number of images
MOST_ARMS = len(DASHES) * len(MARKERS)  # in the plot


@dataclass(frozen=True)
class Shown:
    """An image: pictures as addresses, with a caption each."""

    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Predicted:
    """``shown`` images, and of the classes in them the names and colours (``#rrggbb``)."""

    share: StudyShare
    arms: tuple[str, ...]
    shown: tuple[Shown, ...]
    legend: tuple[tuple[str, str], ...]


def find(study: Study, arms: Sequence[str]) -> Predicted | None:
    """By the arms' first trials with predictions at the largest share that all have them at.

    The images were chosen before anything was predicted: evenly spaced. None without any.
    """
    for share in reversed(study.shares):
        folders = [folder for arm in arms if (folder := _folder(study, arm, share))]
        if len(folders) == len(arms):
            found = _read(share, arms, folders)
            if found and found.shown:
                return found
    return None


def _folder(study: Study, arm: str, share: StudyShare) -> Path | None:
    for protocol in range(len(study.protocols)):
        for record in sorted(study.trials(arm, share, protocol), key=lambda each: each.seed):
            if record.folder and (record.folder / FOLDER / INDEX).is_file():
                return record.folder / FOLDER
    return None


def _read(share: StudyShare, arms: Sequence[str], folders: Sequence[Path]) -> Predicted | None:
    """None where a file is missing or damaged."""
    try:
        indices = [files.read_json(folder / INDEX) for folder in folders]
        classes = list(map(str, indices[0]["classes"]))
        if any(each["classes"] != indices[0]["classes"] for each in indices):
            return None
        numbers = [n for n in indices[0]["images"] if all(n in each["images"] for each in indices)]
        shown, labels = [], set()
        colours: dict = {}
        for number in map(int, numbers[:MOST]):
            picture, there = _shown(number, arms, folders)
            shown.append(picture)
            labels |= there
            colours = colours or _colours(folders[0] / name(number, "truth"))
        legend = [
            (classes[label], colours[label]) for label in sorted(labels) if label < len(classes)
        ]
        return Predicted(share, tuple(arms), tuple(shown), tuple(legend))
    except (OSError, ValueError, KeyError, TypeError, Image.DecompressionBombError):
        return None


def _shown(number: int, arms: Sequence[str], folders: Sequence[Path]) -> tuple[Shown, set[int]]:
    """The pictures of an image, and the classes that are in them."""
    first = folders[0]
    truth = _labels(first / name(number, "truth"))
    pictures = [
        ("image", _inlined(first / name(number, "image"))),
        ("true classes", _inlined(first / name(number, "truth"))),
    ]
    labels = set(np.unique(truth).tolist())
    known = truth != label_images.VOID
    for arm, folder in zip(arms, folders, strict=True):
        path = folder / name(number, "predicted")
        predicted = _labels(path)
        if predicted.shape != truth.shape:
            raise ValueError(path)
        right = 100 * float((predicted == truth)[known].mean()) if known.any() else 0.0
        pictures.append((f"{arm}: {right:.0f}\u00a0% right", _inlined(path)))
        labels |= set(np.unique(predicted).tolist())
    return Shown(tuple(pictures)), labels


def _labels(path: Path) -> np.ndarray:
    with Image.open(path, formats=("PNG",)) as picture:
        if picture.mode != "P" or picture.width * picture.height > PIXELS:
            raise ValueError(path)
        return np.array(picture)


def _colours(path: Path) -> dict[int, str]:
    """The palette that a picture has, by class."""
    with Image.open(path, formats=("PNG",)) as picture:
        parts = picture.getpalette("RGB") or []
    colours = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {label: "#{:02x}{:02x}{:02x}".format(*each) for label, each in enumerate(colours)}


def _inlined(path: Path) -> str:
    kind = "image/png" if path.suffix == ".png" else "image/jpeg"
    return inlined(kind, path.read_bytes())


def draw(study: Study) -> str | None:
    """A line a start, bars of one standard deviation between its networks; None without values."""
    arms = [arm for arm in study.arms if study.measured(arm.name)][:MOST_ARMS]
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
            if (units := study.units(arm.name, share))
        }
        lines.append(line_of(arm.name, points, "std"))
    lines.sort(key=lambda line: line.label in {arm.name for arm in study.of(RANDOM)})
    ticks = {float(s.images): f"{s.images}\n({s.text})" for s in study.shares}
    metric = study_words.name(study.protocols[0].metric)
    panel = PlotPanel("labelled images", f"{metric} (%)", lines, log=ticks)
    notes = []
    if any(line.low for line in lines):
        notes = ["bars: ± standard deviation between pretrainings, or random networks (n of each)"]
    return drawing.svg(Plot([panel], notes))
