"""A written set, read back layout by layout, also by the readers that real data goes through."""

import json
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.io import loadmat

from densessl.pretrain.scenes import dataset, store, voc
from densessl.pretrain.scenes.generate import generate
from densessl.pretrain.scenes.labels import CLASSES, LABELS, THINGS
from densessl.pretrain.scenes.people import KEYPOINTS

REQUEST = dataset.Request(train=24, val=4, size=96, seed=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "set"
    dataset.write(folder, REQUEST, workers=1)
    return folder


@pytest.fixture(scope="module")
def scenes():
    return {store.number("train", i): generate(1, i, 96) for i in range(REQUEST.train)}


@pytest.fixture(scope="module")
def compat():
    """Detectron2 made importable, whichever release it is."""
    pytest.importorskip("torch")
    compat = pytest.importorskip("densessl.d2_transfer.compat")
    compat.setup()
    return compat


def coco(root, name, capsys) -> COCO:
    loaded = COCO(root / "coco" / "annotations" / f"{name}.json")
    capsys.readouterr()  # pycocotools prints
    return loaded


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_coco_holds_the_exact_masks_boxes_and_areas(root, scenes, capsys):
    loaded = coco(root, "instances_train2017", capsys)
    assert sorted(loaded.imgs) == sorted(scenes)
    for number, scene in scenes.items():
        entries = loaded.imgToAnns[number]
        assert len(entries) == len(scene.instances)
        for entry, instance in zip(entries, scene.instances, strict=True):
            mask = loaded.annToMask(entry).astype(bool)
            assert np.array_equal(mask, instance.mask)
            assert entry["area"] == mask.sum() and entry["iscrowd"] == 0
            rows, columns = np.nonzero(mask)
            width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
            assert entry["bbox"] == [columns.min(), rows.min(), width, height]
            assert loaded.cats[entry["category_id"]]["name"] == instance.category


def test_coco_has_its_eighty_categories(root, capsys):
    categories = coco(root, "instances_val2017", capsys).cats
    assert len(categories) == 80 and max(categories) == 90
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(categories)
    by_id = {1: "person", 2: "bicycle", 18: "dog", 44: "bottle", 70: "toilet", 90: "toothbrush"}
    assert {key: categories[key]["name"] for key in by_id} == by_id


def test_splits_share_no_number_and_no_picture(root, capsys):
    train = coco(root, "instances_train2017", capsys)
    val = coco(root, "instances_val2017", capsys)
    assert not set(train.imgs) & set(val.imgs)
    assert not set(train.anns) & set(val.anns)
    digests = {path.read_bytes() for path in (root / "coco").glob("*2017/*.jpg")}
    assert len(digests) == REQUEST.train + REQUEST.val


def test_person_keypoints(root, scenes, capsys):
    loaded = coco(root, "person_keypoints_train2017", capsys)
    assert loaded.cats[1]["keypoints"] == list(KEYPOINTS) and len(loaded.cats[1]["skeleton"]) == 19
    people = [i for scene in scenes.values() for i in scene.instances if i.category == "person"]
    assert len(loaded.anns) == len(people) > 0
    for entry in loaded.anns.values():
        points = np.reshape(entry["keypoints"], (17, 3))
        assert entry["num_keypoints"] == (points[:, 2] > 0).sum()
        mask = loaded.annToMask(entry)
        assert all(mask[y, x] for x, y, flag in points if flag == 2)
        assert any((points == p.keypoints).all() for p in people)


def test_voc_boxes_and_names_agree_with_coco(root, scenes, capsys):
    loaded = coco(root, "instances_train2017", capsys)
    for number, scene in scenes.items():
        ((year, name),) = voc.places("train", number).items()
        tree = ET.parse(root / year / "Annotations" / f"{name}.xml")
        found = []
        for item in tree.findall("object"):
            x1, y1, x2, y2 = (
                int(item.find("bndbox").findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            found.append((item.findtext("name"), [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
            assert item.findtext("difficult") in "01"
        entries = loaded.imgToAnns[number]
        names = [loaded.cats[entry["category_id"]]["name"] for entry in entries]
        assert found == list(zip(names, [entry["bbox"] for entry in entries], strict=True))
        flags = [int(item.findtext("difficult")) for item in tree.findall("object")]
        assert flags == [int(instance.difficult) for instance in scene.instances]


def names(root, year, split, task="Main") -> list[str]:
    return (root / year / "ImageSets" / task / f"{split}.txt").read_text().split()


def test_voc_lists_cover_the_splits(root):
    for year in ("VOC2007", "VOC2012"):
        trainval = names(root, year, "trainval")
        assert sorted(names(root, year, "train") + names(root, year, "val")) == trainval
        assert len(trainval) == REQUEST.train // 2
        for name in trainval:
            assert (root / year / "JPEGImages" / f"{name}.jpg").is_file()
    assert len(names(root, "VOC2007", "test")) == REQUEST.val
    for split in ("train", "val", "trainval", "test"):
        assert names(root, "VOC2007", split, "Segmentation") == names(root, "VOC2007", split)


def test_voc_segmentation_is_evaluated_on_unseen_scenes(root):
    train, val, both = (
        names(root, "VOC2012", split, "Segmentation") for split in ("train", "val", "trainval")
    )
    assert both == train + val and len(val) == REQUEST.val
    trainval = names(root, "VOC2012", "trainval")
    assert set(train) < set(trainval) and not set(val) & set(trainval)
    for name in both:
        for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            assert (root / "VOC2012" / folder / f"{name}.{ending}").is_file()
    unseen = {int(name) for name in names(root, "VOC2007", "test")}
    assert {int(name.removeprefix("2012_")) for name in val} == unseen


def test_sbd_holds_the_masks_without_void_in_its_own_structure(root, scenes):
    folder = root / "benchmark_RELEASE" / "dataset"
    listed = [(folder / f"{split}.txt").read_text().split() for split in ("train", "val")]
    assert not set(listed[0]) & set(listed[1])
    found = {path.stem for path in (folder / "cls").iterdir()}
    assert found == set(listed[0]) | set(listed[1])
    train = set(names(root, "VOC2012", "trainval"))
    assert train < found  # and some that VOC evaluates on, as the real one
    assert found - train < set(names(root, "VOC2012", "val", "Segmentation"))
    for name in sorted(train):
        read = loadmat(folder / "cls" / f"{name}.mat")["GTcls"]
        assert read.shape == (1, 1)  # a struct
        labels = read["Segmentation"][0, 0]
        expected = np.zeros_like(labels)
        for instance in scenes[int(name.removeprefix("2012_"))].instances:
            expected[instance.mask] = LABELS[instance.category].voc
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


def test_voc_masks_are_palette_images_with_void_outlines(root, scenes):
    for number, scene in scenes.items():
        ((year, name),) = voc.places("train", number).items()
        with Image.open(root / year / "SegmentationClass" / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[: 3 * 3] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            by_class = np.asarray(picture)
        by_object = pixels(root / year / "SegmentationObject" / f"{name}.png")
        assert np.array_equal(by_class == 255, by_object == 255)
        assert 0 < (by_class == 255).mean() < 0.2
        for place, instance in enumerate(scene.instances, start=1):
            own = by_object == place
            assert not own[~instance.mask].any()
            assert (by_class[own] == LABELS[instance.category].voc).all()
        front = scene.instances[-1]  # void lies on the side behind, so what is in front is whole
        if front.visible == 1:
            assert (by_object == len(scene.instances)).sum() == front.area


def test_cityscapes_label_images_are_what_its_own_tools_paint(root):
    """cityscapesScripts paints our polygons; the result is our label and instance images."""
    pytest.importorskip("cityscapesscripts")
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    folder = root / "cityscapes" / "gtFine" / "train" / "scenes"
    paths = sorted(folder.glob("*_polygons.json"))
    assert len(paths) == REQUEST.train
    for path in paths:
        annotation = Annotation()
        annotation.fromJsonFile(str(path))
        prefix = str(path).removesuffix("polygons.json")
        for encoding, kind in (("ids", "labelIds"), ("trainIds", "labelTrainIds")):
            painted = np.asarray(createLabelImage(annotation, encoding))
            assert np.array_equal(painted, pixels(f"{prefix}{kind}.png"))
        color = np.asarray(createLabelImage(annotation, "color"))
        assert np.array_equal(color, pixels(f"{prefix}color.png"))
        instances = np.asarray(createInstanceImage(annotation, "ids"))
        assert np.array_equal(instances, pixels(f"{prefix}instanceIds.png"))


def test_cityscapes_instance_ids_hold_the_masks(root, scenes):
    counted = 0
    for number, scene in scenes.items():
        name = f"scenes_{number:06d}_000000_gtFine_instanceIds.png"
        with Image.open(root / "cityscapes/gtFine/train/scenes" / name) as picture:
            assert picture.mode == "I;16"
            ids = np.asarray(picture)
        masks = [ids == value for value in np.unique(ids) if value >= 24_000]
        kinds = {"person", "car", "bus", "bicycle"}
        expected = [i.mask for i in scene.instances if i.category in kinds]
        assert len(masks) == len(expected)
        assert all(any(np.array_equal(m, e) for e in expected) for m in masks)
        counted += len(masks)
    assert counted > 10


def test_ade_labels_and_their_shifted_copy(root, scenes):
    folder = root / "ADEChallengeData2016"
    seen = set()
    for number, scene in scenes.items():
        name = f"ADE_train_{number:08d}"
        labels = pixels(folder / "annotations" / "training" / f"{name}.png")
        shifted = pixels(folder / "annotations_detectron2" / "training" / f"{name}.png")
        assert labels.max() <= 150
        assert np.array_equal(shifted, np.where(labels == 0, 255, labels.astype(int) - 1))
        for instance in scene.instances:
            assert (labels[instance.mask] == LABELS[instance.category].ade).all()
        seen |= set(np.unique(labels))
    assert {0, 3, 13, 21, 81, 127, 128} <= seen  # other, sky, person, car, bus, animal, bicycle


def test_stuffthingmaps_hold_things_and_stuff(root, scenes):
    seen = set()
    for number, scene in scenes.items():
        labels = pixels(root / "coco" / "stuffthingmaps" / "train2017" / f"{number:012d}.png")
        for instance in scene.instances:
            assert (labels[instance.mask] == LABELS[instance.category].coco - 1).all()
        sky = scene.semantic(lambda label: label == "sky").astype(bool)
        assert (labels[sky] == 156).all()
        seen |= set(np.unique(labels))
    assert {0, 2, 156, 255} <= seen <= {*range(182), 255}  # person, car, sky-other, none


def test_image_folders_hold_each_picture_once_by_its_largest_object(root, scenes):
    folder = root / "imagenet" / "train"
    assert sorted(path.name for path in folder.iterdir()) == sorted(CLASSES)
    assert len(list(folder.glob("*/*.jpg"))) == REQUEST.train
    for number, scene in scenes.items():
        path = folder / scene.main.category / f"{number:012d}.jpg"
        assert path.samefile(root / "coco" / "train2017" / path.name)  # one file, several names


def test_pictures_are_the_scenes(root, scenes):
    for number, scene in list(scenes.items())[:6]:
        name = f"scenes_{number:06d}_000000_leftImg8bit.png"
        lossless = pixels(root / "cityscapes/leftImg8bit/train/scenes" / name)
        assert np.array_equal(lossless, scene.image)
        jpeg = pixels(root / "coco" / "train2017" / f"{number:012d}.jpg")
        assert np.abs(jpeg.astype(int) - scene.image).mean() < 6


def test_detectron2_reads_the_coco_files(root, scenes, compat):
    from detectron2.data.datasets import load_coco_json

    annotations, images = root / "coco" / "annotations", str(root / "coco" / "train2017")
    read = load_coco_json(str(annotations / "instances_train2017.json"), images, "coco_scenes")
    assert [r["image_id"] for r in read] == sorted(scenes)
    for record in read:
        scene = scenes[record["image_id"]]
        assert len(record["annotations"]) == len(scene.instances)
        for entry, instance in zip(record["annotations"], scene.instances, strict=True):
            x1, y1, x2, y2 = instance.box
            assert entry["bbox"] == [x1, y1, x2 - x1, y2 - y1]
            assert entry["segmentation"]
    read = load_coco_json(str(annotations / "person_keypoints_train2017.json"), images)
    people = [entry for record in read for entry in record["annotations"]]
    assert people and all(len(entry["keypoints"]) == 51 for entry in people)


def test_detectron2_reads_the_voc_folders(root, scenes, compat):
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

    by_number = {}
    for year, split in (("VOC2007", "trainval"), ("VOC2012", "trainval"), ("VOC2007", "test")):
        for record in load_voc_instances(str(root / year), split, CLASS_NAMES):
            assert record["height"] == record["width"] == 96
            by_number[int(record["image_id"].removeprefix("2012_"))] = record["annotations"]
    assert len(by_number) == REQUEST.train + REQUEST.val
    for number, scene in scenes.items():
        boxes = [tuple(entry["bbox"]) for entry in by_number[number]]
        assert boxes == [instance.box for instance in scene.instances]
        names = [CLASS_NAMES[entry["category_id"]] for entry in by_number[number]]
        assert names == [instance.category for instance in scene.instances]


def test_detectron2_reads_the_cityscapes_folders(root, scenes, compat):
    pytest.importorskip("shapely")
    from detectron2.data.datasets import cityscapes
    from pycocotools import mask as coco_mask

    folders = [str(root / "cityscapes" / kind / "train") for kind in ("leftImg8bit", "gtFine")]
    assert len(cityscapes.load_cityscapes_semantic(*folders)) == REQUEST.train
    overlaps = []
    for names in cityscapes._get_cityscapes_files(*folders):
        exact = cityscapes._cityscapes_files_to_dict(names, from_json=False, to_polygons=False)
        outlines = cityscapes._cityscapes_files_to_dict(names, from_json=True, to_polygons=True)
        # The JSON reader makes polygons up to half a pixel fatter and cannot hold holes.
        for entry in exact["annotations"]:
            mask = coco_mask.decode(entry["segmentation"]).astype(bool)
            same = [
                coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(o["segmentation"], 96, 96)))
                for o in outlines["annotations"]
                if o["category_id"] == entry["category_id"]
            ]
            overlaps.append(max((mask & (o > 0)).sum() / (mask | (o > 0)).sum() for o in same))
    assert len(overlaps) > 10
    assert np.mean(overlaps) > 0.8 and np.min(overlaps) > 0.3


def test_detectron2_reads_the_ade_folders(root, compat):
    from detectron2.data.datasets import load_sem_seg
    from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES as NAMES

    folder = root / "ADEChallengeData2016"
    read = load_sem_seg(
        str(folder / "annotations_detectron2" / "training"), str(folder / "images" / "training")
    )
    assert len(read) == REQUEST.train
    assert {label.name: NAMES[label.ade - 1] for label in THINGS} == {
        **{name: name for name in ("person", "bicycle", "car", "bus")},
        **dict.fromkeys(("bird", "dog", "horse", "sheep"), "animal"),
    }
    stuff = ("wall", "floor", "sky", "building", "tree", "grass", "road", "sidewalk")
    assert all(NAMES[LABELS[name].ade - 1].split(",")[0] == name for name in stuff)


def test_labels_have_the_numbers_of_cityscapes_own_table():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    for label in LABELS.values():
        name, number, train_id, color = label.cityscapes
        theirs = labels.name2label[name]
        assert (number, train_id, color) == (theirs.id, theirs.trainId, theirs.color)


def test_the_library_does_not_import_detectron2(root):
    """In a fresh interpreter: this one has imported it for the tests above."""
    import subprocess

    code = (
        "import sys, densessl.pretrain.scenes.main, densessl.pretrain.scenes.dataset; "
        "sys.exit(any(name.split('.')[0] in ('detectron2', 'torch') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_mark_says_what_the_set_is(root):
    mark = json.loads((root / dataset.MARK).read_text())
    assert mark["seed"] == 1 and mark["classes"] == list(CLASSES)
    assert not (root / dataset.UNFINISHED).exists()
