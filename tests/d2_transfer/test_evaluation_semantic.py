"""Semantic segmentation's metrics: against a plain count of pixels, and against Detectron2's."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation import build_evaluator, flat_metrics
from densessl.d2_transfer.evaluation.semantic import SemanticEvaluator, metrics
from densessl.d2_transfer.results import class_of

compat.setup()
CLASSES = ["sky", "road", "tree", "car"]
NUMBER = itertools.count()  # of a registered name: Detectron2's catalog keeps them all


@pytest.fixture
def split(tmp_path):
    """``split(labels)``: label images, uint8 [H, W], registered: the name and the images' dicts."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    def register(labels: list) -> tuple[str, list[dict]]:
        entries = []
        for number, each in enumerate(labels):
            file = tmp_path / f"{number}.png"
            image = each if isinstance(each, Image.Image) else Image.fromarray(each)
            image.save(file)
            entries.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(file)})
        name = f"semantic_{next(NUMBER)}"
        DatasetCatalog.register(name, lambda: entries)
        MetadataCatalog.get(name).set(
            evaluator_type="sem_seg", stuff_classes=CLASSES, ignore_label=255
        )
        return name, [{"file_name": each["file_name"]} for each in entries]

    return register


def random_case(seed: int, classes: int = 4) -> tuple[list[np.ndarray], list[torch.Tensor]]:
    """Label images of three sizes, with ignored pixels, and logits that are right half of the
    time."""
    rng = np.random.default_rng(seed)
    labels, outputs = [], []
    for height, width in ((7, 11), (20, 5), (13, 13)):
        truth = rng.integers(classes, size=(height, width)).astype(np.uint8)
        logits = rng.normal(size=(len(CLASSES), height, width))
        right = rng.random((height, width)) < 0.5
        rows, columns = np.nonzero(right)
        logits[truth[right], rows, columns] += 5
        truth[rng.random((height, width)) < 0.2] = 255
        labels.append(truth)
        outputs.append(torch.tensor(logits, dtype=torch.float32))
    return labels, outputs


def evaluate(evaluator, entries: list[dict], outputs: list[torch.Tensor]) -> dict[str, float]:
    evaluator.reset()
    evaluator.process(entries, [{"sem_seg": each} for each in outputs])
    return evaluator.evaluate()["sem_seg"]


def pixel_by_pixel(labels: list[np.ndarray], outputs: list[torch.Tensor]) -> dict[str, float]:
    """The metrics from lists of pixels, class by class."""
    pairs = [
        (int(label), max(range(len(CLASSES)), key=lambda c: float(scores[c])))
        for truth, output in zip(labels, outputs, strict=True)
        for label, scores in zip(truth.ravel(), output.flatten(1).T, strict=True)
        if label != 255
    ]
    found = {}
    for number, name in enumerate(CLASSES):
        both = sum(label == number == guess for label, guess in pairs)
        either = sum(number in pair for pair in pairs)
        labelled = sum(label == number for label, _ in pairs)
        found[f"IoU-{name}"] = 100 * both / either if either else math.nan
        found[f"ACC-{name}"] = 100 * both / labelled if labelled else math.nan
        found[name] = labelled
    ious = [found[f"IoU-{name}"] for name in CLASSES]
    recalls = [found[f"ACC-{name}"] for name in CLASSES]
    weights = [found.pop(name) / len(pairs) for name in CLASSES]
    found["mIoU"] = np.nanmean(ious)
    found["mACC"] = np.nanmean(recalls)
    found["pACC"] = 100 * sum(label == guess for label, guess in pairs) / len(pairs)
    found["fwIoU"] = np.nansum(np.multiply(weights, ious))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_those_of_counting_pixel_by_pixel(split, seed):
    labels, outputs = random_case(seed)
    name, entries = split(labels)
    expected = pixel_by_pixel(labels, outputs)
    assert 20 < expected["mIoU"] < 80
    assert evaluate(SemanticEvaluator(name), entries, outputs) == pytest.approx(expected)


def test_a_class_that_is_only_predicted_counts_as_zero(split):
    """As in mmsegmentation: the mean is over the classes that are labelled or predicted."""
    labels, outputs = random_case(0, classes=2)  # trees are predicted and never labelled
    for output in outputs:
        output[3] = -100  # cars are neither
    name, entries = split(labels)
    found = evaluate(SemanticEvaluator(name), entries, outputs)
    assert found["IoU-tree"] == 0 and math.isnan(found["ACC-tree"])
    assert math.isnan(found["IoU-car"])
    assert found["mIoU"] == pytest.approx((found["IoU-sky"] + found["IoU-road"] + 0) / 3)
    assert found["mACC"] == pytest.approx((found["ACC-sky"] + found["ACC-road"]) / 2)
    assert found == pytest.approx(pixel_by_pixel(labels, outputs), nan_ok=True)


