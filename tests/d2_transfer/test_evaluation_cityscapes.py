"""Cityscapes' instance AP: the numbers of cityscapesScripts run by itself, and what it leaves."""

import copy
import itertools
import math
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation import build_evaluator, flat_metrics
from densessl.d2_transfer.evaluation.cityscapes import CityscapesInstanceEvaluator

compat.setup()
THINGS = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
IDS = [24, 25, 26, 27, 28, 31, 32, 33]
NUMBER = itertools.count()  # of a registered name: Detectron2's catalog keeps them all
SMALLEST = 100  # pixels of an object that counts


def register(root) -> str:
    from detectron2.data import MetadataCatalog

    name = f"cityscapes_{next(NUMBER)}"
    MetadataCatalog.get(name).set(
        evaluator_type="cityscapes_instance",
        image_dir=str(root / "leftImg8bit/val"),
        gt_dir=str(root / "gtFine/val"),
        thing_classes=THINGS,
    )
    return name


@pytest.fixture
def split(tmp_path):
    """``split(maps)``: instance ids, uint16 [H, W] an image, as a registered split: its name and
    the images' paths."""

    def write(maps: list[np.ndarray]):
        truth = tmp_path / "gtFine/val/town"
        truth.mkdir(parents=True)
        images = []
        for number, ids in enumerate(maps):
            stem = f"town_{number:06d}_000019"
            Image.fromarray(ids).save(truth / f"{stem}_gtFine_instanceIds.png")
            images.append(tmp_path / f"leftImg8bit/val/town/{stem}_leftImg8bit.png")
        return register(tmp_path), images

    return write


def instances(size: tuple[int, int], rows: list[tuple]):
    """Instances of (class index, score, mask)."""
    from detectron2.structures import Instances

    found = Instances(size)
    masks = np.array([mask for *_, mask in rows], dtype=bool).reshape(-1, *size)
    found.pred_masks = torch.from_numpy(masks)
    found.pred_classes = torch.tensor([label for label, *_ in rows], dtype=torch.long)
    found.scores = torch.tensor([score for _, score, _ in rows], dtype=torch.float32)
    return found


def evaluate(evaluator, images: list, found: list) -> dict[str, float]:
    evaluator.reset()
    for image, each in zip(images, found, strict=True):
        evaluator.process([{"file_name": str(image)}], [{"instances": each}])
    return evaluator.evaluate()["segm"]


