"""custom_det and custom_mask take annotations in any form: what is read, written and recorded."""

import json
import shutil
from pathlib import Path

import pytest

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, own_data
from densessl.d2_transfer.datasets import any_form, coco_content
from densessl.d2_transfer.protocols import PROTOCOLS

compat.setup()  # before any test imports Detectron2
FORMATS = Path(__file__).parents[1] / "annotations" / "formats"
TRUTH = json.loads((FORMATS / "truth.json").read_text())


@pytest.fixture
def yolo(tmp_path):
    """Eight scenes of two series, field_* and street_*, with YOLO's labels."""
    shutil.copytree(FORMATS / "yolo", tmp_path / "yolo")
    shutil.copytree(FORMATS / "images", tmp_path / "yolo" / "images")
    return tmp_path / "yolo"


def given(name: str, folder: Path, **flags):
    return own_data.of(PROTOCOLS[name], {"output_dir": folder, **flags})


def test_detectron2_reads_the_boxes_that_the_scenes_have(yolo, tmp_path):
    own = given("custom_det", tmp_path / "out", train=yolo, val=yolo)
    assert own.num_classes == 8 and (own.images, own.evaluated) == (8, 8)
    assert not (tmp_path / "out").exists()  # nothing is written before the command is accepted
    written = own.written()
    assert written.texts is None and Path(written.train_json).parent == tmp_path / "out/annotations"
    classes = {id: number for number, (id, _) in enumerate(own.categories)}
    records = coco_content.records(written.train_json, written.train_images, classes)
    assert [Path(each["file_name"]) for each in records] == sorted((yolo / "images").iterdir())
    names = {each["id"]: each["file_name"] for each in TRUTH["images"]}
    truth = sorted((names[a["image_id"]], *a["bbox"]) for a in TRUTH["annotations"])
    found = sorted(
        (Path(each["file_name"]).name, *(round(value) for value in a["bbox"]))
        for each in records
        for a in each["annotations"]
    )
    assert found == truth
    before = Path(written.train_json).stat().st_mtime_ns
    own.written()  # the same once more
    assert Path(written.train_json).stat().st_mtime_ns == before


def test_without_validation_data_a_part_is_drawn_and_recorded(yolo, tmp_path):
    own = given("custom_det", tmp_path, train=yolo, labels="50%")
    assert (own.listed, own.evaluated) == (2, 4)
    assert own.facts["validation"] == (
        "4 of 8 images by seed 0, 2 groups of names that begin alike"
    )
    assert own.facts["labels"] == "50%: 2 of 4 images by seed 0"
    assert own.facts["train"]["images"] == 2 and own.facts["train"]["format"] == "YOLO"
    assert "labels: 50%" in own.describe()
    train, val = ({each["file_name"] for each in json.loads(t)["images"]} for t in own.texts)
    assert len({name.split("_")[0] for name in val}) == 1
    assert not {name.split("_")[0] for name in val} & {name.split("_")[0] for name in train}
    other = given("custom_det", tmp_path, train=yolo, labels="50%", data_seed=5)
    assert other.sha256 != own.sha256
    assert given("custom_det", tmp_path, train=yolo, labels="50%").sha256 == own.sha256


def test_validation_data_of_the_same_data_yaml_are_taken(yolo, tmp_path):
    (yolo / "val").mkdir()
    for name in ("street_0003.jpg", "street_0002.jpg"):
        (yolo / "images" / name).rename(yolo / "val" / name)
        text = (yolo / "labels" / name).with_suffix(".txt")
        text.rename(yolo / "val" / text.name)
    config = yolo / "data.yaml"
    config.write_text(config.read_text() + "train: images\nval: val\n")
    own = given("custom_det", tmp_path, train=config)
    assert (own.listed, own.evaluated) == (6, 2) and own.facts["val"]["split"] == "val"
    with pytest.raises(InputError, match="--val-share is '30', but .* has the validation data"):
        given("custom_det", tmp_path, train=config, val_share=30)


def test_masks_are_needed_for_custom_mask(yolo, tmp_path):
    with pytest.raises(InputError, match=r"field_0000.jpg: line 1: it has a box alone"):
        given("custom_mask", tmp_path, train=yolo)
    shutil.copy(FORMATS / "cvat.xml", tmp_path)
    own = given("custom_mask", tmp_path, train=tmp_path / "cvat.xml", val=tmp_path / "cvat.xml")
    content = json.loads(own.texts[0])
    assert all(each["segmentation"] for each in content["annotations"])


