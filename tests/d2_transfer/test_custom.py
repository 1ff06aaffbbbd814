"""The user's own data in COCO's format: every fault is named before anything runs."""

import copy
import json
import logging
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.datasets import custom

compat.setup()  # before any test imports Detectron2

WIDTH, HEIGHT = 60, 40


def content(images: int, first: int) -> dict:
    """Annotations with one polygon and one crowd an image, of two classes with ids 3 and 7."""
    annotations = []
    for n in range(images):
        x, y, w, h = 5.0 + n, 6.0, 20.0, 10.0
        common = {"image_id": first + n, "bbox": [x, y, w, h], "area": w * h}
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotations.append(
            common | {"category_id": 3 if n % 2 else 7, "iscrowd": 0, "segmentation": [polygon]}
        )
        annotations.append(common | {"category_id": 3, "iscrowd": 1, "segmentation": rle()})
    return {
        "images": [
            {"id": first + n, "file_name": f"{first + n}.png", "width": WIDTH, "height": HEIGHT}
            for n in range(images)
        ],
        "annotations": [each | {"id": n} for n, each in enumerate(annotations, start=1)],
        "categories": [{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}],
    }


def rle() -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[10:20, 10:30] = 1
    encoded = coco_mask.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


class Data:
    """Two annotation files and one folder of images, which a test may spoil."""

    def __init__(self, folder):
        self.folder, self.train, self.val = folder, content(6, 1), content(3, 101)
        for split in (self.train, self.val):
            for image in split["images"]:
                Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image["file_name"])

    def read(self, need_masks: bool = False) -> custom.Custom:
        for name in ("train", "val"):
            (self.folder / f"{name}.json").write_text(json.dumps(getattr(self, name)))
        return self.read_files(need_masks)

    def read_files(self, need_masks: bool = False) -> custom.Custom:
        files = [self.folder / f"{name}.json" for name in ("train", "val")]
        return custom.read(files[0], self.folder, files[1], self.folder, need_masks)

    def refused(self, need_masks: bool = False) -> str:
        with pytest.raises(InputError) as caught:
            self.read(need_masks)
        return str(caught.value)


@pytest.fixture
def data(tmp_path) -> Data:
    return Data(tmp_path)


# Reading ----------------------------------------------------------------------------------------


def test_classes_and_sizes_are_read_from_the_files(data, caplog):
    with caplog.at_level(logging.WARNING):
        found = data.read(need_masks=True)
    assert not caplog.records
    assert found.categories == ((3, "nut"), (7, "bolt")) and found.num_classes == 2
    assert (found.images, found.listed, found.evaluated) == (6, 6, 3)
    assert found.short_edge == (40, 40, 40) and found.long_edge == (60, 60, 60)
    assert not found.bitmasks  # crowds are not trained on
    assert pickle.loads(pickle.dumps(found)) == found
    assert "6 training images" in found.describe() and "nut, bolt" in found.describe()


