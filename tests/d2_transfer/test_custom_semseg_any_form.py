"""custom_semseg takes label images and annotations in any form with --train."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import main, own_data, results
from densessl.d2_transfer.protocols import PROTOCOLS
from densessl.probes import pairs as pairs_of

FORMATS = Path(__file__).parents[1] / "annotations" / "formats"
SIZE = 32
TABLE = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ncar:0,0,142::\n"


def given(out, **flags):
    return own_data.of(PROTOCOLS["custom_semseg"], {"output_dir": out, **flags}).written()


def labels(split) -> list[np.ndarray]:
    return [pairs_of.read_labels(mask, split.ignore) for mask in split.masks]


def truth(n: int) -> np.ndarray:
    """Background, a road below, and a car; nothing in a corner."""
    found = np.zeros((SIZE, SIZE), np.uint8)
    found[20:] = 1
    found[10:24, 4 + n : 16 + n] = 2
    return found


def write(root, split: str, images: str, masks: str, ends=(".jpg", ".png"), change=lambda m: m):
    for folder in (images, masks):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    for n in range(6):
        Image.new("RGB", (SIZE, SIZE), (n * 20, 90, 40)).save(
            root / images / split / f"s{n}{ends[0]}"
        )
        mask = change(truth(n))
        Image.fromarray(mask).save(root / masks / split / f"s{n}{ends[1]}")


def coloured(mask: np.ndarray) -> np.ndarray:
    return np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)[mask]


def test_numbers_are_taken_where_they_lie(tmp_path):
    write(tmp_path / "d", "", "images", "masks")
    own = given(tmp_path / "out", train=tmp_path / "d")
    assert own.classes == ("0", "1", "2") and (len(own.train), len(own.val)) == (5, 1)
    assert not (tmp_path / "out").exists() and own.train.masks[0].parent == tmp_path / "d/masks"
    assert own.facts["validation"].startswith("1 of 6 images by seed 0")
    few = given(tmp_path / "out", train=tmp_path / "d", labels="2")
    assert len(few.train) == 2 and few.val.images == own.val.images


def test_colours_with_a_table_become_numbers(tmp_path):
    write(tmp_path / "d", "", "JPEGImages", "SegmentationClass", change=coloured)
    (tmp_path / "d" / "labelmap.txt").write_text(TABLE)
    own = given(tmp_path / "out", train=tmp_path / "d", val=tmp_path / "d")
    assert own.classes == ("background", "road", "car")
    for n, found in enumerate(labels(own.train)):
        np.testing.assert_array_equal(found, truth(n))
    assert own.train.masks[0].parent == tmp_path / "out/annotations/labels_train"


def test_a_tree_like_ade20ks(tmp_path):
    """Of which 0 is nothing, and the table counts from 1."""
    for split in ("training", "validation"):
        write(tmp_path, split, "images", "annotations")
    names = (
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t.2\t1\t1\t1\troad, route\n2\t.1\t1\t1\t0\tcar\n"
    )
    (tmp_path / "objectInfo150.txt").write_text(names)
    own = given(tmp_path / "out", train=tmp_path)
    assert own.classes == ("road", "car") and (len(own.train), len(own.val)) == (6, 6)
    expected = np.where(truth(3) == 0, 255, truth(3) - 1)
    np.testing.assert_array_equal(labels(own.val)[3], expected)


def test_a_tree_like_cityscapes(tmp_path):
    for split in ("train/bonn", "val/ulm"):
        ends = ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")
        write(tmp_path, split, "leftImg8bit", "gtFine", ends)
        for n in range(6):
            ids = np.where(truth(n) == 2, 26_001, 7).astype(np.int32)
            Image.fromarray(ids).save(tmp_path / "gtFine" / split / f"s{n}_gtFine_instanceIds.png")
    own = given(tmp_path / "out", train=tmp_path)
    assert (len(own.train), len(own.val)) == (6, 6)
    np.testing.assert_array_equal(labels(own.val)[2], truth(2))
    cars = own_data.of(PROTOCOLS["custom_mask"], {"output_dir": tmp_path, "train": tmp_path})
    assert cars.names == ("car",) and (cars.images, cars.evaluated) == (6, 6)
    boxes = [each["bbox"] for each in json.loads(cars.texts[0])["annotations"]]
    assert boxes == [[4 + n, 10, 12, 14] for n in range(6)]


def test_polygons_are_painted_the_smaller_over_the_larger(tmp_path):
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.png")
    small, large = [[2, 2], [6, 2], [6, 6], [2, 6]], [[0, 0], [10, 0], [10, 10], [0, 10]]
    shapes = [
        {"label": name, "points": points, "shape_type": "polygon"}
        for name, points in (("leaf", small), ("pot", large))
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"}))
    own = given(tmp_path / "out", train=tmp_path, val=tmp_path)
    assert own.classes == ("background", "leaf", "pot")
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[:10, :10] = 2
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(labels(own.val)[0], expected)
    assert "2 to learn" not in own.describe() and "1 images, 3 classes" in own.describe()


@pytest.mark.parametrize(
    "flags, words",
    [
        ({}, "--train-images is missing (or --train): custom_semseg"),
        ({"train": "x", "train_masks": "y"}, "--train-masks is 'y', but --train names the data"),
        ({"train": "YOLO"}, "it has a box alone; pixels need a polygon or mask"),
    ],
)
def test_what_is_given_wrongly_is_one_message(flags, words, tmp_path):
    shutil.copytree(FORMATS / "yolo", tmp_path / "yolo")
    shutil.copytree(FORMATS / "images", tmp_path / "yolo" / "images")
    flags = {name: tmp_path / "yolo" if v == "YOLO" else v for name, v in flags.items()}
    with pytest.raises(InputError) as caught:
        given(tmp_path, **flags)
    assert words in str(caught.value)


@pytest.mark.slow
def test_a_linear_layer_is_measured_on_coloured_masks(tmp_path):
    write(tmp_path / "d", "", "images", "masks", change=coloured)
    (tmp_path / "d" / "labelmap.txt").write_text(TABLE)
    words = ["random", "--protocol", "custom_semseg", "--mini", "--trials", "1"]
    words += ["--train", str(tmp_path / "d"), "-o", str(tmp_path / "out")]
    assert main.main([*words, "MODEL.BACKBONE", "resnet18"]) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert 0 < record.metrics["sem_seg/mIoU"] <= 100 and "sem_seg/IoU-road" in record.metrics
