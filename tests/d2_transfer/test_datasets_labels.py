"""Faults inside the files of a data set, each found by the check and named with file and value."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import datasets
from densessl.d2_transfer.datasets.inspection import SAMPLE, Inspection, spread

ADE = "ADEChallengeData2016"
ADE_TRAIN, VOC_TRAIN, VOC_VAL = (
    "ade20k_sem_seg_train",
    "voc_2012_aug_semseg_train",
    "voc_2012_semseg_val",
)
CITY_TRAIN, CITY_OBJECTS = "cityscapes_fine_sem_seg_train", "cityscapes_fine_instance_seg_train"


@pytest.fixture
def copy(scenes, tmp_path) -> Path:
    root = tmp_path / "copy"
    shutil.copytree(scenes, root, ignore=shutil.ignore_patterns("imagenet", "*_color.png"))
    return root


def refused(name: str, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        datasets.check([name], root)
    message = str(caught.value)
    assert message.splitlines()[1].startswith(f"  {name}: ")
    return message


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


LABELS = {
    ADE_TRAIN: (f"{ADE}/annotations_detectron2/training/*.png", 150, "ade20k"),
    VOC_TRAIN: ("voc_aug/labels/2012_00*.png", 21, "voc_aug"),
    VOC_VAL: ("voc_aug/labels/2012_1*.png", 21, "voc_aug"),
    CITY_TRAIN: ("cityscapes/gtFine/train/*/*_labelTrainIds.png", 19, "cityscapes"),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("fault", ["value", "colour", "palette", "size", "cut", "text"])
def test_wrong_label_images_are_named_with_the_command(copy, name, fault):
    pattern, classes, command = LABELS[name]
    path = first(copy, pattern)
    values = pixels(path)
    if fault == "value":
        values[5, 5] = classes
        Image.fromarray(values).save(path)
        words = f"has pixels of value {classes}; allowed: 0 to {classes - 1} and 255"
    elif fault == "colour":
        Image.fromarray(values).convert("RGB").save(path)
        words = "is a picture in colour (RGB), not one of class numbers"
    elif fault == "palette":
        picture = Image.fromarray(values)
        picture.putpalette(list(range(256)) * 3)
        picture.save(path)
        words = "is a palette image"
    elif fault == "size":
        Image.fromarray(values[:50]).save(path)
        words = "is 64×50 pixels, but its image"
    else:
        path.write_bytes(path.read_bytes()[:90] if fault == "cut" else b"<html>")
        words = "cannot be read as an image"
    message = refused(name, copy)
    assert f"{name}: {path} {words}" in message
    assert f"densessl prepare {command} --data {copy}" in message


def test_only_the_first_of_many_wrong_label_images_are_shown(copy):
    for path in copy.glob("voc_aug/labels/*.png"):
        Image.fromarray(pixels(path)).convert("RGB").save(path)
    message = refused(VOC_TRAIN, copy)
    assert message.count("is a picture in colour") == 3
    assert "and the like in 3 more of 6 files looked at" in message


def test_ades_labels_that_were_copied_but_not_reduced_are_found(copy):
    """Their values would do, but for 150: only the original tells that each is one too many."""
    target = copy / ADE / "annotations_detectron2" / "training"
    shutil.rmtree(target)
    shutil.copytree(copy / ADE / "annotations" / "training", target)
    message = refused(ADE_TRAIN, copy)
    assert "its labels are those of" in message and "each should be one less" in message
    assert f"densessl prepare ade20k --data {copy}" in message


def test_ades_labels_without_the_originals_are_fine(copy):
    shutil.rmtree(copy / ADE / "annotations")
    datasets.check([ADE_TRAIN], copy)


def test_ade_images_and_labels_must_be_the_same(copy):
    labels = first(copy, f"{ADE}/annotations_detectron2/training/*.png")
    labels.unlink()
    message = refused(ADE_TRAIN, copy)
    assert f"has {labels.stem} without labels" in message and "densessl prepare ade20k" in message
    picture = sorted(copy.glob(f"{ADE}/images/training/*.jpg"))[1]
    picture.unlink()
    assert f"{picture.stem}, not in {picture.parent} as NAME.jpg" in refused(ADE_TRAIN, copy)


def test_voc_training_must_not_have_images_of_the_evaluation(copy):
    listed, val = copy / "voc_aug/train_aug.txt", copy / "voc_aug/val.txt"
    listed.write_text(listed.read_text() + val.read_text().splitlines()[0] + "\n")
    assert f"{listed} and {val} share 2012_1000001" in refused(VOC_TRAIN, copy)


def test_unprepared_voc_says_what_preparing_it_needs(copy):
    shutil.rmtree(copy / "voc_aug")
    mask = first(copy, "VOC2012/SegmentationClass/2012_1*.png")
    with Image.open(mask) as picture:
        picture.convert("RGB").save(mask)
    message = refused(VOC_VAL, copy)
    assert f"densessl prepare voc_aug --data {copy}" in message
    assert f"{mask} is a picture in colour (RGB)" in message


def test_cityscapes_without_train_ids_names_the_command(copy):
    for path in copy.glob("cityscapes/gtFine/train/*/*_labelTrainIds.png"):
        path.unlink()
    message = refused(CITY_TRAIN, copy)
    assert "and 9 more have no *_gtFine_labelTrainIds.png" in message
    assert f"fix it with: densessl prepare cityscapes --data {copy}" in message
    datasets.check(["cityscapes_fine_sem_seg_val", CITY_OBJECTS], copy)


def test_label_ids_in_place_of_train_ids_are_found(copy):
    for path in copy.glob("cityscapes/gtFine/train/*/*_labelIds.png"):
        shutil.copyfile(path, str(path).replace("labelIds", "labelTrainIds"))
    message = refused(CITY_TRAIN, copy)
    assert "allowed: 0 to 18 and 255" in message and "densessl prepare cityscapes" in message


def spoil_objects(root: Path, fault: str) -> str:
    """Make something wrong in Cityscapes' files of objects; what the message has to say."""
    city = "cityscapes/gtFine/train/*/*_gtFine_"
    ids, outlines = first(root, f"{city}instanceIds.png"), first(root, f"{city}polygons.json")
    if fault in ("instanceIds.png", "polygons.json", "labelIds.png"):
        path = first(root, city + fault)
        path.unlink()
        return f"{path.name.split('_gtFine')[0]} have no *_gtFine_{fault}"
    values, content = pixels(ids), json.loads(outlines.read_text())
    if fault == "value":
        values[0, 0] = 34_000
        Image.fromarray(values).save(ids)
        return f"{ids} has pixels of value 34000, which is no label"
    if fault == "size":
        Image.fromarray(values[:60]).save(ids)
        return f"{ids} is 64×60 pixels, but its image"
    if fault == "label":
        content["objects"][0]["label"] = "unicorn"
        words = f"{outlines} has an object 'unicorn'"
    elif fault == "points":
        content["objects"][0]["polygon"] = [[1, 1], [2, 2]]
        words = f"{outlines} has a polygon of 2 points"
    elif fault == "told size":
        content["imgHeight"] = 65
        words = f"{outlines} says 64×65 pixels, but its image"
    elif fault == "key":
        del content["objects"]
        words = f"{outlines} is no annotation of Cityscapes: KeyError: 'objects'"
    else:
        stray = first(root, "cityscapes/leftImg8bit/train/*") / ".DS_Store"
        stray.write_text("")
        return f"remove {stray}"
    outlines.write_text(json.dumps(content))
    return words


