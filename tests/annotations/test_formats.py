"""Eight scenes in every format give the same boxes, masks and keypoints, to a pixel.

``formats/`` holds them as datumaro 1.13.12 wrote them (``cvat.xml``, ``cvat_coco.json``,
``darknet``, ``voc_from_zero``, ``masks_*``) and supervision 0.31.2 (``yolo``, ``voc``), from
``truth.json``; the others are written here in the form that their programs' documents give.
"""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from densessl import annotations
from densessl.annotations import coco

FORMATS = Path(__file__).parent / "formats"
TRUTH = json.loads((FORMATS / "truth.json").read_text())
SIDE = 96
NAMES = {each["id"]: each["file_name"] for each in TRUTH["images"]}
CLASSES = [each["name"] for each in TRUTH["categories"]]


def objects_of(image: int) -> list[dict]:
    return [each for each in TRUTH["annotations"] if each["image_id"] == image]


def pixels(segmentation) -> np.ndarray:
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation)
    found = coco_mask.frPyObjects(segmentation, SIDE, SIDE)
    merged = coco_mask.merge(found) if isinstance(found, list) else found
    return coco_mask.decode(merged)


def by_image(content: dict) -> dict[str, list]:
    """{image: [(class, box, mask or None, keypoints or None)]}, objects by class and box."""
    classes = {each["id"]: each["name"] for each in content["categories"]}
    names = {each["id"]: Path(each["file_name"]).name for each in content["images"]}
    found: dict[str, list] = {name: [] for name in names.values()}
    for each in content["annotations"]:
        mask = each.get("segmentation")
        seen = each.get("keypoints")
        found[names[each["image_id"]]].append(
            (
                classes[each["category_id"]],
                each["bbox"],
                None if mask is None else pixels(mask),
                seen,
            )
        )
    for objects in found.values():
        objects.sort(key=lambda each: (each[0], [round(value) for value in each[1]]))
    return found


def require_truth(data: annotations.Dataset, masks: bool, keypoints: bool = False) -> None:
    """``data`` are sound, and say of every image what ``truth.json`` says."""
    data.require_sound()
    told, truth = by_image(coco.content(data)), by_image(TRUTH)
    assert told.keys() == truth.keys()
    for name in truth:
        assert [each[0] for each in told[name]] == [each[0] for each in truth[name]]
        for (_, box, mask, points), (_, true_box, true_mask, true_points) in zip(
            told[name], truth[name], strict=True
        ):
            np.testing.assert_allclose(box, true_box, atol=1e-3)
            assert (mask is not None) == masks
            if masks:
                np.testing.assert_array_equal(mask, true_mask)
            if keypoints:
                np.testing.assert_allclose(points or [], true_points or [], atol=1e-3)


def put_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in (FORMATS / "images").iterdir():
        shutil.copy(path, folder / path.name)


# Written by the formats' own libraries ----------------------------------------------------------


@pytest.mark.parametrize(
    "source, images, form, masks",
    [
        ("yolo", "images", "YOLO", False),
        ("darknet", "obj_train_data", "YOLO", False),
        ("voc", ".", "Pascal VOC", False),
        ("voc_from_zero", "JPEGImages", "Pascal VOC", False),
        ("masks_colour", "JPEGImages", "masks", True),
        ("masks_index", "JPEGImages", "masks", True),
    ],
)
def test_a_folder_as_a_library_wrote_it(source, images, form, masks, tmp_path):
    shutil.copytree(FORMATS / source, tmp_path / "data")
    put_images(tmp_path / "data" / images)
    data = annotations.read(tmp_path / "data")
    assert data.form == form
    require_truth(data, masks)


@pytest.mark.parametrize("place", [".", "annotations.xml"])
def test_cvat_for_images(place, tmp_path):
    put_images(tmp_path / "images")
    shutil.copy(FORMATS / "cvat.xml", tmp_path / "annotations.xml")
    data = annotations.read(tmp_path / place)
    assert data.form == "CVAT"
    require_truth(data, masks=True)


def test_masks_without_an_image_of_objects_give_an_object_a_region(tmp_path):
    shutil.copytree(FORMATS / "masks_colour", tmp_path / "data")
    put_images(tmp_path / "data" / "JPEGImages")
    shutil.rmtree(tmp_path / "data" / "SegmentationObject")
    data = annotations.read(tmp_path / "data")
    require_truth(data, masks=True)  # no two objects of a class touch in these scenes
    assert any("each region of a class is one" in each for each in data.remarks)


# COCO's JSON and its variants -------------------------------------------------------------------