def test_an_image_without_an_object_is_not_counted_as_trained_on(data):
    data.train["annotations"] = [
        each for each in data.train["annotations"] if each["image_id"] != 2 or each["iscrowd"]
    ]
    found = data.read()
    assert (found.images, found.listed) == (5, 6)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not JSON"),
        ('{"images": [', "not JSON"),
        ("[]", "not an object"),
        ("\x00\xff", "not JSON"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "empty list 'annotations'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_named(data, text, words):
    data.read()
    (data.folder / "val.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        data.read_files()
    message = str(caught.value)
    assert words in message and str(data.folder / "val.json") in message
    assert "train.json" not in message


def test_both_files_are_said_when_both_are_absent(data):
    with pytest.raises(InputError) as caught:
        data.read_files()
    for name in ("train", "val"):
        assert f"{data.folder / name}.json is not there" in str(caught.value)


NAN = float("nan")
SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def runs(counts: object) -> dict:
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def change(kind: str, place: int, key: str, value: object):
    """A mutation of the training file: one value of one entry; ``...`` takes the key away."""

    def spoil(data: Data) -> None:
        entry = data.train[kind][place]
        if value is ...:
            del entry[key]
        else:
            entry[key] = value

    return spoil


@pytest.mark.parametrize(
    "spoil, words",
    [
        (change("annotations", 2, "bbox", ...), "annotation 3 lacks 'bbox'"),
        (change("annotations", 2, "id", ...), "annotation number 3 lacks 'id'"),
        (change("annotations", 2, "id", None), "annotation None has id None; allowed: a number"),
        (change("annotations", 2, "image_id", [1]), "annotation 3 has image_id [1]; allowed"),
        (change("annotations", 2, "category_id", True), "annotation 3 has category_id True"),
        (change("annotations", 2, "id", 2), "ids of annotations are there twice: 2"),
        (change("annotations", 2, "image_id", 77), "annotation 3 has image_id 77, which"),
        (
            change("annotations", 2, "image_id", "2"),
            "annotation 3 has image_id '2', which the file does not list (it lists 2)",
        ),
        (change("annotations", 2, "category_id", 1), "annotation 3 has category_id 1, which"),
        (change("annotations", 2, "bbox", [1, 2, 3]), "annotation 3 has bbox [1, 2, 3]; allowed"),
        (change("annotations", 2, "bbox", [1, 2, 3, "4"]), "four numbers"),
        (change("annotations", 2, "bbox", [1, 2, 3, float("nan")]), "four numbers"),
        (change("annotations", 2, "bbox", [1, 2, 3, 10**400]), "four numbers"),
        (change("annotations", 2, "bbox", [5, 5, 0, 4]), "annotation 3 has bbox [5, 5, 0, 4]"),
        (change("annotations", 2, "bbox", [9, 9, -4, -4]), "not positive"),
        (change("annotations", 2, "bbox", [60, 5, 9, 9]), "outside its image of 60×40"),
        (change("annotations", 2, "bbox", [5, -9, 9, 9]), "outside its image"),
        (change("annotations", 2, "iscrowd", 2), "annotation 3 has iscrowd 2"),
        (change("annotations", 2, "ignore", 1), "annotation 3 has 'ignore'"),
        (change("annotations", 2, "segmentation", [[1, 2, 3, 4]]), "without any polygon"),
        (
            change("annotations", 2, "segmentation", [["a"] * 6]),
            "annotation 3 has the polygon ['a'",
        ),
        (change("annotations", 2, "segmentation", [SQUARE, [1, 2, 3]]), "a polygon of 3 numbers"),
        (change("annotations", 2, "segmentation", [SQUARE[:7]]), "a polygon of 7 numbers"),
        (change("annotations", 2, "segmentation", [SQUARE, [1, 2, 3, 4, 5, NAN]]), "polygon [1, 2"),
        (change("annotations", 2, "segmentation", SQUARE), "annotation 3 has the polygon 1"),
        (
            change("annotations", 2, "segmentation", "none"),
            "annotation 3 has the segmentation 'none'",
        ),
        (
            change("annotations", 2, "segmentation", runs([10, 5])),
            "annotation 3 has an RLE whose counts sum to 15, but its image has 2400",
        ),
        (change("annotations", 2, "segmentation", runs([2000, 401])), "sum to 2401"),
        (
            change("annotations", 2, "segmentation", runs([-1, 2401])),
            "annotation 3 has an RLE with the count -1",
        ),
        (change("annotations", 2, "segmentation", runs([2400.0])), "the count 2400.0"),
        (change("annotations", 2, "segmentation", runs(["2400"])), "the count '2400'"),
        (change("annotations", 2, "segmentation", runs([True, 2399])), "the count True"),
        (change("annotations", 2, "segmentation", runs([])), "sum to 0"),
        (
            change("annotations", 2, "segmentation", runs("0T1")),
            "annotation 3 has an RLE whose counts sum to 36",
        ),
        (
            change("annotations", 2, "segmentation", runs("b'`]2'")),
            "annotation 3 has an RLE whose counts are \"b'`]2'\"",
        ),
        (change("annotations", 2, "segmentation", runs("`]2~")), "no text of pycocotools"),
        (change("annotations", 2, "segmentation", runs("é")), "no text of pycocotools"),
        (change("annotations", 2, "segmentation", runs("")), "counts are empty"),
        (change("annotations", 2, "segmentation", runs("o")), "end in the middle of a number"),
        (change("annotations", 2, "segmentation", runs("N")), "the count -2"),
        (change("annotations", 3, "segmentation", {"counts": "x", "size": [60, 40]}), "RLE of"),
        (change("annotations", 3, "segmentation", {"size": [40, 60]}), "without 'counts'"),
        (change("images", 1, "id", 1), "ids of images are there twice: 1"),
        (change("images", 1, "id", 1.0), "ids of images are there twice: 1 and 1.0"),
        (change("images", 1, "id", None), "image None has id None; allowed: a number or a text"),
        (change("images", 1, "id", NAN), "image nan has id nan; allowed"),
        (
            change("images", 1, "id", "2"),
            "annotation 3 has image_id 2, which the file does not list (it lists '2')",
        ),
        (change("images", 1, "width", ...), "image 2 lacks 'width'"),
        (change("images", 1, "width", 0), "image 2 has width 0; allowed: a whole number from 1"),
        (change("images", 1, "width", 60.0), "image 2 has width 60.0"),
        (change("images", 1, "file_name", None), "image 2 has file_name None"),
        (change("images", 1, "file_name", "gone.png"), "of which 1 are not there"),
        (change("images", 1, "file_name", "sub/2.png"), "sub is not there"),
        (change("images", 1, "height", 41), "image 2 is 60×41 pixels, but"),
        (change("categories", 0, "id", 3), "ids of categories are there twice: 3"),
        (change("categories", 0, "name", "nut"), "names of categories are there twice: nut"),
        (change("categories", 0, "name", ""), "category 7 has name ''"),
        (
            change("categories", 0, "id", "7"),
            "annotation 1 has category_id 7, which the file does not list (it lists '7')",
        ),
    ],
)
def test_every_fault_is_named_with_its_file_and_entry(data, spoil, words):
    spoil(data)
    (line,) = [line for line in data.refused().splitlines() if words in line]
    assert str(data.folder / "train.json") in line


def test_masks_of_the_second_file_are_checked_too(data):
    for place, counts in enumerate(([10, 5], "b'`]2'", "00")):
        data.val["annotations"][2 * place]["segmentation"] = runs(counts)
    lines = data.refused().splitlines()[1:]
    assert len(lines) == 2 and all(str(data.folder / "val.json") in line for line in lines)
    [bytes_] = [line for line in lines if "annotation 3 has an RLE whose counts are" in line]
    [sums] = [line for line in lines if "annotation 1 has an RLE whose counts sum to 15" in line]
    assert sums.endswith("the same of 5") and "b'`]2'" in bytes_


def test_many_of_a_kind_are_one_line_with_the_first_ids(data):
    for each in data.train["annotations"]:
        each["category_id"] = 5
    (line,) = [line for line in data.refused().splitlines() if "category_id" in line]
    assert "annotation 1 has category_id 5" in line
    assert "the same of 2, 3, 4 and 8 more" in line


def test_faults_of_both_files_come_in_one_message(data):
    del data.train["annotations"][0]["bbox"]
    data.val["images"][0]["file_name"] = "gone.png"
    message = data.refused()
    assert "lacks 'bbox'" in message and "gone.png" in message


def test_masks_are_needed_for_custom_mask_only(data):
    for empty in (None, []):
        data.train["annotations"][0]["segmentation"] = empty
        data.read()
        assert "annotation 1 has no segmentation" in data.refused(need_masks=True)


def test_boxes_as_corners_are_refused(data):
    for each in data.train["annotations"]:
        x, y, w, h = each["bbox"]
        each["bbox"] = [x + 20, y + 15, x + 20 + w, y + 15 + h]
    message = data.refused()
    assert "12 of 12 boxes reach beyond their images" in message and "x1, y1, x2, y2" in message


def test_boxes_as_fractions_are_refused(data):
    for each in data.train["annotations"]:
        each["bbox"] = [0.1, 0.2, 0.3, 0.4]
    assert "fractions" in data.refused()


def test_boxes_that_reach_beyond_are_a_warning(data, caplog):
    data.train["annotations"][0]["bbox"] = [50, 30, 20, 20]
    with caplog.at_level(logging.WARNING):
        data.read()
    assert "1 of 12 boxes reach beyond" in caplog.text


def test_a_file_of_crowds_only_has_nothing_to_learn(data):
    for each in data.train["annotations"]:
        each["iscrowd"] = 1
    assert "all its annotations are crowds" in data.refused()


@pytest.mark.parametrize(
    "categories, words",
    [
        ([{"id": 7, "name": "bolt"}], "3 is 'nut' in the first and absent in the second"),
        ([{"id": 7, "name": "nut"}, {"id": 3, "name": "bolt"}], "3 is 'nut' in the first and"),
    ],
)
def test_other_categories_in_the_second_file_are_refused(data, categories, words):
    data.val["categories"] = categories
    for each in data.val["annotations"]:
        each["category_id"] = 7
    message = data.refused()
    assert "different categories" in message and words in message


def test_shared_images_are_a_warning(data, caplog):
    data.val["images"][0]["file_name"] = "1.png"
    with caplog.at_level(logging.WARNING):
        data.read()
    assert "the same images" in caplog.text and "1.png" in caplog.text


def test_a_picture_turned_by_its_exif_is_measured_as_it_is_read(data):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(data.folder / "1.jpg", exif=turned)
    image = data.train["images"][0]
    image["file_name"] = "1.jpg"
    assert f"{HEIGHT}×{WIDTH}, turned as its EXIF data say" in data.refused()
    image["width"], image["height"] = HEIGHT, WIDTH
    for each in data.train["annotations"][:2]:
        each["bbox"], each["segmentation"] = [1, 1, 5, 5], [[1, 1, 6, 1, 6, 6]]
    data.read()


def test_images_in_folders_below_are_found(data):
    (data.folder / "sub").mkdir()
    (data.folder / "1.png").rename(data.folder / "sub" / "1.png")
    data.train["images"][0]["file_name"] = "sub/1.png"
    assert data.read().images == 6


# The config -------------------------------------------------------------------------------------


def made(images=1000, short=480.0, long=640.0, bitmasks=False) -> custom.Custom:
    return custom.Custom(
        "a.json",
        "a",
        "b.json",
        "b",
        categories=((3, "nut"), (7, "bolt")),
        images=images,
        listed=images,
        evaluated=10,
        short_edge=(short, short, short),
        long_edge=(long, long, long),
        bitmasks=bitmasks,
        sha256=("1" * 64, "2" * 64),
    )


@pytest.mark.parametrize(
    "short, long, expected",
    [
        (480, 640, (800, 1333)),  # COCO
        (1024, 2048, (800, 1333)),  # never larger
        (375, 500, (625, 1041)),  # VOC: enlarged as COCO is
        (100, 100, (167, 278)),
        (20, 30, (128, 213)),
        (100, 300, (167, 501)),  # long images stay whole
    ],
)
def test_image_sizes_follow_the_edges_as_cocos_do(short, long, expected):
    assert custom.image_sizes(made(short=short, long=long)) == expected


@pytest.mark.parametrize(
    "images, expected",
    [
        (10, 3600),
        (2400, 3600),
        (16551, 24840),  # VOC: 24k in its protocol
        (117266, 175950),  # COCO: 180k in 2x
        (1_000_000, 180_000),
    ],
)
def test_the_schedule_follows_the_number_of_images(images, expected):
    assert custom.schedule(images, 16) == expected


def test_cocos_own_numbers_give_the_base_config_back():
    """What the rule was made from: 480×640 images give 1x's sizes."""
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / "custom_mask.yaml"))
    base = cfg.clone()
    custom.apply(made(), cfg)
    assert cfg.INPUT == base.INPUT
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert cfg.SOLVER.MAX_ITER == 3600 and cfg.SOLVER.STEPS == (2400, 3200)
    assert cfg.SOLVER.WARMUP_ITERS == 180
    assert base.SOLVER.BASE_LR == cfg.SOLVER.BASE_LR


