"""The checks of the data sets, and Detectron2's catalogs pointed at a folder."""

import functools
import importlib
import json
import logging
import multiprocessing
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets, main
from densessl.d2_transfer.datasets import cityscapes, custom
from densessl.d2_transfer.protocols import DETECTION, PROTOCOLS
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.stops import stoppable

compat.setup()  # before any test imports Detectron2
EVERY = [  # of the protocols with Detectron2
    name
    for protocol in PROTOCOLS.values()
    if protocol.family == DETECTION
    for name in protocol.datasets
]
COARSE = [name for name in datasets.LAYOUTS if name.startswith(("coco_stuff", "coco_things"))]
DRAWN = [  # in scenes, with labels that Detectron2 can read
    name for name, layout in datasets.LAYOUTS.items() if layout.drawn and name not in COARSE
]

METAS = "deeplearning.projects.cityscapesApi"  # a package of Meta's own, detectron2#5436


def test_scenes_pass_for_every_protocol(scenes):
    assert datasets.check(EVERY, scenes) == scenes
    assert set(EVERY) - set(custom.NAMES) == set(DRAWN)


CASES = [
    (protocol.name, variant)
    for protocol in PROTOCOLS.values()
    for variant in protocol.configs
    if not protocol.name.startswith("custom_")
]


@pytest.mark.parametrize("name, variant", CASES)
def test_a_message_promises_a_stand_in_where_scenes_hold_one(scenes, tmp_path, name, variant):
    """Of every protocol and variant: what is said of missing data, against what scenes hold."""
    cfg = resolve(name, variant, gpus=1, mini=True, cuda=False)
    check = functools.partial(PROTOCOLS[name].room.check_data, cfg, stand_in=True)
    with pytest.raises(InputError) as caught:
        check(data=tmp_path)
    try:
        held = bool(check(data=scenes))
    except InputError:
        held = False
    assert ("densessl scenes DIR" in str(caught.value)) == held


def test_a_number_of_images_that_is_not_the_real_one_is_one_warning(scenes, caplog):
    with caplog.at_level(logging.WARNING, "densessl"):
        datasets.check(["voc_2007_test", "coco_2017_train"], scenes)
    (record,) = caplog.records
    assert "voc_2007_test has 6, not 4952" in record.getMessage()
    assert "coco_2017_train has 12, not 118287" in record.getMessage()


def test_the_real_numbers_are_those_of_the_papers():
    def of(*names):
        return sum(datasets.LAYOUTS[name].official for name in names)

    assert of("voc_2007_trainval", "voc_2012_trainval") == 16551
    assert of("cityscapes_fine_sem_seg_train", "cityscapes_fine_instance_seg_train") == 2 * 2975
    assert of("voc_2012_aug_semseg_train") == 10582 and of("ade20k_sem_seg_train") == 20210


