"""Data sets, heads and evaluators that a user's file registers: ``--import``, TEST.EVALUATOR."""

from pathlib import Path

import pytest

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, pictures, results
from densessl.d2_transfer.resolve import check_words, resolve

compat.setup()  # before any test imports Detectron2
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402

from densessl.d2_transfer.datasets import registered  # noqa: E402
from densessl.d2_transfer.evaluation import build_evaluator  # noqa: E402

REGISTERING = """\
import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import BoxMode

ROOT = Path({root!r}) / "coco"


def read(split, most):
    held = json.loads((ROOT / f"annotations/instances_{{split}}2017.json").read_text())
    ids = {{each["id"]: number for number, each in enumerate(held["categories"])}}
    return [
        {{
            "file_name": str(ROOT / f"{{split}}2017" / image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": [
                {{
                    "bbox": each["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": ids[each["category_id"]],
                    "segmentation": each["segmentation"],
                    "iscrowd": each["iscrowd"],
                }}
                for each in held["annotations"]
                if each["image_id"] == image["id"]
            ],
        }}
        for image in held["images"][:most]
    ]


NAMES = json.loads((ROOT / "annotations/instances_val2017.json").read_text())["categories"]
for name, split, most in (("farm_train", "train", 8), ("farm_val", "val", 4)):
    DatasetCatalog.register(name, lambda split=split, most=most: read(split, most))
    MetadataCatalog.get(name).set(thing_classes=[each["name"] for each in NAMES])


@ROI_HEADS_REGISTRY.register()
class FarmHeads(StandardROIHeads):
    pass


class Counted(DatasetEvaluator):
    def __init__(self, name):
        self.name = name

    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        return {{"counted": {{"images": self.images}}}}
"""
MINE = """\
MODEL:
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  MASK_ON: True
  BACKBONE: {NAME: "build_resnet_fpn_backbone", FREEZE_AT: 0}
  RESNETS:
    DEPTH: 18
    RES2_OUT_CHANNELS: 64
    NORM: "BN"
    STRIDE_IN_1X1: False
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"]}
  ROI_HEADS: {NAME: "FarmHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"]}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 2, POOLER_RESOLUTION: 7}
INPUT: {FORMAT: "RGB"}
DATASETS:
  TRAIN: ("farm_train",)
  TEST: ("farm_val",)
"""
SMALL = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scenes):
    made = tmp_path_factory.mktemp("project")
    (made / "register.py").write_text(REGISTERING.format(root=str(scenes)))
    (made / "mine.yaml").write_text(MINE)
    return made


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_project_trains_as_it_stands_and_has_cocos_numbers(capsys):
    words = ["transfer", "random", "--protocol", "mine.yaml", "--import", "register.py", "--mini"]
    assert densessl.main([*words, "-o", "out", "--trials", "1", *SMALL]) == 0
    record = results.load("out/trial_1")
    assert {"bbox/AP", "segm/AP50", "bbox/AP-person"} <= record.metrics.keys()
    assert Path("out/trial_1/evaluation/farm_val.json").is_file()  # as COCO has it
    with pytest.raises(InputError, match="register.py, which is not run to draw a trial"):
        pictures.config_of("out/trial_1")
    assert densessl.main([*words, "-o", "out", "--trials", "1", *SMALL]) == 0  # nothing is left
    again = ["transfer", "out/trial_1", *words[2:], "--eval-only", "-o", "again"]
    assert densessl.main([*again, *SMALL, "TEST.EVALUATOR", "register.py:Counted"]) == 0
    assert results.load("again").metrics == {"counted/images": 4}
    assert "counted/images" in capsys.readouterr().out
    assert densessl.main(["table", "out"]) == 0


def test_other_data_under_the_same_name_is_another_run(monkeypatch):
    resolve("mine.yaml", imports="register.py", cuda=False)
    before = registered.check("farm_train", trains=True, masks=True)
    fewer = DatasetCatalog.get("farm_train")[1:]
    monkeypatch.setattr(registered, "read", lambda name: fewer)
    assert registered.check("farm_train", trains=True, masks=True) != before


def test_without_the_import_the_name_is_unknown_and_the_flag_is_named():
    with pytest.raises(InputError, match="unknown data set 'farm_train'.*--import FILE"):
        check_words("mine.yaml", [])


@pytest.mark.parametrize(
    "text, says",
    [
        ("import detectron2\n1 / 0\n", "wrong.py, line 2: ZeroDivisionError"),
        (None, "--import is '.*wrong.py'; it must be a Python file that is there"),
        ("x = 1\n", "unknown data set 'farm_train'"),
    ],
)
def test_what_registers_nothing_is_named(text, says, tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE.replace("farm_", "barn_" if text is None else "farn_"))
    file = tmp_path / "wrong.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=says.replace("farm_", "farn_")):
        resolve(str(tmp_path / "mine.yaml"), imports=str(file), plain=True)


def test_a_config_cannot_have_a_file_run(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"{MINE}IMPORT: register.py\n")
    with pytest.raises(InputError, match="line 21: IMPORT is set by --import alone"):
        resolve(str(tmp_path / "mine.yaml"), plain=True)
    (tmp_path / "mine.yaml").write_text(f"{MINE}TEST: {{EVALUATOR: 'register.py:Counted'}}\n")
    with pytest.raises(InputError, match="TEST.EVALUATOR is 'register.py:Counted'; a"):
        resolve(str(tmp_path / "mine.yaml"), plain=True)
    with pytest.raises(InputError, match="IMPORT cannot be set .* here: it is --import"):
        resolve("coco_mask_fpn_1x", plain=True, overrides=["IMPORT", "register.py"])


@pytest.mark.parametrize(
    "entries, says",
    [
        ([], "is empty; it must be a list of dicts"),
        ({}, "is a dict; it must be a list"),
        ([{"image_id": 1}], "entry 0 has no file_name"),
        ([{"image_id": 1, "file_name": "/nowhere.jpg"}], "/nowhere.jpg is not there"),
        ([{"image_id": 1, "file_name": __file__}], "nothing could be learnt"),
        (
            [{"image_id": 1, "file_name": __file__, "annotations": [{"category_id": 1}]}],
            "category_id 1; allowed: 0 to 0.*|no annotation has a segmentation",
        ),
    ],
)
def test_data_that_are_not_right_are_named_before_any_work(entries, says):
    DatasetCatalog.register("fault", lambda: entries)
    MetadataCatalog.get("fault").set(thing_classes=["one"])
    try:
        with pytest.raises(InputError, match=says):
            registered.check("fault", trains=True, masks=True)
    finally:
        DatasetCatalog.remove("fault")
        MetadataCatalog.remove("fault")


@pytest.mark.parametrize(
    "named, says",
    [
        ("COCOEvaluato", "unknown evaluator 'COCOEvaluato' in TEST.EVALUATOR.*'COCOEvaluator'"),
        ("register.py:Countd", "unknown evaluator"),
        ("register.py:read", "register.py:read cannot be made for farm_val: TypeError"),
        ("register.py:Path", "makes a PosixPath, no DatasetEvaluator"),
    ],
)
def test_an_evaluator_that_is_none_is_named(named, says):
    with pytest.raises(InputError, match=says):
        build_evaluator("farm_val", "", 0, named=named)