@pytest.mark.parametrize(
    "fault",
    [
        "instanceIds.png",
        "polygons.json",
        "labelIds.png",
        "value",
        "size",
        "label",
        "points",
        "told size",
        "key",
        "stray",
    ],
)
def test_faults_of_cityscapes_objects_are_named(copy, fault):
    words = spoil_objects(copy, fault)
    assert words in refused(CITY_OBJECTS, copy)


@pytest.mark.parametrize("module", ["cityscapesscripts", "shapely"])
def test_what_detectron2s_reader_of_polygons_needs_is_asked_for_at_once(
    scenes, monkeypatch, module
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentLacks, match=f"{module} is not installed; fix it with: make"):
        datasets.check([CITY_OBJECTS], scenes)


def spoil_voc(root: Path, fault: str) -> str:
    path = first(root, "VOC2007/Annotations/*.xml")
    text = path.read_text()
    if fault == "class":
        text = text.replace("<name>", "<name>grey ", 1)
        words = f"{path} has an object 'grey "
    elif fault == "cut":
        text = text[:200]
        words = f"{path} is no annotation of VOC"
    elif fault == "entity":
        text = '<!DOCTYPE a [<!ENTITY b "9">]>' + text.replace("<xmin>", "<xmin>&b;", 1)
        words = f"{path} is no annotation of VOC: it defines entities"
    elif fault == "box":
        start, end = text.index("<xmin>"), text.index("</xmin>")
        text = text[:start] + "<xmin>63" + text[end:]
        words = f"{path} has the box 63, "
    else:
        text = text.replace("<width>", "<breadth>").replace("</width>", "</breadth>")
        words = f"{path} is no annotation of VOC"
    path.write_text(text)
    return words


