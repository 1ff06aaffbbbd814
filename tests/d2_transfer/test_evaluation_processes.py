"""Evaluators in two processes: each sees half of the images, and rank 0 has the whole's numbers."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from densessl.d2_transfer.launch import Rendezvous
from densessl.d2_transfer.results import class_of

# The children import this by name, so it lies in a file of its own.
CHILD = '''
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation import build_evaluator, flat_metrics

compat.setup()
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

THINGS = ["person", "car"]


def register(root):
    labels = {image(number): str(root / f"{number}.png") for number in range(5)}
    entries = [{"file_name": name, "sem_seg_file_name": file} for name, file in labels.items()]
    DatasetCatalog.register("processes_semantic", lambda: entries)
    about = {
        "voc": dict(evaluator_type="pascal_voc", dirname=str(root), split="test", year=2007),
        "coco": dict(
            evaluator_type="coco",
            json_file=str(root / "coco.json"),
            thing_dataset_id_to_contiguous_id={1: 0, 3: 1},
        ),
        "city": dict(evaluator_type="cityscapes_instance", gt_dir=str(root / "gtFine")),
        "semantic": dict(evaluator_type="sem_seg", stuff_classes=THINGS, ignore_label=255),
    }
    for name, metadata in about.items():
        MetadataCatalog.get(f"processes_{name}").set(thing_classes=THINGS, **metadata)


def image(number):
    return f"images/town/town_{number:06d}_000019_leftImg8bit.png"


def detect(root, number):
    """Boxes, masks and classes of an image, the same in whichever process it is asked for."""
    rng = np.random.default_rng(number)
    found = Instances((40, 50))
    corner = rng.integers(0, 25, (4, 2))
    boxes = np.concatenate((corner, corner + rng.integers(8, 20, (4, 2))), axis=1)
    boxes[0] = [5, 5, 25, 25]  # an object's
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    found.pred_classes = torch.tensor([number % 2, 0, 1, 1])
    found.scores = torch.tensor([0.7, 0.5, 0.5, 0.9]) - 0.1 * (number % 3)
    found.pred_masks = torch.zeros(4, 40, 50, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(found.pred_masks, boxes):
        mask[y1:y2, x1:x2] = True
    sem_seg = torch.tensor(rng.integers(0, 2, (40, 50)))
    entry = {"image_id": number, "file_name": image(number)}
    return entry, {"instances": found, "sem_seg": sem_seg}


def evaluate(folder):
    root = Path(folder)
    register(root)
    seen = range(5)[comm.get_rank() :: comm.get_world_size()]
    metrics = {}
    for name in ("voc", "coco", "city", "semantic"):
        evaluator = build_evaluator(f"processes_{name}", str(root / "out"), images=len(seen))
        evaluator.reset()
        for number in seen:
            entry, output = detect(root, number)
            if name == "voc":
                entry["image_id"] = str(number)
            evaluator.process([entry], [output])
        found = evaluator.evaluate()
        assert comm.is_main_process() or not found
        metrics[name] = flat_metrics(found or {})
    if comm.is_main_process():
        (root / f"of_{comm.get_world_size()}.json").write_text(json.dumps(metrics))
'''


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "evaluated_by_test.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    import evaluated_by_test

    yield evaluated_by_test
    sys.modules.pop("evaluated_by_test")


def write_truth(root) -> None:
    """Five images of one object each, in the four layouts."""
    for folder in ("Annotations", "ImageSets/Main", "gtFine/town"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/test.txt").write_text("0\n1\n2\n3\n4\n")
    coco = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    for number in range(5):
        name = ("person", "car")[number % 2]
        (root / f"Annotations/{number}.xml").write_text(
            f"<annotation><object><name>{name}</name><difficult>0</difficult><bndbox><xmin>6</xmin>"
            "<ymin>6</ymin><xmax>25</xmax><ymax>25</ymax></bndbox></object></annotation>"
        )
        coco["images"].append({"id": number, "width": 50, "height": 40})
        corners = [5, 5, 25, 5, 25, 25, 5, 25]
        each = {"image_id": number, "category_id": (1, 3)[number % 2], "segmentation": [corners]}
        each |= {"id": number + 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        coco["annotations"].append(each)
        ids = np.full((40, 50), 7, np.uint16)
        ids[5:25, 5:25] = (24001, 26001)[number % 2]
        file = root / f"gtFine/town/town_{number:06d}_000019_gtFine_instanceIds.png"
        Image.fromarray(ids).save(file)
        Image.fromarray((ids > 7).astype(np.uint8)).save(root / f"{number}.png")
    (root / "coco.json").write_text(json.dumps(coco))


def test_two_processes_have_the_numbers_of_one(child, tmp_path):
    write_truth(tmp_path)
    Rendezvous().run(child.evaluate, 2, (str(tmp_path),), cuda=False)
    child.evaluate(str(tmp_path))
    one, two = (json.loads((tmp_path / f"of_{n}.json").read_text()) for n in (1, 2))
    expected = {
        "voc": {"bbox/AP", "bbox/AP50", "bbox/AP75"},
        "city": {"segm/AP", "segm/AP50"},
        "semantic": {"sem_seg/mIoU", "sem_seg/fwIoU", "sem_seg/mACC", "sem_seg/pACC"},
    }
    for name, keys in expected.items():
        assert {key for key in two[name] if class_of(key) is None} == keys
    assert {"bbox/AP", "segm/AP"} <= set(two["coco"])
    for name in one:
        assert one[name] == pytest.approx(two[name], abs=1e-9, nan_ok=True), name
        assert any(0 < value < 100 for value in two[name].values())
    written = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert {each["image_id"] for each in written} == set(range(5))
