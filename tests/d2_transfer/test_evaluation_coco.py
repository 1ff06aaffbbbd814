"""COCO's metrics: Detectron2's with pycocotools, whichever library computes them."""

import copy
import itertools
import json
import math
import random
import sys
import uuid

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation import build_evaluator, coco, flat_metrics
from densessl.d2_transfer.evaluation.coco import CocoEvaluator

compat.setup()
THINGS, PEOPLE = (1, 3, 7), (1,)  # category ids with objects; 9 is there without
NUMBER = itertools.count()  # of a registered name: Detectron2's catalog keeps them all


@pytest.fixture
def data_set(tmp_path):
    """``data_set(content)``: the name under which annotations are registered."""
    from detectron2.data import MetadataCatalog

    def register(content: dict) -> str:
        name = f"coco_{next(NUMBER)}"
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        numbers = {each["id"]: place for place, each in enumerate(content["categories"])}
        MetadataCatalog.get(name).set(
            json_file=str(file),
            evaluator_type="coco",
            thing_classes=[each["name"] for each in content["categories"]],
            thing_dataset_id_to_contiguous_id=numbers,
        )
        return name

    return register


def annotations(seed: int, keypoints: bool = False, crowds: float = 0.2, images: int = 8) -> dict:
    """Random annotations: polygons of two pieces, crowds as run lengths, small to large objects,
    an image without objects, people without a visible keypoint."""
    rng = np.random.default_rng(seed)
    content = {"images": [], "annotations": [], "categories": []}
    kinds = PEOPLE if keypoints else THINGS
    content["categories"] = [{"id": c, "name": f"category {c}"} for c in (*kinds, 9)]
    for image in range(images):
        width, height = rng.integers(120, 260, 2).tolist()
        size = {"width": width, "height": height}
        content["images"].append({"id": 3 * image + 1, "file_name": f"{image}.jpg", **size})
        for _ in range(rng.integers(1, 7) if image else 0):
            x, y = (rng.uniform(0, 0.7, 2) * (width, height)).tolist()
            w, h = (rng.uniform(0.05, 1, 2) * (width - x, height - y)).tolist()
            crowd = int(rng.random() < crowds)
            each = {
                "id": len(content["annotations"]) + 1,
                "image_id": 3 * image + 1,
                "category_id": int(rng.choice(kinds)),
                "bbox": [x, y, w, h],
                "area": w * h * rng.uniform(0.5, 1),
                "iscrowd": crowd,
                "segmentation": outline(x, y, w, h, crowd, height, width),
            }
            if keypoints:
                visible = rng.integers(0, 3, 17) * (rng.random() < 0.8) * (1 - crowd)
                points = rng.uniform((x, y), (x + w, y + h), (17, 2)) * (visible > 0)[:, None]
                each["keypoints"] = np.column_stack((points, visible)).ravel().tolist()
                each["num_keypoints"] = int((visible > 0).sum())
            content["annotations"].append(each)
    return content


def outline(x, y, w, h, crowd, height, width):
    if not crowd:
        left, right = [x, y, x + w / 2, y, x + w / 2, y + h, x, y + h], x + w / 2
        return [left, [right, y + 1, x + w, y, x + w, y + h * 0.9]]
    mask = np.zeros((height, width), int)
    mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
    edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=0))
    counts = np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()
    return {"size": [height, width], "counts": counts}


def detections(content: dict, seed: int, keypoints: bool = False, clutter: int = 5) -> list[tuple]:
    """Of each image its input and instances: near objects, doubled, of equal scores, some of the
    wrong category, and clutter."""
    rng = np.random.default_rng(seed)
    numbers = {each["id"]: place for place, each in enumerate(content["categories"])}
    found = []
    for image in content["images"]:
        rows = []
        for each in content["annotations"]:
            for _ in range(rng.integers(0, 3) if each["image_id"] == image["id"] else 0):
                x, y, w, h = each["bbox"]
                noise = rng.choice([0, 0.02, 0.1]) * rng.normal(size=4) * (w, h, w, h)
                label = numbers[each["category_id"]]
                label = int(rng.integers(len(numbers))) if rng.random() < 0.1 else label
                spread = rng.choice([0.5, 3, 20])
                points = np.reshape(each.get("keypoints", [0] * 51), (17, 3))
                points = points + spread * rng.normal(size=(17, 3))
                rows.append((np.array([x, y, x + w, y + h]) + noise, label, points))
        for _ in range(rng.integers(0, clutter + 1)):
            corner = rng.uniform(0, (image["width"], image["height"]))
            box = np.concatenate((corner, corner + rng.uniform(1, 90, 2)))
            rows.append((box, int(rng.integers(len(numbers))), rng.uniform(0, 200, (17, 3))))
        found.append(({"image_id": image["id"]}, instances(image, rows, rng, keypoints)))
    return found