def test_a_missing_folder_is_one_message_that_says_where_and_what(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(InputError) as caught:
        datasets.check(["voc_2007_test", "coco_2017_val"])
    message = str(caught.value)
    assert str(tmp_path / "nowhere") in message and "DETECTRON2_DATASETS" in message
    assert "VOC2007/{Annotations,ImageSets/Main/test.txt,JPEGImages}" in message
    assert "coco/annotations/instances_val2017.json" in message


@pytest.mark.parametrize(
    "name, lost",
    [
        ("voc_2007_test", "VOC2007/ImageSets/Main/test.txt"),
        ("voc_2012_trainval", "VOC2012/JPEGImages"),
        ("voc_2007_trainval", "VOC2007/Annotations"),
        ("coco_2017_train", "coco/annotations/instances_train2017.json"),
        ("coco_2017_val", "coco/val2017"),
        ("keypoints_coco_2017_val", "coco/annotations/person_keypoints_val2017.json"),
        ("coco_2017_train_panoptic_separated", "coco/annotations/panoptic_train2017.json"),
        ("coco_2017_val_panoptic_separated", "coco/panoptic_val2017"),
        ("coco_2017_val_panoptic_separated", "coco/panoptic_stuff_val2017"),
        ("lvis_v0.5_train", "lvis/lvis_v0.5_train.json"),
        ("lvis_v1_val", "coco/val2017"),
        ("cityscapes_fine_instance_seg_train", "cityscapes/leftImg8bit/train"),
        ("cityscapes_fine_sem_seg_val", "cityscapes/gtFine/val"),
        ("voc_2012_aug_semseg_train", "voc_aug/labels"),
        ("voc_2012_semseg_val", "VOC2012/JPEGImages"),
        ("ade20k_sem_seg_train", "ADEChallengeData2016/images/training"),
        ("ade20k_sem_seg_val", "ADEChallengeData2016/annotations_detectron2/validation"),
    ],
)
def test_whatever_is_lost_is_named(scenes, tmp_path, name, lost):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    place = copy / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(InputError) as caught:
        datasets.check(EVERY, copy)
    assert f"{name}: {place} is not there" in str(caught.value)


def test_files_that_do_not_fit_together_are_named(scenes, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    (copy / "VOC2007/ImageSets/Main/test.txt").write_text("")
    (copy / "VOC2012/ImageSets/Main/trainval.txt").write_text("2008_999999\n")
    (copy / "coco/annotations/instances_val2017.json").write_text("<html>not found</html>")
    with pytest.raises(InputError) as caught:
        datasets.check(EVERY, copy)
    listed, pictures = "VOC2012/ImageSets/Main/trainval.txt", copy / "VOC2012/JPEGImages"
    for words in (
        f"voc_2007_test: {copy / 'VOC2007/ImageSets/Main/test.txt'} lists no image",
        f"voc_2012_trainval: {copy / listed} lists 2008_999999, not in {pictures} as NAME.jpg",
        f"{copy / 'coco/annotations/instances_val2017.json'} is not a JSON object",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("counts", [[10, 5], "b'0'", "00"])
def test_run_lengths_that_are_not_an_image_are_named(scenes, tmp_path, counts):
    root = tmp_path / "data"
    shutil.copytree(scenes / "coco", root / "coco")
    file = root / "coco/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": counts}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        datasets.check(["coco_2017_val"], root, stand_in=True)
    assert f"{file}: an annotation has an RLE whose counts" in str(caught.value)


def test_an_unknown_data_set_gets_the_nearest(scenes):
    with pytest.raises(InputError, match="'voc_2007_test'"):
        datasets.check(["voc_2007_tset"], scenes)


def test_the_flag_wins_over_the_variable(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert datasets.root_folder(scenes) == (scenes, "--data")
    assert datasets.root_folder() == (tmp_path, "DETECTRON2_DATASETS")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert datasets.root_folder()[0].name == "datasets"


def test_registration_moves_every_data_set_and_keeps_its_classes(scenes, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(scenes, elsewhere)
    seen = []
    for root in (scenes, elsewhere):
        datasets.register(root)
        datasets.register(root)  # again, to no effect
        for name in DRAWN:
            entries = DatasetCatalog.get(name)
            assert entries and all(entry["file_name"].startswith(str(root)) for entry in entries)
        seen.append({n: MetadataCatalog.get(n).as_dict() for n in DRAWN})
    about = ("thing_classes", "stuff_classes", "keypoint_names", "keypoint_flip_map")
    assert not set(COARSE) & set(DatasetCatalog.list())  # it would read the labels as they are
    for name in DRAWN:
        assert all(seen[0][name].get(key) == seen[1][name].get(key) for key in about)


@pytest.mark.parametrize(
    "name, count, evaluator, things, stuff",
    [
        ("voc_2007_trainval", 6, "pascal_voc", 20, 0),
        ("voc_2007_test", 6, "pascal_voc", 20, 0),
        ("coco_2017_train", 12, "coco", 80, 0),
        ("coco_2017_val", 6, "coco", 80, 0),
        ("keypoints_coco_2017_train", 12, "coco", 1, 0),
        ("cityscapes_fine_instance_seg_train", 12, "cityscapes_instance", 8, 19),
        ("cityscapes_fine_instance_seg_val", 6, "cityscapes_instance", 8, 19),
        ("cityscapes_fine_sem_seg_train", 12, "sem_seg", 8, 19),
        ("voc_2012_aug_semseg_train", 6, "sem_seg", 0, 21),
        ("voc_2012_semseg_val", 6, "sem_seg", 0, 21),
        ("ade20k_sem_seg_train", 12, "sem_seg", 0, 150),
        ("ade20k_sem_seg_val", 6, "sem_seg", 0, 150),
    ],
)
def test_what_is_registered(scenes, name, count, evaluator, things, stuff):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    datasets.register(scenes)
    assert len(DatasetCatalog.get(name)) == count
    meta = MetadataCatalog.get(name)
    assert meta.evaluator_type == evaluator
    assert len(meta.get("thing_classes", ())) == things
    assert len(meta.get("stuff_classes", ())) == stuff
    if evaluator == "coco":
        assert len(meta.thing_dataset_id_to_contiguous_id) == things


def test_records_are_those_of_detectron2s_own_readers(scenes):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import load_coco_json, load_voc_instances

    datasets.register(scenes)
    for name in ("coco_2017_val", "keypoints_coco_2017_train"):
        meta = MetadataCatalog.get(name)
        MetadataCatalog.get(f"{name}_again").set(thing_classes=meta.thing_classes)
        theirs = load_coco_json(meta.json_file, meta.image_root, f"{name}_again")
        assert DatasetCatalog.get(name) == theirs
        numbers = MetadataCatalog.get(f"{name}_again").thing_dataset_id_to_contiguous_id
        assert numbers == meta.thing_dataset_id_to_contiguous_id
        MetadataCatalog.remove(f"{name}_again")
    meta = MetadataCatalog.get("voc_2007_test")
    theirs = load_voc_instances(meta.dirname, "test", meta.thing_classes)
    assert DatasetCatalog.get("voc_2007_test") == theirs


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32"])
def test_lists_and_annotations_may_be_in_any_form_of_unicode(scenes, tmp_path, form):
    from detectron2.data import DatasetCatalog

    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    names = ("voc_2007_test", "coco_2017_val", "keypoints_coco_2017_val", "voc_2012_semseg_val")
    datasets.register(scenes)
    expected = [[each["image_id"] for each in DatasetCatalog.get(name)] for name in names]
    for file in (
        "VOC2007/ImageSets/Main/test.txt",
        "coco/annotations/instances_val2017.json",
        "coco/annotations/person_keypoints_val2017.json",
        "voc_aug/val.txt",
    ):
        text = (root / file).read_text()
        (root / file).unlink()
        (root / file).write_text(text, encoding=form)
    assert datasets.check(names, root, stand_in=True) == root
    datasets.register(root)
    found = [[each["image_id"] for each in DatasetCatalog.get(name)] for name in names]
    assert found == expected


def test_semantic_records_hold_the_labels_and_the_size(scenes):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    datasets.register(scenes)
    for name in DRAWN:
        layout = datasets.LAYOUTS[name]
        if MetadataCatalog.get(name).evaluator_type != "sem_seg":
            continue
        assert MetadataCatalog.get(name).ignore_label == 255
        records = DatasetCatalog.get(name)
        ids = [record["image_id"] for record in records]
        assert ids == sorted(ids) and len(set(ids)) == len(ids)
        for record in records:
            with Image.open(record["file_name"]) as picture:
                assert picture.size == (record["width"], record["height"])
            with Image.open(record["sem_seg_file_name"]) as picture:
                assert picture.mode == "L"
                values = set(np.unique(np.asarray(picture)).tolist())
            assert values <= {*range(layout.classes), 255}
            assert record["image_id"] in record["file_name"]
            assert record["image_id"] in record["sem_seg_file_name"]


def test_voc_segmentation_trains_on_other_images_than_it_evaluates(scenes):
    from detectron2.data import DatasetCatalog

    datasets.register(scenes)
    train, val = (
        {record["image_id"] for record in DatasetCatalog.get(name)}
        for name in ("voc_2012_aug_semseg_train", "voc_2012_semseg_val")
    )
    assert train and val and not train & val
    numbers = {int(name.removeprefix("2012_")) for name in val}
    assert numbers == {int(r["image_id"]) for r in DatasetCatalog.get("voc_2007_test")}


def test_keypoints_and_cityscapes_have_what_detectron2_gives_its_own(scenes):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    datasets.register(scenes)
    meta = MetadataCatalog.get("keypoints_coco_2017_train")
    assert len(meta.keypoint_names) == 17 and ("left_eye", "right_eye") in meta.keypoint_flip_map
    records = DatasetCatalog.get("keypoints_coco_2017_train")
    people = [person for record in records for person in record["annotations"]]
    assert people and all(len(person["keypoints"]) == 51 for person in people)
    records = DatasetCatalog.get("cityscapes_fine_instance_seg_val")
    files = [record["file_name"] for record in records]
    assert files == sorted(files)
    objects = [each for record in records for each in record["annotations"]]
    assert objects and all(each["segmentation"] for each in objects)
    assert {each["category_id"] for each in objects} <= set(range(8))
    meta = MetadataCatalog.get("cityscapes_fine_instance_seg_val")
    assert (meta.image_dir, meta.gt_dir) == tuple(
        str(scenes / "cityscapes" / kind / "val") for kind in ("leftImg8bit", "gtFine")
    )


@pytest.mark.parametrize("few", [0, 64])
def test_cityscapes_objects_are_those_of_detectron2s_own_reader(scenes, monkeypatch, few):
    """``few`` 0: in other processes, which end although a trial's signal handlers are set."""
    from cityscapesscripts.helpers import labels
    from detectron2.data.datasets.cityscapes import load_cityscapes_instances

    # the official main's own reader asks for it by Meta's name
    monkeypatch.setitem(sys.modules, f"{METAS}.cityscapesscripts.helpers.labels", labels)
    monkeypatch.setattr(cityscapes, "FEW", few)
    with stoppable():
        found = cityscapes.read_objects(scenes, "val")
    assert not multiprocessing.active_children()
    folders = [str(scenes / "cityscapes" / kind / "val") for kind in ("leftImg8bit", "gtFine")]
    theirs = load_cityscapes_instances(*folders)
    assert found == sorted(theirs, key=lambda record: record["file_name"])
    assert any(record["annotations"] for record in found)
    for process in multiprocessing.active_children():  # theirs
        process.terminate()
        process.join()


def test_cityscapes_objects_need_nothing_of_metas(scenes, monkeypatch):
    """As with the official main, whose own functions import a package that only Meta has."""
    from detectron2.data.datasets import cityscapes as detectron2s

    def as_in_main(*args, **kwargs):
        importlib.import_module(f"{METAS}.cityscapesscripts.helpers.labels")

    for name in ("_cityscapes_files_to_dict", "load_cityscapes_instances"):
        monkeypatch.setattr(detectron2s, name, as_in_main)
    with pytest.raises(ModuleNotFoundError, match="deeplearning"):
        detectron2s.load_cityscapes_instances()
    assert any(record["annotations"] for record in cityscapes.read_objects(scenes, "train"))


def write_frame(root, objects) -> cityscapes.Frame:
    frame = cityscapes.Frame("a_0_0", root / f"a_0_0{cityscapes.IMAGE_END}", root)
    content = {"imgHeight": 40, "imgWidth": 60, "objects": objects}
    frame.file("polygons.json").write_text(json.dumps(content))
    return frame


def test_what_lies_over_an_object_is_cut_off(tmp_path):
    from densessl.d2_transfer.datasets.cityscapes_objects import read_frame

    labels = {"car": (26, 2), "pole": (17, None), "license plate": (-1, None)}
    square = [[10, 10], [30, 10], [30, 30], [10, 30]]
    bar = [[18, 0], [22, 0], [22, 39], [18, 39]]
    drawn = [
        {"label": "cargroup", "polygon": square},
        {"label": "pole", "polygon": bar},
        {"label": "license plate", "polygon": square},
        {"label": "car", "polygon": square, "deleted": 1},
    ]
    found = read_frame(write_frame(tmp_path, drawn), labels)
    assert (found["height"], found["width"], found["image_id"]) == (40, 60, "a_0_0_leftImg8bit.png")
    (car,) = found["annotations"]
    assert car["iscrowd"] and car["category_id"] == 2 and len(car["segmentation"]) == 2
    assert car["bbox"] == (10.0, 10.0, 31.0, 31.0)  # half a pixel more than the pixels' middles
    hidden = read_frame(
        write_frame(tmp_path, [drawn[0], {"label": "car", "polygon": square}]), labels
    )
    assert [each["iscrowd"] for each in hidden["annotations"]] == [False]


def test_voc_classes_are_those_of_detectron2_and_of_the_masks():
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES

    from densessl.d2_transfer.datasets.detection import VOC_CLASSES
    from densessl.pretrain.scenes.labels import THINGS

    assert VOC_CLASSES == CLASS_NAMES
    for label in THINGS:
        assert label.voc == 1 + VOC_CLASSES.index(label.name)


def test_the_command_stops_before_it_writes_anything(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    out = tmp_path / "out"
    with pytest.raises(InputError, match="data sets are missing"):
        main.main(["random", "--protocol", "voc_det_c4", "--mini", "-o", str(out)])
    assert not out.exists()


def test_too_little_disk_is_said_before_anything_runs(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 8, 1))
    words = ["random", "--protocol", "voc_det_c4", "--data", str(scenes)]
    with pytest.raises(InputError, match="0.0 GB free; 5 trials of voc_det_c4 need about 1.4 GB"):
        main.main([*words, "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