def test_a_config_tells_other_annotations_apart(data):
    texts = set()
    for area in (200.0, 201.0):
        data.val["annotations"][0]["area"] = area
        cfg = compat.get_cfg()
        custom.apply(data.read(), cfg)
        texts.add(cfg.DATASETS.CUSTOM)
    assert len(texts) == 2


@pytest.mark.parametrize("name, masks", [("custom_det", False), ("custom_mask", True)])
def test_the_protocols_read_the_registered_names(name, masks):
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / f"{name}.yaml"))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("custom_train",), ("custom_val",))
    assert cfg.MODEL.MASK_ON is masks
    assert datasets.check([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])  # none of its business


# Detectron2 -------------------------------------------------------------------------------------


def test_registration_gives_detectron2_classes_from_0_and_can_be_repeated(data):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    found = data.read()
    for each in (found, pickle.loads(pickle.dumps(found))):
        custom.register(each)
        train = DatasetCatalog.get("custom_train")
    assert len(train) == 6 and len(DatasetCatalog.get("custom_val")) == 3
    assert [entry["category_id"] for entry in train[0]["annotations"]] == [1, 0]  # bolt, nut
    meta = MetadataCatalog.get("custom_train")
    assert meta.thing_classes == ["nut", "bolt"] and meta.evaluator_type == "coco"
    data.train["categories"] = data.val["categories"] = [{"id": 3, "name": "a"}]
    for split in (data.train, data.val):
        for each in split["annotations"]:
            each["category_id"] = 3
    custom.register(data.read())  # other data in the same process
    DatasetCatalog.get("custom_train")
    assert MetadataCatalog.get("custom_train").thing_classes == ["a"]


