"""The user's own data as people have them: any ids, missing keys, other forms of text."""

import copy
import json
import logging
import random
import uuid
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, main, pictures
from densessl.d2_transfer.datasets import custom
from densessl.d2_transfer.datasets.registration import forget
from tests.d2_transfer.test_custom import HEIGHT, WIDTH, Data, rle

compat.setup()  # before any test imports Detectron2
CASES = Path(__file__).resolve().parents[1] / "cases" / "coco"
# A detector that trains in seconds, and of which every detection is written.
TINY = {
    "MODEL.RESNETS.DEPTH": "18",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "64",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "4",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "8",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "32",
    "MODEL.FPN.OUT_CHANNELS": "32",
    "TEST.PRECISE_BN.NUM_ITER": "1",
    "INPUT.MIN_SIZE_TRAIN": "(72,)",
    "INPUT.MIN_SIZE_TEST": "72",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.MAX_ITER": "2",
}


@pytest.fixture
def data(tmp_path) -> Data:
    return Data(tmp_path)


def renamed(content: dict, kind: str, key: str, name) -> dict:
    """Other ids: of images or categories, with the annotations that point at them."""
    content = copy.deepcopy(content)
    ids = {each["id"]: name(place) for place, each in enumerate(content[kind])}
    for each in content[kind]:
        each["id"] = ids[each["id"]]
    for each in content["annotations"]:
        each[key] = ids[each[key]]
    return content


# Ids ----------------------------------------------------------------------------------------------