def as_they_are(ids: np.ndarray, score: float = 0.5) -> list[tuple]:
    """Every numbered thing of a map of instance ids, as a detection."""
    numbers = [number for number in np.unique(ids) if number // 1000 in IDS]
    return [(IDS.index(number // 1000), score, ids == number) for number in numbers]


def town(seed: int, side: int = 96) -> np.ndarray:
    """Random rectangles over road and void: things, one of them tiny, and a group of things."""
    rng = np.random.default_rng(seed)
    ids = np.full((side, side), 7, np.uint16)
    ids[: side // 5] = 4  # void
    for number in range(12):
        y, x = rng.integers(0, side - 30, 2)
        h, w = rng.integers(12, 30, 2)
        label = int(rng.choice([24, 26, 33]))
        ids[y : y + h, x : x + w] = label * 1000 + number
    ids[:20, -20:] = 26  # cars that nobody told apart
    ids[-6:, :6] = 24099  # 36 pixels
    return ids


def noisy(ids: np.ndarray, seed: int) -> list[tuple]:
    """Things as they are, shifted, doubled, of the wrong class, of equal scores; on void, on the
    group, on nothing; and an empty mask."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, _, mask in as_they_are(ids):
        for _ in range(rng.integers(0, 3)):
            wrong = int(rng.random() < 0.15)
            shifted = np.roll(mask, rng.integers(-4, 5, 2), axis=(0, 1))
            rows.append(((label + wrong) % 8, rng.integers(1, 10) / 10, shifted))
    for y, x in ((2, 2), (2, 78), (60, 40)):
        mask = np.zeros(ids.shape, bool)
        mask[y : y + 16, x : x + 16] = True
        rows.append((2, rng.integers(1, 10) / 10, mask))
    return [*rows, (0, 0.9, np.zeros(ids.shape, bool))]


def by_the_scripts_alone(folder, maps, found, monkeypatch) -> dict[str, float]:
    """The metrics by cityscapesScripts' own entry point, from files as its documentation asks."""
    import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as script

    # Its files of ground truth and matches hold numpy's integers, which JSON refuses
    monkeypatch.setattr(script, "writeDict2JSON", lambda content, file: None)
    folder.mkdir()
    truths, listed = [], []
    for number, (ids, rows) in enumerate(zip(maps, found, strict=True)):
        truths.append(folder / f"town_{number:06d}_000019_gtFine_instanceIds.png")
        Image.fromarray(ids).save(truths[-1])
        lines = []
        for place, (label, score, mask) in enumerate(rows):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{number}_{place}.png")
            lines.append(f"{number}_{place}.png {IDS[label]} {np.float32(score)}\n")
        listed.append(folder / f"town_{number:06d}_000019_pred.txt")
        listed[-1].write_text("".join(lines))
    args = copy.copy(script.args)
    args.predictionPath, args.quiet, args.JSONOutput = str(folder), True, False
    args.gtInstancesFile = str(folder / "gtInstances.json")
    averages = script.evaluateImgLists(
        [str(file) for file in listed], [str(file) for file in truths], args
    )["averages"]
    found = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
    found |= {f"AP-{name}": each["ap"] for name, each in averages["classes"].items()}
    return {name: 100 * float(value) for name, value in found.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the scripts' own, on absent classes
def test_the_numbers_are_those_of_the_scripts_by_themselves(split, tmp_path, monkeypatch, seed):
    maps = [town(10 * seed + number) for number in range(4)]
    found = [noisy(ids, seed) for ids in maps]
    name, images = split(maps)
    expected = by_the_scripts_alone(tmp_path / "alone", maps, found, monkeypatch)
    evaluator = CityscapesInstanceEvaluator(name)
    metrics = evaluate(evaluator, images, [instances((96, 96), rows) for rows in found])
    assert 0 < expected["AP"] < expected["AP50"] < 100 and math.isnan(expected["AP-train"])
    assert metrics == pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)


def test_the_scenes_objects_found_as_they_are_have_an_ap_of_100(scenes, tmp_path, capsys):
    root = scenes / "cityscapes"
    name = register(root)
    images = sorted((root / "leftImg8bit/val").glob("*/*.png"))
    found, large = [], set()
    for image in images:
        file = image.name.replace("leftImg8bit", "gtFine_instanceIds")
        ids = np.array(Image.open(root / "gtFine/val" / image.parent.name / file))
        rows = as_they_are(ids)
        large |= {label for label, _, mask in rows if mask.sum() >= SMALLEST}
        found.append(instances(ids.shape, rows))
    capsys.readouterr()
    evaluator = build_evaluator(name, str(tmp_path), images=len(images))
    metrics = evaluate(evaluator, images, found)
    flat = flat_metrics({"segm": metrics})
    assert (flat["segm/AP"], flat["segm/AP50"]) == pytest.approx((100, 100))
    of_classes = {name: metrics[f"AP-{name}"] for name in THINGS}
    assert large and {THINGS[label] for label in large} == {
        name for name, value in of_classes.items() if value == pytest.approx(100)
    }
    assert sum(map(math.isnan, of_classes.values())) == len(THINGS) - len(large)
    assert capsys.readouterr().out == ""


def test_a_model_that_detects_nothing_has_an_ap_of_zero(split):
    name, images = split([town(0)])
    metrics = evaluate(CityscapesInstanceEvaluator(name), images, [instances((96, 96), [])])
    assert (metrics["AP"], metrics["AP50"]) == (0, 0)


def test_a_class_predicted_only_where_pixels_are_ignored_has_an_ap_of_zero(split):
    """The scripts stop with an IndexError there; the other classes keep their numbers."""
    ids = np.full((64, 64), 7, np.uint16)
    ids[:20] = 4  # void
    ids[30:45, 5:25] = 24001  # a person that is not found
    ids[30:45, 40:60] = 26001  # a car that is
    void = np.zeros(ids.shape, bool)
    void[2:18, 4:30] = True
    name, images = split([ids])
    found = [(0, 0.9, void), (2, 0.8, ids == 26001)]
    metrics = evaluate(CityscapesInstanceEvaluator(name), images, [instances(ids.shape, found)])
    assert (metrics["AP-person"], metrics["AP-car"]) == (0, 100)
    assert metrics["AP"] == pytest.approx(50)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_a_class_that_occurs_there_is_no_ap(split):
    ids = np.full((96, 96), 7, np.uint16)
    ids[:5, :5] = 26001  # a car of 25 pixels does not count
    name, images = split([ids])
    found = [instances(ids.shape, as_they_are(ids))]
    metrics = flat_metrics({"segm": evaluate(CityscapesInstanceEvaluator(name), images, found)})
    assert set(metrics) == {"segm/AP", "segm/AP50", *(f"segm/AP-{each}" for each in THINGS)}
    assert all(map(math.isnan, metrics.values()))


def test_nothing_is_left_of_an_evaluation(split, tmp_path, monkeypatch):
    import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as script

    maps = [town(1), town(2)]
    name, images = split(maps)
    before = copy.deepcopy(vars(script.args))
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir(), temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    evaluator = CityscapesInstanceEvaluator(name)
    found = [instances(ids.shape, noisy(ids, 0)) for ids in maps]
    first = evaluate(evaluator, images, found)
    assert evaluate(evaluator, images, found) == pytest.approx(first, nan_ok=True)
    assert not os.listdir(here) and not os.listdir(temporary)
    after = vars(script.args)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_every_image_of_the_split_must_be_evaluated(split):
    maps = [town(1), town(2)]
    name, images = split(maps)
    evaluator = CityscapesInstanceEvaluator(name)
    found = [instances(ids.shape, as_they_are(ids)) for ids in maps]
    with pytest.raises(InputError, match="ground truth of 2 images, 1 were evaluated"):
        evaluate(evaluator, images[:1], found[:1])
    other = images[0].with_name("town_000009_000019_leftImg8bit.png")
    with pytest.raises(InputError, match="town_000009_000019_gtFine_instanceIds.png is not there"):
        evaluate(evaluator, [other], found[:1])


def test_scripts_that_are_missing_are_named_with_what_mends_it(split, monkeypatch):
    name, _ = split([town(0)])
    module = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentLacks, match="cityscapesScripts is not installed.*make setup"):
        build_evaluator(name, "", images=1)