def test_where_every_class_is_labelled_the_metrics_are_detectron2s(split):
    from detectron2.evaluation import SemSegEvaluator

    labels, outputs = random_case(3)
    name, entries = split(labels)
    theirs = evaluate(SemSegEvaluator(name), entries, outputs)
    ours = evaluate(SemanticEvaluator(name), entries, outputs)
    assert {key: theirs[key] for key in ours} == pytest.approx(ours)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.int32])
def test_classes_in_place_of_logits_give_the_same(split, kind):
    labels, outputs = random_case(1)
    name, entries = split(labels)
    classes = [each.argmax(0).to(kind) for each in outputs]
    evaluator = SemanticEvaluator(name)
    assert evaluate(evaluator, entries, classes) == evaluate(evaluator, entries, outputs)


def test_what_is_right_everywhere_is_100_and_what_is_ignored_does_not_matter(split, capsys):
    labels, _ = random_case(2)
    name, entries = split(labels)
    right = [torch.from_numpy(np.where(each == 255, 3, each)) for each in labels]
    evaluator = build_evaluator(name, "", images=len(entries))
    found = flat_metrics(evaluate_built(evaluator, entries, right))
    assert found == pytest.approx(dict.fromkeys(found, 100))
    means = {key for key in found if class_of(key) is None}
    assert means == {"sem_seg/mIoU", "sem_seg/fwIoU", "sem_seg/mACC", "sem_seg/pACC"}
    assert set(found) - means == {f"sem_seg/IoU-{each}" for each in CLASSES}
    assert capsys.readouterr().out == ""


def evaluate_built(evaluator, entries, outputs) -> dict:
    evaluator.reset()
    for entry, output in zip(entries, outputs, strict=True):
        evaluator.process([entry], [{"sem_seg": output}])
    return evaluator.evaluate()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_a_labelled_pixel_there_is_no_metric(split):
    name, entries = split([np.full((4, 4), 255, np.uint8)])
    found = evaluate(SemanticEvaluator(name), entries, [torch.zeros(4, 4, dtype=torch.long)])
    assert all(map(math.isnan, found.values()))


def test_counts_beyond_32_bits_are_exact():
    counts = np.array([[2**33 + 1, 1], [0, 2**33]], np.int64)
    found = metrics(counts, ["a", "b"])
    assert found["ACC-a"] == pytest.approx(100 * (2**33 + 1) / (2**33 + 2), rel=1e-15)


def test_a_palette_image_is_read_as_class_numbers(split):
    labels, outputs = random_case(1)
    image = Image.fromarray(labels[0], "P")
    image.putpalette([255 - value for value in range(256) for _ in range(3)])
    plain, entries = split(labels[:1])
    expected = evaluate(SemanticEvaluator(plain), entries, outputs[:1])
    palette, entries = split([image])
    assert evaluate(SemanticEvaluator(palette), entries, outputs[:1]) == expected


@pytest.mark.parametrize(
    "label, output, says",
    [
        (np.zeros((4, 6), np.uint8), torch.zeros(4, 5, 6), r"0.png is 6 x 4, its prediction 6 x 5"),
        (np.zeros((4, 6), np.uint8), torch.zeros(6, 4, dtype=int), r"6 x 4, its prediction 4 x 6"),
        (np.zeros((4, 6), np.uint8), torch.zeros(7, 4, 6), r"has 4 classes, the model predicts 7"),
        (np.zeros((4, 6), np.uint8), torch.full((4, 6), 4), r"from 0 to 3; it is .*from 4 to 4"),
        (np.zeros((4, 6), np.uint8), torch.full((4, 6), -1), r"from 0 to 3; it is .*from -1"),
        (np.zeros((4, 6), np.uint8), torch.zeros(4, 6), r"must hold classes.* torch.float32"),
        (np.full((4, 6), 4, np.uint8), torch.zeros(4, 4, 6), r"pixels of 4; .* 0 to 3 .*and 255"),
        (
            np.zeros((4, 6, 3), np.uint8),
            torch.zeros(4, 4, 6),
            r"one channel of 8 bits; this is RGB",
        ),
        (np.zeros((4, 6), np.uint16), torch.zeros(4, 4, 6), r"one channel of 8 bits; this is I;16"),
    ],
)
def test_what_does_not_fit_is_refused(split, label, output, says):
    name, entries = split([label])
    with pytest.raises(InputError, match=says):
        evaluate(SemanticEvaluator(name), entries, [output])