IDS = {  # of a place in the file
    "beyond 2^53": lambda n: 2**53 + n,
    "beyond 2^70": lambda n: 2**70 + n,
    "from 0": lambda n: n,
    "negative": lambda n: n - 100,
    "fractions": lambda n: n + 0.5,
    "texts": lambda n: f"{n:06d}",
    "an empty text": lambda n: "x" * n,
    "UUIDs": lambda n: str(uuid.UUID(int=random.Random(n).getrandbits(128))),
    "mixed": lambda n: n if n % 2 else str(n),
    "1 beside '1'": lambda n: str(n // 2) if n % 2 else n // 2,
}


@pytest.mark.parametrize("ids", IDS)
def test_any_id_of_json_gives_detectron2_the_same_data(data, ids):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    custom.register(data.read())
    expected = {each["file_name"]: each for each in DatasetCatalog.get("custom_train")}
    names = [each["file_name"] for each in data.train["images"]]
    order = sorted(range(6), key=IDS[ids]) if "mixed" not in ids and "'" not in ids else range(6)
    for split in ("train", "val"):
        content = renamed(getattr(data, split), "images", "image_id", IDS[ids])
        for place, each in enumerate(content["annotations"]):
            each["id"] = IDS[ids](place)
        setattr(data, split, renamed(content, "categories", "category_id", IDS[ids]))
    found = data.read()
    custom.register(found)
    entries = DatasetCatalog.get("custom_train")
    assert [Path(each["file_name"]).name for each in entries] == [names[n] for n in order]
    assert [each["image_id"] for each in entries] == [IDS[ids](n) for n in order]
    label = {name: n for n, name in enumerate(MetadataCatalog.get("custom_train").thing_classes)}
    for entry in entries:
        before = expected[entry["file_name"]]["annotations"]
        assert len(entry["annotations"]) == len(before)
        for one, other in zip(entry["annotations"], before, strict=True):
            name = ("nut", "bolt")[other["category_id"]]
            assert one == {**other, "category_id": label[name]}
    assert len(DatasetCatalog.get("custom_val")) == 3


def test_1_and_1_with_a_point_are_one_id(data):
    """pandas makes floats of whole numbers where a column has a gap."""
    for each in data.train["annotations"]:
        each["image_id"], each["category_id"] = float(each["image_id"]), float(each["category_id"])
    assert data.read().images == 6


# What is taken, with a line -----------------------------------------------------------------------


def lines(data, caplog, need_masks: bool = False) -> list[str]:
    """What is said of data that are taken."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        data.read(need_masks)
    return [record.getMessage() for record in caplog.records]


def test_annotations_may_be_numbered_from_0(data, caplog):
    for place, each in enumerate(data.val["annotations"]):
        each["id"] = place
    (line,) = lines(data, caplog)
    assert "val.json" in line and "1 of 6 annotations" in line and "id 0" in line


@pytest.mark.parametrize("value", [..., None, False])
@pytest.mark.parametrize("split", ["train", "val"])
def test_iscrowd_may_be_missing_or_false(data, caplog, split, value):
    for each in getattr(data, split)["annotations"]:
        if not each["iscrowd"]:
            each["iscrowd"] = value
            if value is ...:
                del each["iscrowd"]
    (line,) = lines(data, caplog)
    assert f"{split}.json" in line and "iscrowd" in line
    assert f"{6 if split == 'train' else 3} of" in line


def test_a_crowd_may_be_true(data, caplog):
    for each in data.train["annotations"]:
        each["iscrowd"] = bool(each["iscrowd"])
    (line,) = lines(data, caplog)
    assert "12 of 12" in line
    assert not data.read().bitmasks  # the crowds' run lengths are not trained on


@pytest.mark.parametrize("value", [..., None, "200", "large", float("nan"), -1])
def test_an_area_may_be_missing_or_a_text_in_the_second_file(data, caplog, value):
    for split in (data.train, data.val):
        split["annotations"][0]["area"] = value
        if value is ...:
            del split["annotations"][0]["area"]
    (line,) = lines(data, caplog)
    assert "val.json" in line and "1 of 6" in line and "area" in line


def test_a_polygon_of_two_points_is_left_out_and_said(data, caplog):
    from detectron2.data import DatasetCatalog

    whole = copy.deepcopy(data.train["annotations"][0]["segmentation"])
    data.train["annotations"][0]["segmentation"].insert(0, [3, 3, 9, 9])
    (line,) = lines(data, caplog)
    assert "train.json" in line and "1 of 12" in line and "three points" in line
    custom.register(data.read())
    assert DatasetCatalog.get("custom_train")[0]["annotations"][0]["segmentation"] == whole


def roboflow(data, root: str, supercategory: str | None = None) -> None:
    """As Roboflow exports: a first category that is the group of the others."""
    for split in (data.train, data.val):
        for each in split["categories"]:
            each["supercategory"] = root if supercategory is None else supercategory
        group = {"id": 0, "name": root, "supercategory": "none"}
        split["categories"] = [group, *split["categories"]]


@pytest.mark.parametrize("root", ["parts", "nut"])  # with one class it has the same name
def test_a_root_category_without_annotations_is_left_out_and_said(data, caplog, root):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    roboflow(data, root)
    (line,) = lines(data, caplog)
    assert f"0 '{root}' is left out" in line
    found = data.read()
    assert found.categories == ((3, "nut"), (7, "bolt"))
    custom.register(found)
    DatasetCatalog.get("custom_val")
    assert MetadataCatalog.get("custom_val").thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}


def test_a_root_category_in_one_file_only_is_left_out(data):
    roboflow(data, "parts")
    del data.val["categories"][0]
    assert data.read().num_classes == 2


def test_a_category_with_annotations_or_without_members_stays(data, caplog):
    roboflow(data, "parts")
    data.val["annotations"][1]["category_id"] = 0  # a crowd
    first, second = lines(data, caplog)
    assert (
        "train.json" in first and "1 of 3 categories have no object" in first and "parts" in first
    )
    assert "val.json" in second and "parts" in second
    assert data.read().num_classes == 3
    data.val["annotations"][1]["category_id"] = 3
    for split in (data.train, data.val):
        for each in split["categories"]:
            each["supercategory"] = "things"
    assert data.read().num_classes == 3


@pytest.mark.parametrize("split, words", [("train", "to train on"), ("val", "to evaluate")])
def test_categories_without_an_object_are_said(data, caplog, split, words):
    """Crowds are no objects."""
    for each in getattr(data, split)["annotations"]:
        if not each["iscrowd"]:
            each["category_id"] = 7
    (line,) = lines(data, caplog)
    assert f"{split}.json" in line and words in line and line.endswith("nut")
    assert "1 of 2 categories" in line
    assert data.read().num_classes == 2


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_both_files_may_be_in_any_form_of_unicode(data, form):
    from detectron2.data import DatasetCatalog

    data.read()
    for split in ("train", "val"):
        text = json.dumps(getattr(data, split), ensure_ascii=False)
        (data.folder / f"{split}.json").write_text(text.replace("nut", "Mutter-é"), encoding=form)
    found = data.read_files()
    assert found.names == ("Mutter-é", "bolt")
    custom.register(found)
    assert len(DatasetCatalog.get("custom_train")) == 6


def test_compressed_and_plain_run_lengths_are_taken_in_both_files(data, caplog):
    counts = [5 * HEIGHT + 6, *([10, HEIGHT - 10] * 19), 10]
    counts.append(HEIGHT * WIDTH - sum(counts))
    for split in (data.train, data.val):
        split["annotations"][0]["segmentation"] = rle()
        split["annotations"][2]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    assert not lines(data, caplog, need_masks=True)
    assert data.read(need_masks=True).bitmasks


# The files of the reports -------------------------------------------------------------------------


def read_case(name: str, train: str = "train", val: str = "val") -> custom.Custom:
    files = [CASES / f"{name}_{split}.json" for split in ("train", "val")]
    return custom.read(files[0], CASES / "images_train", files[1], CASES / "images_val", True)


@pytest.mark.parametrize(
    "name",
    ["ann_id0", "big_img_ids", "bom_val", "iscrowd_false", "mixed_img_ids", "string_img_ids"],
)
def test_files_of_the_reports_are_taken(name):
    found = read_case(name)
    assert (found.images, found.evaluated, found.num_classes) == (8, 6, 3)


@pytest.mark.parametrize("name, words", [("rle_short", "sum to 15"), ("rle_bstr", "b'bZ2a0g1")])
def test_damaged_files_of_the_reports_are_named(name, words):
    with pytest.raises(InputError) as caught:
        read_case(name)
    assert f"{name}_train.json: annotation 1 has" in str(caught.value)
    assert words in str(caught.value)


# The whole way ------------------------------------------------------------------------------------


def strange(content: dict, images: str) -> dict:
    """The same data with everything that people's files have otherwise."""
    content = renamed(content, "images", "image_id", IDS[images])
    content = renamed(content, "categories", "category_id", IDS["texts"])
    for place, each in enumerate(content["annotations"]):
        each["id"] = place
        each["area"] = str(each["area"])
        each["iscrowd"] = False
        if place % 2:
            del each["iscrowd"], each["area"]
    for each in content["categories"]:
        each["supercategory"] = "shapes"
    content["categories"].append({"id": "root", "name": "shapes", "supercategory": "none"})
    return content


def transferred(protocol: str, files: list[Path], out: Path) -> dict:
    """The record of a trial; and its detections, with ids as they are written."""
    folders = [CASES / "images_train", CASES / "images_val"]
    flags = ("--train-json", "--train-images", "--val-json", "--val-images")
    places = (files[0], folders[0], files[1], folders[1])
    own = [str(word) for pair in zip(flags, places, strict=True) for word in pair]
    words = ["--protocol", protocol, "--mini", *own]
    tiny = list(chain(*TINY.items()))
    assert main.main(["random", *words, "--trials", "1", "-o", str(out), *tiny]) == 0
    trial = out / "trial_1"
    again = out.with_name(f"{out.name}_again")
    assert main.main([str(trial), *words, "--eval-only", "-o", str(again), *tiny]) == 0
    metrics = json.loads((trial / "result.json").read_text())["metrics"]
    assert json.loads((again / "evaluation.json").read_text())["metrics"] == metrics
    (file,) = trial.glob("**/coco_instances_results.json")
    for name in custom.NAMES:  # as in a process of its own
        forget(name)
    picture = out / "detections.png"
    with pytest.raises(InputError, match="--train-json is missing"):
        pictures.main([str(trial), "-o", str(picture)])
    assert pictures.main([str(trial), "-o", str(picture), "-n", "2", *own]) == 0
    assert picture.stat().st_size > 1000
    return {"metrics": metrics, "found": json.loads(file.read_text())}


@pytest.mark.parametrize(
    "protocol, images, form",
    [
        ("custom_mask", "mixed", "utf-16"),
        pytest.param("custom_det", "beyond 2^53", "utf-8-sig", marks=pytest.mark.slow),
    ],
)
def test_a_trial_with_strange_files_is_that_with_ordinary_ones(tmp_path, protocol, images, form):
    contents = [
        json.loads((CASES / f"ann_id0_{split}.json").read_text()) for split in ("train", "val")
    ]
    ordinary, odd = [], []
    for split, content in zip(("train", "val"), contents, strict=True):
        ordinary.append(tmp_path / f"{split}.json")
        ordinary[-1].write_text(json.dumps(content))
        odd.append(tmp_path / f"{split}_odd.json")
        odd[-1].write_text(json.dumps(strange(content, images)), encoding=form)
    one = transferred(protocol, ordinary, tmp_path / "one")
    other = transferred(protocol, odd, tmp_path / "other")
    assert other["metrics"] == pytest.approx(one["metrics"], rel=0, abs=1e-9, nan_ok=True)
    assert {f"{task}/AP" for task in ("bbox", "segm")} & one["metrics"].keys()
    assert len(one["found"]) > 6
    number = [each["id"] for each in contents[1]["images"]]
    for each, same in zip(other["found"], one["found"], strict=True):
        assert each["image_id"] == IDS[images](number.index(same["image_id"]))
        assert each["category_id"] == IDS["texts"](same["category_id"] - 1)
        assert np.allclose(each["bbox"], same["bbox"]) and each["score"] == same["score"]