def instances(image: dict, rows: list[tuple], rng, keypoints: bool):
    from detectron2.structures import Boxes, Instances

    size = (image["height"], image["width"])
    found = Instances(size)
    boxes = np.array([box for box, *_ in rows]).reshape(-1, 4)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    found.pred_boxes.clip(size)
    found.pred_classes = torch.tensor([label for _, label, _ in rows], dtype=torch.long)
    found.scores = torch.tensor(rng.integers(21, size=len(rows)) / 20, dtype=torch.float32)
    if keypoints:
        points = np.array([each for *_, each in rows]).reshape(-1, 17, 3)
        found.pred_keypoints = torch.tensor(points, dtype=torch.float32)
    else:
        found.pred_masks = torch.zeros(len(rows), *size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(found.pred_masks, found.pred_boxes, strict=True):
            mask[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = True
    return found


def nothing(found: list[tuple]) -> list[tuple]:
    return [(entry, each[torch.zeros(len(each), dtype=torch.bool)]) for entry, each in found]


def evaluate(evaluator, found: list[tuple]) -> dict[str, dict]:
    evaluator.reset()
    for entry, each in copy.deepcopy(found):  # Detectron2 shifts the keypoints that it is given
        evaluator.process([entry], [{"instances": each}])
    return evaluator.evaluate()


def detectron2s(name: str, found: list[tuple]) -> dict[str, dict]:
    from detectron2.evaluation import COCOEvaluator

    return evaluate(COCOEvaluator(name, use_fast_impl=False), found)


def both(name: str, found: list[tuple]) -> dict[str, dict]:
    """pycocotools' metrics, once faster-coco-eval is seen to have the same."""
    slow, fast = (evaluate(CocoEvaluator(name, fast=fast), found) for fast in (False, True))
    assert_same(fast, slow)
    return slow


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for task in expected:
        assert found[task] == pytest.approx(expected[task], rel=0, abs=1e-9, nan_ok=True), task


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("keypoints", [False, True])
def test_random_detections_have_pycocotools_numbers(data_set, keypoints, seed):
    content = annotations(seed, keypoints)
    found = detections(content, seed, keypoints)
    name = data_set(content)
    expected = detectron2s(name, found)
    assert set(expected) == ({"bbox", "keypoints"} if keypoints else {"bbox", "segm"})
    assert all(0 < expected[task]["AP"] < expected[task]["AP50"] < 100 for task in expected)
    assert_same(both(name, found), expected)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("pairs", [1, 20])  # 8 images: each category alone, or two at a time
def test_categories_judged_apart_have_the_numbers_of_all_together(
    data_set, fast, pairs, monkeypatch
):
    content = annotations(3)
    name, found = data_set(content), detections(content, 3)
    together = evaluate(CocoEvaluator(name, fast=fast), found)
    monkeypatch.setattr(coco, "PAIRS", pairs)
    apart = evaluate(CocoEvaluator(name, fast=fast), found)
    assert repr(apart) == repr(together)  # bit for bit, NaN is NaN


@pytest.mark.parametrize(
    "parts, most, weights", [(2, 9, [9, 9]), (3, 9, [4, 5, 9]), (2, 3, [8, 10])]
)
def test_parts_of_the_categories_have_about_as_many_detections(parts, most, weights):
    counts = {1: 9, 2: 1, 3: 4, 4: 2, 5: 2}
    made = coco.shared(counts, parts, most)
    assert sorted(category for part in made for category in part) == [1, 2, 3, 4, 5]
    assert [sum(counts[category] for category in part) for part in made] == weights
    assert all(part == sorted(part) and len(part) <= most for part in made)


@pytest.mark.parametrize("keypoints", [False, True])
def test_more_detections_than_count_have_pycocotools_numbers(data_set, keypoints):
    """Only the best 100 of an image's category count, of people with keypoints the best 20."""
    content = annotations(9, keypoints, images=3)
    found = detections(content, 9, keypoints, clutter=900)
    name = data_set(content)
    assert_same(both(name, found), detectron2s(name, found))


@pytest.mark.parametrize("keypoints", [False, True])
@pytest.mark.parametrize("change", ["only crowds", "one image", "zero areas", "no crowd"])
def test_unusual_ground_truth_has_pycocotools_numbers(data_set, keypoints, change):
    content = annotations(5, keypoints)
    found = detections(content, 5, keypoints)
    objects = content["annotations"]
    for each in objects:
        if change == "only crowds":
            each["iscrowd"] = 1
        elif change == "zero areas":
            each["area"] = 0.0 if each["id"] % 2 else each["area"]
        else:
            each["iscrowd"] = 0
    if change == "one image":  # has objects, and nothing is detected in it
        content["annotations"] = [each for each in objects if each["image_id"] == 4]
        found = [(entry, each) for entry, each in found if entry["image_id"] != 4]
    name = data_set(content)
    metrics = both(name, found)
    assert_same(metrics, detectron2s(name, found))
    assert math.isnan(metrics["bbox"]["AP"]) == (change == "only crowds")


@pytest.mark.parametrize("fast", [False, True])
def test_a_category_without_objects_does_not_count(data_set, fast):
    content = annotations(3)
    found = detections(content, 3)
    whole = evaluate(CocoEvaluator(data_set(content), fast=fast), found)["bbox"]
    assert math.isnan(whole["AP-category 9"])
    mean = np.mean([whole[f"AP-category {number}"] for number in THINGS])
    assert whole["AP"] == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("keypoints", [False, True])
def test_a_model_that_detects_nothing_has_an_ap_of_zero_in_each_task(data_set, keypoints):
    content = annotations(3, keypoints)
    metrics = both(data_set(content), nothing(detections(content, 3, keypoints)))
    assert set(metrics) == {"bbox", "keypoints" if keypoints else "segm"}
    for task in metrics.values():
        assert (task["AP"], task["AP50"], task["AP75"]) == (0, 0, 0)
        assert math.isnan(task["AP-category 9"])


@pytest.mark.parametrize("detects", [True, False])
def test_without_objects_there_is_no_ap(data_set, detects):
    content = annotations(3)
    found = detections(content, 3)
    content["annotations"] = []
    metrics = both(data_set(content), found if detects else nothing(found))
    assert set(metrics) == {"bbox", "segm"}
    assert all(math.isnan(value) for task in metrics.values() for value in task.values())


def test_annotations_may_be_numbered_from_0_and_leave_iscrowd_out(data_set):
    """pycocotools takes a match with annotation 0 for none, and fails without iscrowd."""
    content = annotations(4, crowds=0)
    found = detections(content, 4)
    expected = both(data_set(content), found)
    for each in content["annotations"]:
        each["id"] -= 1
        del each["iscrowd"]
    assert_same(both(data_set(content), found), expected)


# Ids as people have them --------------------------------------------------------------------------


def renamed(content: dict, found: list[tuple], images, categories=None, annotations=None) -> tuple:
    """The same data with other ids: each a function of the place, from 0, in the file."""
    content, numbers = copy.deepcopy(content), {}
    for kind, name in (("images", images), ("categories", categories)):
        numbers[kind] = {
            each["id"]: name(place) if name else each["id"]
            for place, each in enumerate(content[kind])
        }
        for each in content[kind]:
            each["id"] = numbers[kind][each["id"]]
    for place, each in enumerate(content["annotations"]):
        each["id"] = annotations(place) if annotations else each["id"]
        each["image_id"] = numbers["images"][each["image_id"]]
        each["category_id"] = numbers["categories"][each["category_id"]]
    return content, [
        ({"image_id": numbers["images"][entry["image_id"]]}, each) for entry, each in found
    ]


def uuids(place: int) -> str:
    """Random, but in the order of the places."""
    return f"{place:04x}{uuid.UUID(int=random.Random(place).getrandbits(128))}"


IDS = {  # of a place
    "beyond 2^53": lambda n: 2**53 + n,
    "beyond 2^60": lambda n: 2**60 + n,
    "beyond 2^70": lambda n: 2**70 + n,
    "from 0": lambda n: n,
    "negative": lambda n: n - 100,
    "fractions": lambda n: n + 0.5,
    "floats": float,
    "texts": lambda n: f"{n:06d}",
    "UUIDs": uuids,
    "mixed": lambda n: n if n % 2 else str(n),
    "1 beside '1'": lambda n: str(n // 2) if n % 2 else n // 2,
    "mixed and large": lambda n: (2**53 + n, f"a{n}", n + 0.5)[n % 3],
}


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("keypoints", [False, True])
def test_any_id_of_json_has_pycocotools_numbers(data_set, ids, keypoints):
    content = annotations(1, keypoints)
    found = detections(content, 1, keypoints)
    expected = detectron2s(data_set(content), found)
    name = IDS[ids]
    for places in ((name,), (name, name, name)):
        other, same = renamed(content, found, *places)
        assert_same(both(data_set(other), same), expected)


def test_ids_that_pycocotools_can_take_have_its_numbers_in_any_order_of_the_file(data_set):
    """Among equal scores the order of the images decides: it is that of the ids."""
    content = annotations(2)
    found = detections(content, 2)
    order = np.random.default_rng(0).permutation(len(content["images"])).tolist()
    content, found = renamed(content, found, lambda place: 10 * order[place])
    assert_same(both(data_set(content), found), detectron2s(data_set(content), found))


def test_the_written_detections_have_the_ids_of_the_file(data_set, tmp_path):
    content = annotations(6)
    content, found = renamed(content, detections(content, 6), IDS["mixed and large"], uuids)
    evaluate(CocoEvaluator(data_set(content), str(tmp_path)), found)
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert [each["image_id"] for each in written] == [
        entry["image_id"] for entry, each in found for _ in range(len(each))
    ]
    assert {each["category_id"] for each in written} == {uuids(place) for place in range(4)}


# What a file may lack -----------------------------------------------------------------------------


@pytest.mark.parametrize("crowd", [None, False, 0.0])
def test_iscrowd_may_be_null_or_false(data_set, crowd):
    content = annotations(4, crowds=0)
    found = detections(content, 4)
    expected = both(data_set(content), found)
    for each in content["annotations"]:
        each["iscrowd"] = crowd
    assert_same(both(data_set(content), found), expected)


def test_iscrowd_may_be_true(data_set):
    content = annotations(4, crowds=0.5)
    found = detections(content, 4)
    expected = both(data_set(content), found)
    for each in content["annotations"]:
        each["iscrowd"] = bool(each["iscrowd"])
    assert_same(both(data_set(content), found), expected)


@pytest.mark.parametrize("area", [..., None, "493", "large", math.nan, -1.0, True])
@pytest.mark.parametrize("masks", [True, False])
def test_an_area_that_is_no_number_is_that_of_the_mask_or_the_box(data_set, masks, area):
    content = annotations(4)
    found = detections(content, 4)
    sizes = {each["id"]: (each["height"], each["width"]) for each in content["images"]}
    for each in content["annotations"]:
        size, mask = sizes[each["image_id"]], each["segmentation"]
        pieces = coco_mask.frPyObjects(mask, *size)
        whole = coco_mask.merge(pieces) if isinstance(mask, list) else pieces
        each["area"] = float(coco_mask.decode(whole).sum())
        if not masks:
            each["area"] = each["bbox"][2] * each["bbox"][3]
            del each["segmentation"]
    if not masks:
        for _, each in found:
            each.remove("pred_masks")
    expected = both(data_set(content), found)
    for each in content["annotations"]:
        each["area"] = area
        if area is ...:
            del each["area"]
    assert_same(both(data_set(content), found), expected)


@pytest.mark.parametrize("place", [0, 1])
def test_a_polygon_of_two_points_is_nothing(data_set, place):
    """pycocotools would take the whole list for boxes if it came first."""
    content = annotations(4)
    found = detections(content, 4)
    expected = both(data_set(content), found)
    for each in content["annotations"]:
        if isinstance(each["segmentation"], list):
            each["segmentation"].insert(place, [3.0, 3.0, 9.0, 9.0])
    assert_same(both(data_set(content), found), expected)


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-32-be"])
def test_the_ground_truth_may_be_in_any_form_of_unicode(data_set, form, tmp_path):
    content = annotations(4)
    found = detections(content, 4)
    name = data_set(content)
    expected = evaluate(CocoEvaluator(name), found)
    (file,) = tmp_path.glob("*.json")
    file.write_text(json.dumps(content), encoding=form)
    assert_same(evaluate(CocoEvaluator(name), found), expected)


def test_the_detections_are_written_with_the_data_sets_numbers(data_set, tmp_path):
    content = annotations(6)
    found = detections(content, 6)
    evaluator = CocoEvaluator(data_set(content), str(tmp_path / "out"))
    once = evaluate(evaluator, found)
    assert_same(evaluator.evaluate(), once)  # asked again, it says the same
    [file] = (tmp_path / "out").iterdir()
    written = json.loads(file.read_text())
    assert file.name == "coco_instances_results.json"
    assert len(written) == sum(len(each) for _, each in found)
    assert {each["category_id"] for each in written} == {*THINGS, 9}
    entry, first = found[0]
    x1, y1, x2, y2 = first.pred_boxes.tensor[0].tolist()
    assert written[0]["image_id"] == entry["image_id"]
    assert written[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-4)
    assert set(written[0]["segmentation"]) == {"size", "counts"}


# Keypoints of the scenes -------------------------------------------------------------------------


@pytest.fixture
def people(scenes, data_set):
    """The scenes' people: the name of their annotations, and each found as it is."""
    file = scenes / "coco/annotations/person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    found = []
    for image in content["images"]:
        rows = []
        for each in content["annotations"]:
            if each["image_id"] == image["id"]:
                x, y, w, h = each["bbox"]
                points = np.reshape(each["keypoints"], (17, 3)) + (0.5, 0.5, 0)  # pixel centres
                rows.append((np.array([x, y, x + w, y + h]), 0, points))
        rng = np.random.default_rng(0)
        found.append(({"image_id": image["id"]}, instances(image, rows, rng, keypoints=True)))
    return data_set(content), found


def test_keypoints_found_as_they_are_have_an_ap_of_100(people, tmp_path, capsys):
    name, found = people
    evaluator = build_evaluator(name, str(tmp_path), images=len(found))
    metrics = flat_metrics(evaluate(evaluator, found))
    assert metrics["keypoints/AP"] == pytest.approx(100)
    assert metrics["bbox/AP"] == pytest.approx(100)
    assert capsys.readouterr().out == ""
    moved = copy.deepcopy(found)
    for _, each in moved:
        each.pred_keypoints[:, :, 0] += 1
    less = flat_metrics(evaluate(evaluator, moved))
    assert 0 < less["keypoints/AP"] < 100 and less["bbox/AP"] == metrics["bbox/AP"]


def test_larger_oks_sigmas_forgive_more(people, tmp_path):
    name, found = people
    for _, each in found:
        each.pred_keypoints[:, :, 0] += 1
    usual, large = (
        flat_metrics(evaluate(build_evaluator(name, str(tmp_path), 1, sigmas), found))
        for sigmas in ((), (0.3,) * 17)
    )
    assert usual["keypoints/AP"] < large["keypoints/AP"]


@pytest.mark.parametrize("fast", [False, True])
def test_another_number_of_keypoints_needs_its_own_sigmas(people, fast):
    name, found = people
    with pytest.raises(InputError, match="annotations have 17 keypoints, the metric has 3.*SIGMAS"):
        evaluate(CocoEvaluator(name, fast=fast, oks_sigmas=(0.1, 0.1, 0.1)), found)
    for _, each in found:
        each.pred_keypoints = each.pred_keypoints[:, :5]
    with pytest.raises(InputError, match="detections have 5 keypoints"):
        evaluate(CocoEvaluator(name, fast=fast), found)


def test_a_library_that_is_missing_is_named_with_what_mends_it(people, monkeypatch):
    name, _ = people
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(EnvironmentLacks, match="faster_coco_eval.*make setup"):
        CocoEvaluator(name, fast=True)