def test_coco_with_keypoints(tmp_path):
    put_images(tmp_path / "images")
    shutil.copy(FORMATS / "truth.json", tmp_path)
    data = annotations.read(tmp_path)
    require_truth(data, masks=True, keypoints=True)
    assert [each.id for each in data.objects()] == [each["id"] for each in TRUTH["annotations"]]
    assert coco.content(data)["categories"] == TRUTH["categories"]


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_coco_with_run_lengths_by_pycocotools(kind, tmp_path):
    content = json.loads(json.dumps(TRUTH))
    for each in content["annotations"]:
        mask = np.asfortranarray(pixels(each["segmentation"]))
        rle = coco_mask.encode(mask)
        each["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        if kind == "numbers":
            flat = mask.ravel(order="F")
            cuts = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
            counts = np.diff(cuts).tolist()
            each["segmentation"]["counts"] = [0, *counts] if flat[0] else counts
    put_images(tmp_path / "images")
    (tmp_path / "a.json").write_text(json.dumps(content))
    require_truth(annotations.read(tmp_path / "a.json"), masks=True)


def test_coco_as_cvat_writes_it(tmp_path):
    """Images in a folder of the split; brushed masks are crowds there, and objects here."""
    content = json.loads((FORMATS / "cvat_coco.json").read_text())
    for each in content["annotations"]:
        mask = pixels(each["segmentation"]).ravel(order="F")
        cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), mask.size]
        counts = np.diff(cuts).tolist()
        counts = [0, *counts] if mask[0] else counts
        each |= {"segmentation": {"size": [SIDE, SIDE], "counts": counts}, "iscrowd": 1}
        each["attributes"] = {"occluded": False}
    put_images(tmp_path / "images" / "default")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_default.json").write_text(json.dumps(content))
    data = annotations.read(tmp_path)
    require_truth(data, masks=True)
    assert any("24 masks that CVAT writes as crowds" in each for each in data.remarks)


def test_coco_as_label_studio_writes_it(tmp_path):
    """Ids from 0, names as paths of Windows, a file called result.json."""
    content = json.loads(json.dumps(TRUTH))
    for each in content["categories"]:
        each["id"] -= 1
    for each in content["images"]:
        each |= {"id": each["id"] - 1, "file_name": f"images\\{each['file_name']}"}
    for number, each in enumerate(content["annotations"]):
        each |= {"id": number, "image_id": each["image_id"] - 1, "ignore": 0}
        each["category_id"] -= 1
    put_images(tmp_path / "images")
    (tmp_path / "result.json").write_text(json.dumps(content))
    require_truth(annotations.read(tmp_path), masks=True)


def test_coco_as_roboflow_writes_it(tmp_path):
    """A folder a split with its images, and a first category that is the group of the others."""
    content = json.loads(json.dumps(TRUTH))
    group = {"id": 0, "name": "scene", "supercategory": "none"}
    content["categories"] = [group, *content["categories"]]
    for split in ("train", "valid"):
        put_images(tmp_path / split)
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    assert [each.split for each in annotations.recognise(tmp_path)] == ["train", "val"]
    data = annotations.read(tmp_path, "val")
    require_truth(data, masks=True)
    assert "scene" not in [each.name for each in data.categories]


def test_coco_as_fiftyone_writes_it(tmp_path):
    put_images(tmp_path / "data")
    shutil.copy(FORMATS / "truth.json", tmp_path / "labels.json")
    require_truth(annotations.read(tmp_path), masks=True)


# In the form of the programs' documents ---------------------------------------------------------


def yolo_lines(image: int, kind: str) -> str:
    lines = []
    for each in objects_of(image):
        x, y, width, height = (value / SIDE for value in each["bbox"])
        numbers = [x + width / 2, y + height / 2, width, height]
        if kind == "polygons":
            numbers = [value / SIDE for value in each["segmentation"][0]]
        elif kind == "pose":
            seen = each.get("keypoints", [0] * 51)
            numbers += [v if n % 3 == 2 else v / SIDE for n, v in enumerate(seen)]
        lines.append(" ".join(map(str, [each["category_id"] - 1, *numbers])))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", ["polygons", "pose"])
def test_yolo_of_ultralytics(kind, tmp_path):
    """https://docs.ultralytics.com/datasets: data.yaml, images/train and labels/train."""
    put_images(tmp_path / "images" / "train")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    for image, name in NAMES.items():
        file = tmp_path / "labels" / "train" / Path(name).with_suffix(".txt")
        file.write_text(yolo_lines(image, kind))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    pose = "kpt_shape: [17, 3]\n" if kind == "pose" else ""
    (tmp_path / "data.yaml").write_text(f"path: .\ntrain: images/train\n{pose}names:\n{names}")
    data = annotations.read(tmp_path / "data.yaml", "train")
    if kind == "pose":  # every object of a pose data set has keypoints, those of a car are absent
        for each in data.objects():
            if not any(v for _, _, v in each.keypoints):
                each.keypoints = []
    require_truth(data, masks=kind == "polygons", keypoints=kind == "pose")