def test_classes_are_one_list_whatever_order_each_set_has(yolo, tmp_path):
    shutil.copytree(FORMATS / "voc", tmp_path / "voc")
    shutil.copytree(FORMATS / "images", tmp_path / "voc" / "JPEGImages")
    own = given("custom_det", tmp_path, train=yolo, val=tmp_path / "voc")
    train, val = map(json.loads, own.texts)
    assert train["categories"] == val["categories"]
    boxes = [
        sorted(
            (images[a["image_id"]], a["category_id"], *map(round, a["bbox"]))
            for a in content["annotations"]
        )
        for content in (train, val)
        for images in [{each["id"]: each["file_name"] for each in content["images"]}]
    ]
    assert boxes[0] == boxes[1]


def test_a_file_of_convert_is_taken_either_way(yolo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert densessl.main(["data", "convert", str(yolo), "-o", "coco.json"]) == 0
    new = given("custom_det", tmp_path, train="coco.json", val="coco.json")
    places = {"train_images": yolo / "images", "val_images": yolo / "images"}
    old = given("custom_det", tmp_path, train_json="coco.json", val_json="coco.json", **places)
    assert old.facts is None and old.texts is None
    assert (new.categories, new.images, new.short_edge) == (
        old.categories,
        old.images,
        old.short_edge,
    )


@pytest.mark.parametrize(
    "flags, words",
    [
        ({}, "--train-json is missing (or --train): custom_det reads your own data"),
        ({"val": "x"}, "--train is missing: custom_det"),
        ({"labels": "1%"}, "--train is missing"),
        ({"train": "x", "train_json": "y"}, "--train-json is 'y', but --train names the data"),
        ({"train": "x", "classes": "y"}, "--classes is 'y', but custom_det takes none"),
        ({"train": "absent"}, "absent is not there"),
        ({"train": "YOLO", "labels": "9"}, "--labels is '9'; allowed:"),
        ({"train": "YOLO", "val": "YOLO", "groups": "g"}, "--groups is 'g', but"),
    ],
)
def test_what_is_given_wrongly_is_one_message(flags, words, yolo, tmp_path):
    flags = {name: yolo if value == "YOLO" else value for name, value in flags.items()}
    with pytest.raises(InputError) as caught:
        given("custom_det", tmp_path, **flags)
    assert words in str(caught.value)


def test_faults_of_both_sets_are_told_together(yolo, tmp_path):
    shutil.copytree(yolo, tmp_path / "other")
    for folder in (yolo, tmp_path / "other"):
        (folder / "labels" / "street_0001.txt").write_text("0 7 7 7 7\n")
    with pytest.raises(InputError) as caught:
        any_form.read(tmp_path, yolo, tmp_path / "other")
    said = str(caught.value)
    assert f"{yolo}/labels/street_0001.txt: line 1" in said
    assert f"{tmp_path}/other/labels/street_0001.txt: line 1" in said


@pytest.mark.slow
def test_a_detector_learns_from_yolo_labels(learns, pretrained, four_scenes, tmp_path):
    """Trained and evaluated on the same four scenes, with labels as Ultralytics documents them."""
    content = json.loads((four_scenes / "coco/annotations/instances_train2017.json").read_text())
    ids = [each["id"] for each in content["categories"]]
    shutil.copytree(four_scenes / "coco" / "train2017", tmp_path / "yolo" / "images")
    (tmp_path / "yolo" / "labels").mkdir()
    for image in content["images"]:
        lines = []
        for each in content["annotations"]:
            if each["image_id"] == image["id"]:
                sides = [image["width"], image["height"]] * 2
                x, y, w, h = (v / side for v, side in zip(each["bbox"], sides, strict=True))
                numbers = [ids.index(each["category_id"]), x + w / 2, y + h / 2, w, h]
                lines.append(" ".join(map(str, numbers)))
        text = tmp_path / "yolo" / "labels" / Path(image["file_name"]).with_suffix(".txt").name
        text.write_text("\n".join(lines))
    names = [each["name"] for each in content["categories"]]
    (tmp_path / "yolo" / "data.yaml").write_text(json.dumps({"names": names, "train": "images"}))
    data = str(tmp_path / "yolo" / "data.yaml")
    own = given("custom_det", tmp_path / "own", train=data, val=data).written()
    overrides = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    overrides += ["SOLVER.MAX_ITER", "60"]
    where = ("custom_det", "", pretrained(18), four_scenes, tmp_path / "run")
    learns(*where, overrides, "bbox/AP50", 10, flags=["--train", data, "--val", data], own=own)
