"""Cityscapes' instance AP, by cityscapesScripts."""

import copy
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from densessl.core import install, watchdog
from densessl.core.errors import EnvironmentLacks, InputError

from .. import compat

compat.setup()  # cityscapesScripts uses numpy's old names too
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.evaluation import DatasetEvaluator  # noqa: E402
from detectron2.utils import comm  # noqa: E402

IMAGE, TRUTH = "_leftImg8bit.png", "_gtFine_instanceIds.png"


class CityscapesInstanceEvaluator(DatasetEvaluator):
    """Cityscapes' mask AP and AP50, in per cent, over its eight classes of things.

    Each image is matched with its ground truth as it comes, from files in a temporary folder in the
    form that cityscapesScripts reads; only the matches are kept. So several processes match their
    own images at the same time, also on machines that share no folder, and send their matches to
    rank 0. ``AP-<class>`` is there too; a class without an object of 100 pixels is NaN and not in
    the mean, as the scripts have it, and without any such class the mean is NaN.

    Detectron2's own evaluator needs one machine, and on main it does not start.
    """

    def __init__(self, dataset_name: str):
        self._script = _evaluation_script()
        from cityscapesscripts.helpers.labels import name2label

        metadata = MetadataCatalog.get(dataset_name)
        self._truth = Path(metadata.gt_dir)
        self._label_ids = [name2label[name].id for name in metadata.thing_classes]
        # The script's settings are one object for the whole process: leave that one alone.
        self._settings = copy.copy(self._script.args)
        self._settings.quiet = True
        self._script.setInstanceLabels(self._settings)

    def reset(self):
        self._matches: dict[str, dict] = {}

    def process(self, inputs, outputs):
        for entry, output in zip(inputs, outputs, strict=True):
            truth = self._truth_of(Path(entry["file_name"]))
            with tempfile.TemporaryDirectory(prefix="cityscapes_") as folder:
                listed = _write(Path(folder).absolute(), output["instances"], self._label_ids)
                self._settings.predictionPath = str(listed.parent)
                objects = self._script.instances2dict([str(truth)])
                self._matches |= self._script.matchGtWithPreds(
                    [str(listed)], [str(truth)], objects, self._settings
                )

    def _truth_of(self, image: Path) -> Path:
        truth = self._truth / image.parent.name / image.name.replace(IMAGE, TRUTH)
        if not truth.is_file():
            raise InputError(f"{image} has no ground truth: {truth} is not there")
        return truth

    def evaluate(self) -> dict | None:
        gathered = comm.gather(self._matches, dst=0)
        if not comm.is_main_process():
            return None
        matches = {name: match for each in gathered for name, match in each.items()}
        self._check_complete(len(matches))
        with warnings.catch_warnings():  # numpy on means of classes that do not occur
            warnings.simplefilter("ignore", RuntimeWarning)
            aps = self._precisions(matches)
            averages = self._script.computeAverages(aps, self._settings)
        metrics = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
        metrics |= {f"AP-{name}": each["ap"] for name, each in averages["classes"].items()}
        return {"segm": {name: 100 * float(value) for name, value in metrics.items()}}

    @watchdog.unhurried()
    def _precisions(self, matches: dict) -> np.ndarray:
        """AP by region size, class and overlap, as ``evaluateMatches`` gives it.

        The script stops at a class that is there and predicted, but only where pixels are ignored:
        no prediction is left to rank, and nothing was found, an AP of 0.
        """
        try:
            return self._script.evaluateMatches(matches, self._settings)
        except IndexError:
            pass
        settings = self._settings
        columns = (settings.minRegionSizes, settings.distanceThs, settings.distanceConfs)
        sizes = list(zip(*columns, strict=True))
        sizes = sizes if settings.distanceAvailable else sizes[:1]
        shape = (len(sizes), len(settings.instLabels), len(settings.overlaps))
        precisions = np.zeros(shape)
        for place in np.ndindex(*shape):
            size, label, overlap = place
            one = copy.copy(settings)
            one.minRegionSizes, one.distanceThs, one.distanceConfs = ([v] for v in sizes[size])
            one.instLabels = [settings.instLabels[label]]
            one.overlaps = settings.overlaps[overlap : overlap + 1]
            try:
                precisions[place] = self._script.evaluateMatches(matches, one).item()
            except IndexError:
                precisions[place] = 0.0
        return precisions

    def _check_complete(self, seen: int) -> None:
        """The metric is of the whole split: an image left out would raise or lower it unseen."""
        wanted = len(list(self._truth.glob(f"*/*{TRUTH}")))
        if seen != wanted:
            raise InputError(
                f"{self._truth} has the ground truth of {wanted} images, {seen} were evaluated; "
                "the images and the ground truth of a split must be the same"
            )


def _write(folder: Path, instances, label_ids: list[int]) -> Path:
    """Write an image's masks, and the list of them that cityscapesScripts reads: its path."""
    lines = []
    classes, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    for place, (label, score) in enumerate(zip(classes, scores, strict=True)):
        mask = instances.pred_masks[place].bool().cpu().numpy()
        # An image of bits, lightly compressed: it is read back at once and deleted
        Image.fromarray(mask).save(folder / f"{place}.png", compress_level=1)
        lines.append(f"{place}.png {label_ids[label]} {score}\n")
    listed = folder / "predictions.txt"
    listed.write_text("".join(lines))
    return listed


def _evaluation_script() -> ModuleType:
    try:
        import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as script
    except ImportError as error:
        raise EnvironmentLacks(
            f"cityscapesScripts is not installed ({error}); fix it with: "
            + install.command("transfer")
        ) from None
    return script