def labelme(image: int, kind: str) -> dict:
    shapes = []
    for each in objects_of(image):
        flat = each["segmentation"][0]
        x, y, width, height = map(int, each["bbox"])
        shape = {"label": CLASSES[each["category_id"] - 1], "group_id": None, "flags": {}}
        if kind == "polygon":
            points = [flat[n : n + 2] for n in range(0, len(flat), 2)]
        else:
            points = [[x, y], [x + width - 1, y + height - 1]]
            part = pixels([flat])[y : y + height, x : x + width]
            stream = io.BytesIO()
            Image.fromarray(part * 255).convert("1").save(stream, "PNG")
            shape["mask"] = base64.b64encode(stream.getvalue()).decode()
        shapes.append(shape | {"points": points, "shape_type": kind})
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": NAMES[image],
        "imageData": None,
        "imageHeight": SIDE,
        "imageWidth": SIDE,
    }


@pytest.mark.parametrize("kind", ["polygon", "mask"])
def test_labelme(kind, tmp_path):
    put_images(tmp_path)
    for image, name in NAMES.items():
        text = json.dumps(labelme(image, kind))
        (tmp_path / Path(name).with_suffix(".json")).write_text(text)
    data = annotations.read(tmp_path)
    assert data.form == "LabelMe"
    require_truth(data, masks=True)


def test_labelme_shapes_of_a_group_are_one_object(tmp_path):
    put_images(tmp_path)
    content = labelme(1, "polygon")
    squares = [[[a, a], [a + 5, a], [a + 5, a + 5], [a, a + 5]] for a in (10, 40)]
    content["shapes"] = [
        {"label": "car", "points": points, "group_id": 3, "shape_type": "polygon"}
        for points in squares
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (each,) = annotations.read(tmp_path / "a.json").objects()
    assert each.box == (10, 10, 45, 45) and len(each.polygons) == 2


def test_cvat_masks_skeletons_and_tracks(tmp_path):
    """https://docs.cvat.ai/docs/other/xml_format"""
    Image.new("RGB", (20, 10)).save(tmp_path / "frame_000003.png")
    labels = "".join(
        f"<label><name>{name}</name><type>{kind}</type>{parent}</label>"
        for name, kind, parent in (
            ("cell", "mask", ""),
            ("arm", "skeleton", ""),
            ("hand", "points", "<parent>arm</parent>"),
            ("elbow", "points", "<parent>arm</parent>"),
        )
    )
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    mask = '<mask label="cell" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>'
    arm = (
        '<skeleton label="arm"><points label="elbow" outside="0" occluded="1" points="7.5,2.0"/>'
        '<points label="hand" outside="0" occluded="0" points="3.0,9.0"/></skeleton>'
    )
    image = f'<image id="0" name="frame_000003.png" width="20" height="10">{mask}{arm}</image>'
    (tmp_path / "a.xml").write_text(f"<annotations>{meta}{image}</annotations>")
    cell, found = annotations.read(tmp_path / "a.xml").require_sound().objects()
    assert cell.box == (5, 5, 7, 6)
    assert pixels_of_runs(cell.mask)[5].tolist() == [0] * 5 + [1, 1] + [0] * 13
    assert found.keypoints == [(3.0, 9.0, 2), (7.5, 2.0, 1)]  # in the order of the labels
    shown = '<box frame="3" outside="0" occluded="0" xtl="1" ytl="2" xbr="6" ybr="7"/>'
    gone = shown.replace('frame="3" outside="0"', 'frame="4" outside="1"')
    track = f'<track id="0" label="cell">{shown}{gone}</track>'
    (tmp_path / "b.xml").write_text(f"<annotations>{meta}{track}</annotations>")
    (box,) = annotations.read(tmp_path / "b.xml").require_sound().objects()
    assert box.box == (1, 2, 6, 7)


def pixels_of_runs(rle: dict) -> np.ndarray:
    height, width = rle["size"]
    values = np.arange(len(rle["counts"])) % 2
    return np.repeat(values, rle["counts"]).reshape((height, width), order="F")


@pytest.mark.parametrize("layout", ["folder an image", "names", "dsb"])
def test_a_file_an_object(layout, tmp_path):
    for image, name in NAMES.items():
        stem = Path(name).stem
        for number, each in enumerate(objects_of(image)):
            label = CLASSES[each["category_id"] - 1]
            file = {
                "folder an image": tmp_path / "masks" / stem / f"{label}_{number}.png",
                "names": tmp_path / "masks" / f"{stem}_{label}_{number}.png",
                "dsb": tmp_path / stem / "masks" / f"{label}_{number}.png",
            }[layout]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(each["segmentation"]) * 255).save(file)
        folder = tmp_path / stem / "images" if layout == "dsb" else tmp_path / "images"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(FORMATS / "images" / name, folder)
    require_truth(annotations.read(tmp_path), masks=True)
