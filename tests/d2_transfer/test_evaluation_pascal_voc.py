"""The VOC metric: Detectron2's numbers to the last bit, and what AP is by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation.pascal_voc import (
    OccurringClassesVOCEvaluator,
    Rows,
    average_precision,
    nearest_objects,
)

compat.setup()
CLASSES = ["cat", "dog", "bird"]
NUMBER = itertools.count()  # of a registered name: Detectron2's catalog keeps them all


@pytest.fixture
def split(tmp_path):
    """``split(images, year)``: its name; an image is a list of (class, difficult, box)."""
    from detectron2.data import MetadataCatalog

    def register(images: list[list[tuple]], year: int = 2007, classes=CLASSES) -> str:
        name = f"voc_{next(NUMBER)}"
        base = tmp_path / name
        for folder in ("Annotations", "ImageSets/Main"):
            (base / folder).mkdir(parents=True)
        for number, objects in enumerate(images):
            (base / f"Annotations/{number:06d}.xml").write_text(annotation(objects))
        listed = "".join(f"{number:06d}\n" for number in range(len(images)))
        (base / "ImageSets/Main/test.txt").write_text(listed)
        MetadataCatalog.get(name).set(
            thing_classes=list(classes), dirname=str(base), split="test", year=year
        )
        return name

    return register


def annotation(objects: list[tuple]) -> str:
    items = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{int(difficult)}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, difficult, (x1, y1, x2, y2) in objects
    )
    return f"<annotation>{items}</annotation>"


def detections(rows: list[tuple]):
    """Instances of (class index, score, box in VOC's pixels)."""
    from detectron2.structures import Boxes, Instances

    found = Instances((500, 500))
    boxes = torch.tensor([box for *_, box in rows], dtype=torch.float32).reshape(-1, 4)
    boxes[:, :2] -= 1
    found.pred_boxes = Boxes(boxes)
    found.scores = torch.tensor([score for _, score, _ in rows], dtype=torch.float32)
    found.pred_classes = torch.tensor([label for label, *_ in rows], dtype=torch.long)
    return found


def evaluate(evaluator, images: list[list[tuple]]) -> dict[str, float]:
    evaluator.reset()
    for number, rows in enumerate(images):
        evaluator.process([{"image_id": f"{number:06d}"}], [{"instances": detections(rows)}])
    return evaluator.evaluate()["bbox"]


def ours(name, images) -> dict[str, float]:
    """The means; of single classes Detectron2 says nothing."""
    found = evaluate(OccurringClassesVOCEvaluator(name), images)
    return {metric: value for metric, value in found.items() if not metric.startswith("AP-")}


def detectron2s(name, images) -> dict[str, float]:
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.evaluation.pascal_voc_evaluation import parse_rec

    parse_rec.cache_clear()  # it remembers files by name, and pytest uses a test's folder again
    return evaluate(PascalVOCDetectionEvaluator(name), images)


def random_case(seed: int, images: int = 12) -> tuple[list, list]:
    """Objects, some difficult, some images without; detections: near, doubled, of the wrong class,
    of scores that are equal or become so, halfway between two decimals."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for number in range(images):
        objects, rows = [], []
        for _ in range(rng.integers(0, 7) if number else 6):
            x, y, w, h = rng.integers((1, 1, 8, 8), (300, 300, 150, 150)).tolist()
            label = int(rng.integers(3)) if number else len(objects) % 3  # each class occurs
            difficult = number > 0 and rng.random() < 0.3
            objects.append((CLASSES[label], difficult, (x, y, x + w, y + h)))
            for _ in range(rng.integers(0, 4)):
                box = np.array(objects[-1][2]) + rng.choice([0, 1, 5, 15]) * rng.normal(size=4)
                box = np.round(box * 4) / 4 if rng.random() < 0.5 else box
                wrong = rng.random() < 0.15
                score = rng.integers(1, 16) / 16 + rng.choice([0, 2e-4, -2e-4])
                rows.append(((label + wrong) % 3, score, box.tolist()))
        for _ in range(rng.integers(0, 20)):
            x, y, w, h = rng.uniform((1, 1, 5, 5), (300, 300, 150, 150)).tolist()
            rows.append((int(rng.integers(3)), rng.random(), (x, y, x + w, y + h)))
        rng.shuffle(rows)
        truth.append(objects)
        found.append(rows if rng.random() < 0.9 else [])
    return truth, found


@pytest.mark.parametrize("year", [2007, 2012])
@pytest.mark.parametrize("seed", range(4))
def test_random_detections_have_detectron2s_numbers_to_the_last_bit(split, seed, year):
    truth, found = random_case(seed)
    name = split(truth, year)
    expected = detectron2s(name, found)
    assert 0 < expected["AP75"] < expected["AP50"] < 100
    assert ours(name, found) == expected


CAT, DOG = (10, 20, 60, 90), (100, 50, 180, 120)
BOTH = [("cat", 0, CAT), ("dog", 0, DOG)]
EDGE_CASES = {  # ground truth and detections of two classes that both occur
    "no detections": ([BOTH], [[]]),
    "an image without objects": ([BOTH, []], [[(0, 0.9, CAT)], [(0, 0.95, CAT), (1, 0.1, DOG)]]),
    "duplicates": ([BOTH], [[(0, 0.8, CAT), (0, 0.9, CAT), (0, 0.9, CAT), (1, 0.3, DOG)]]),
    "all of one score": ([BOTH * 4] * 3, [[(0, 0.5, CAT), (1, 0.5, DOG), (0, 0.5, DOG)] * 8] * 3),
    "the first finds a difficult one": (
        [[*BOTH, ("cat", 1, DOG)]],
        [[(0, 0.9, DOG), (0, 0.5, CAT), (0, 0.4, DOG), (1, 0.5, CAT)]],
    ),
    "two objects of one box": ([[*BOTH, ("cat", 0, CAT)]], [[(0, 0.9, CAT), (0, 0.8, CAT)]]),
    "scores that round to 0": ([BOTH], [[(0, 0.0004, CAT), (1, 0.0001, CAT), (1, 0.0, DOG)]]),
    "nothing near": ([BOTH], [[(0, 0.9, DOG), (1, 0.9, (300, 300, 310, 310))]]),
}


@pytest.mark.parametrize("year", [2007, 2012])
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_have_detectron2s_numbers_to_the_last_bit(split, case, year):
    truth, found = EDGE_CASES[case]
    name = split(truth, year, classes=["cat", "dog"])
    assert ours(name, found) == detectron2s(name, found)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # Detectron2's 0 / 0
def test_a_class_without_objects_that_count_is_left_out_of_the_mean(split):
    found = [[(0, 0.9, CAT), (1, 0.8, DOG), (2, 0.7, DOG)]]
    only_cats = split([[("cat", 0, CAT)]])
    assert ours(only_cats, found) == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    assert detectron2s(only_cats, found)["AP"] == pytest.approx(100 / 3)
    difficult_dog = split([[("cat", 0, CAT), ("dog", 1, DOG)]])
    assert ours(difficult_dog, found)["AP"] == pytest.approx(100)


def test_each_class_has_its_ap_and_their_mean_is_the_ap(split):
    truth, found = random_case(1)
    truth = [[each for each in objects if each[0] != "dog"] for objects in truth]
    values = evaluate(OccurringClassesVOCEvaluator(split(truth)), found)
    assert math.isnan(values.pop("AP-dog"))  # no object: neither 0 nor in the mean
    of_classes = [values.pop(f"AP-{name}") for name in CLASSES if name != "dog"]
    assert len(set(of_classes)) == len(of_classes) > 1 and set(values) == {"AP", "AP50", "AP75"}
    assert np.mean(of_classes) == pytest.approx(values["AP"], rel=1e-12)
    only_cats = split([[("cat", 0, CAT)]])
    alone = evaluate(OccurringClassesVOCEvaluator(only_cats), [[(0, 0.9, CAT), (1, 0.8, DOG)]])
    assert alone["AP-cat"] == pytest.approx(100) and math.isnan(alone["AP-bird"])


def test_without_any_object_there_is_no_ap(split):
    for truth in ([[]], [[("cat", 1, CAT)]], [[("unknown", 0, CAT)]]):
        values = evaluate(OccurringClassesVOCEvaluator(split(truth)), [[(0, 0.9, CAT)]])
        wanted = {"AP", "AP50", "AP75", *(f"AP-{name}" for name in CLASSES)}
        assert set(values) == wanted and all(map(math.isnan, values.values()))


@pytest.mark.parametrize(
    "year, expected", [(2007, (6 + 5 * 2 / 3) / 11), (2012, 0.5 + 0.5 * 2 / 3)]
)
def test_an_ap_by_hand(split, year, expected):
    """Two objects: found, a miss between, found. Precision 1 to recall 0.5, 2/3 beyond."""
    truth = [[("cat", 0, CAT), ("cat", 0, DOG)]]
    found = [[(0, 0.9, CAT), (0, 0.8, (300, 300, 350, 350)), (0, 0.7, DOG)]]
    values = ours(split(truth, year, ["cat"]), found)
    assert values == pytest.approx(dict.fromkeys(values, 100 * expected))


def test_the_thresholds_are_strict_and_boxes_include_their_last_pixel(split):
    # 10 x 10 pixels against 10 x 20: an IoU of exactly 0.5 is no hit, a pixel less of the union is
    name = split([[("cat", 0, (1, 1, 10, 10))]], classes=["cat"])
    assert ours(name, [[(0, 0.9, (1, 1, 10, 20))]])["AP50"] == 0
    assert ours(name, [[(0, 0.9, (1, 1, 10, 19))]])["AP50"] == pytest.approx(100)


def test_the_nearest_object_is_the_first_of_the_largest_iou():
    boxes = np.array([[1.0, 1, 10, 10], [1, 1, 10, 10], [5, 1, 14, 10], [1, 1, 10, 10]])
    truth = Rows(np.array([0, 0, 0, 2]), np.zeros(4, int), boxes, counted=np.ones(4, bool))
    boxes = np.array([[1.0, 1, 10, 10], [5, 1, 14, 10], [1, 1, 10, 10], [50, 50, 60, 60]])
    found = Rows(np.array([0, 0, 1, 2]), np.zeros(4, int), boxes, score=np.ones(4))
    overlap, nearest = nearest_objects(truth, found)
    assert overlap.tolist() == [1, 1, -math.inf, 0] and nearest.tolist() == [0, 2, 0, 3]


def test_an_ap_is_that_of_the_plain_formula():
    rng = np.random.default_rng(0)
    for _ in range(20):
        tp = np.cumsum(rng.random(30) < 0.6)
        recall, precision = tp / 37, tp / np.arange(1, 31)  # 37: no recall is a whole tenth
        points = [max(precision[recall >= r / 10], default=0.0) for r in range(11)]
        assert average_precision(recall, precision, True) == pytest.approx(np.mean(points))
        steps = np.diff(np.concatenate(([0.0], recall)))
        area = sum(step * precision[i:].max() for i, step in enumerate(steps))
        assert average_precision(recall, precision, False) == pytest.approx(area)