@pytest.mark.parametrize("fault", ["class", "cut", "box", "entity", "size"])
def test_faults_of_voc_annotations_are_named(copy, fault):
    assert spoil_voc(copy, fault) in refused("voc_2007_trainval", copy)


def spoil_coco(root: Path, fault: str) -> str:
    path = root / "coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    if fault == "picture":
        (root / "coco/train2017/000000000005.jpg").unlink()
        return f"{path} lists 000000000005.jpg, not in {root / 'coco/train2017'}"
    if fault == "escaped name":
        content["images"][0]["file_name"] = 'a "b".jpg'
        words = f'{path} lists a "b".jpg, not in'
    elif fault == "classes":
        content["categories"] = [{"id": n, "name": str(n)} for n in (1, 2)]
        words = "its categories (1, 2) are not COCO's 80"
    elif fault == "no classes":
        del content["categories"]
        words = "its categories (none) are not COCO's 80"
    elif fault == "empty":
        content["images"] = []
        words = f"{path} lists no image"
    else:
        path.write_text(json.dumps(content)[:-10])
        return f"{path} is cut short"
    path.write_text(json.dumps(content))
    return words


@pytest.mark.parametrize(
    "fault", ["picture", "escaped name", "classes", "no classes", "empty", "cut"]
)
def test_faults_of_coco_are_named(copy, fault):
    assert spoil_coco(copy, fault) in refused("coco_2017_train", copy)


def test_instances_in_place_of_keypoints_are_found(copy):
    folder = copy / "coco/annotations"
    shutil.copyfile(folder / "instances_val2017.json", folder / "person_keypoints_val2017.json")
    message = refused("keypoints_coco_2017_val", copy)
    assert "are not the one of a person" in message and "no annotation with 'num_key" in message


def test_every_problem_of_every_data_set_comes_in_one_message(copy):
    (copy / "coco/annotations/instances_val2017.json").unlink()
    shutil.rmtree(copy / ADE)
    with pytest.raises(InputError) as caught:
        datasets.check(["coco_2017_val", ADE_TRAIN, VOC_VAL], copy)
    message = str(caught.value)
    assert "coco_2017_val: " in message and f"{ADE_TRAIN}: " in message
    assert "page 'Data' of the documentation" in message and "densessl scenes DIR" in message


@pytest.mark.parametrize("count", [1, 63, 64, 65, 20210])
def test_a_sample_is_spread_over_the_list_and_has_both_ends(count):
    items = list(range(count))
    found = spread(items)
    assert len(found) == min(count, SAMPLE) == len(set(found))
    assert found[0] == 0 and found[-1] == count - 1 and found == sorted(found)
    assert max(np.diff(found), default=1) <= -(-count // (SAMPLE - 1))


def test_a_sample_is_all_that_is_looked_at():
    asked = []
    found = Inspection()
    found.look(range(1000), lambda item: asked.append(item))
    assert len(asked) == SAMPLE and not found.problems