def masks_of(data: Data) -> np.ndarray:
    """The masks that Detectron2's own mapper gives to training, of the first image."""
    from detectron2.data import DatasetCatalog, DatasetMapper

    found = data.read(need_masks=True)
    custom.register(found)
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / "custom_mask.yaml"))
    custom.apply(found, cfg)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    mapped = DatasetMapper(cfg, is_train=True)(DatasetCatalog.get("custom_train")[0])
    masks = mapped["instances"].gt_masks
    assert len(masks) == 1  # the crowd is left out
    if cfg.INPUT.MASK_FORMAT == "bitmask":
        return masks.tensor[0].numpy()
    polygons = coco_mask.frPyObjects(masks.polygons[0], HEIGHT, WIDTH)
    return coco_mask.decode(coco_mask.merge(polygons)).astype(bool)


def test_polygons_and_rles_give_the_same_masks(data):
    box = np.zeros((HEIGHT, WIDTH), bool)
    box[6:16, 5:25] = True
    assert np.array_equal(masks_of(data), box)
    first = copy.deepcopy(data.train["annotations"][0])
    encoded = coco_mask.encode(np.asfortranarray(box.astype(np.uint8)))
    data.train["annotations"][0]["segmentation"] = {
        "size": [HEIGHT, WIDTH],
        "counts": encoded["counts"].decode(),
    }
    assert data.read().bitmasks
    assert np.array_equal(masks_of(data), box)
    counts = [5 * HEIGHT + 6, *([10, HEIGHT - 10] * 19), 10]  # columns, run by run
    counts.append(HEIGHT * WIDTH - sum(counts))
    first["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    data.train["annotations"][0] = first
    assert np.array_equal(masks_of(data), box)
