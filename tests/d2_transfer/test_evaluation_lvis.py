"""LVIS's metrics, against numbers of the package ``lvis`` on a small federated data set."""

import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from densessl.core.errors import EnvironmentLacks
from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation import build_evaluator, coco, lvis

compat.setup()
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/lvis/federated.json").read_text())
TRUTH, FOUND = GOLDEN["truth"], GOLDEN["found"]


def evaluate(folder, found: list[dict], truth: dict = TRUTH) -> dict[str, dict[str, float]]:
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Boxes, Instances

    name = f"lvis_{folder.name}"
    (folder / "truth.json").write_text(json.dumps(truth))
    MetadataCatalog.get(name).json_file = str(folder / "truth.json")
    MetadataCatalog.get(name).evaluator_type = "lvis"
    evaluator = build_evaluator(name, str(folder), images=len(truth["images"]))
    evaluator.reset()
    for image in truth["images"]:
        here = [each for each in found if each["image_id"] == image["id"]]
        size = image["height"], image["width"]
        boxes = np.array([each["bbox"] for each in here]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = np.array([coco_mask.decode(each["segmentation"]) for each in here])
        made = Instances(size)
        made.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        made.scores = torch.tensor([each["score"] for each in here])
        # a data set of one's own without a table of numbers: Detectron2 gives the ids
        made.pred_classes = torch.tensor([each["category_id"] for each in here], dtype=torch.long)
        made.pred_masks = torch.tensor(masks.reshape(-1, *size), dtype=torch.bool)
        evaluator.process([{"image_id": image["id"]}], [{"instances": made}])
    evaluator.close()
    return evaluator.evaluate()


def same(found: dict, expected: dict) -> bool:
    return all(
        math.isnan(found[name])
        if expected[name] is None
        else found[name] == pytest.approx(expected[name], rel=0, abs=1e-9)
        for name in expected
    )


@pytest.mark.parametrize("most, pairs", [(300, coco.PAIRS), (5, coco.PAIRS), (300, 1)])
def test_the_numbers_are_those_of_the_official_package(tmp_path, monkeypatch, most, pairs):
    monkeypatch.setattr(lvis, "MOST", most)
    monkeypatch.setattr(coco, "PAIRS", pairs)  # 1: each category alone
    found = evaluate(tmp_path, FOUND)
    for task, expected in GOLDEN["expected"][str(most)].items():
        assert found[task].keys() == expected.keys() and same(found[task], expected)


def wrong(category: int) -> dict:
    """A detection in the first image that finds nothing, surer than all others."""
    corner = np.zeros((160, 160), np.uint8, order="F")
    corner[150:, :3] = 1
    mask = coco_mask.encode(corner)
    return {
        "image_id": TRUTH["images"][0]["id"],
        "category_id": category,
        "score": 1.0,
        "bbox": [0.0, 150.0, 3.0, 10.0],
        "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
    }


def test_only_what_is_known_of_an_image_is_an_error(tmp_path):
    image = TRUTH["images"][0]
    shown = {
        each["category_id"] for each in TRUTH["annotations"] if each["image_id"] == image["id"]
    }
    some, exhaustive = set(image["not_exhaustive_category_ids"]), set(image["neg_category_ids"])
    unknown = set(range(1, 7)) - shown - exhaustive
    expected = evaluate(tmp_path, FOUND)["bbox"]
    for category in (min(unknown), min(some)):
        assert evaluate(tmp_path, [*FOUND, wrong(category)])["bbox"] == pytest.approx(
            expected, nan_ok=True
        )
    for category in (min(shown - some), min(exhaustive & {1, 2, 3, 4, 5})):
        assert evaluate(tmp_path, [*FOUND, wrong(category)])["bbox"]["AP"] < expected["AP"]


def test_detections_of_an_image_of_which_nothing_is_known_change_nothing(tmp_path):
    """faster-coco-eval alone ends with an IndexError there."""
    silent = {"id": 4711, "width": 160, "height": 160, "file_name": "x", "neg_category_ids": []}
    silent["not_exhaustive_category_ids"] = []
    truth = {**TRUTH, "images": [*TRUTH["images"], silent]}
    found = evaluate(tmp_path, [*FOUND, {**wrong(1), "image_id": 4711}], truth)
    for task, expected in GOLDEN["expected"]["300"].items():
        assert same(found[task], expected)


def test_a_model_that_finds_nothing_has_an_ap_of_0(tmp_path):
    found = evaluate(tmp_path, [])
    assert set(found) == {"bbox", "segm"}
    assert {found["segm"][name] for name in ("AP", "AP50", "APr", "APc", "APf")} == {0.0}


def test_categories_that_no_image_shows_have_no_ap(tmp_path):
    truth = copy.deepcopy(TRUTH)
    truth["annotations"] = [each for each in truth["annotations"] if each["category_id"] > 2]
    found = evaluate(tmp_path, FOUND, truth)["bbox"]
    assert math.isnan(found["APr"]) and found["APc"] > 0


def test_without_faster_coco_eval_it_is_said_before_any_work(monkeypatch):
    from detectron2.data import MetadataCatalog

    MetadataCatalog.get("lvis_none").set(evaluator_type="lvis", json_file="none.json")
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(EnvironmentLacks, match="faster_coco_eval.*fix it with"):
        build_evaluator("lvis_none", "", images=0)
