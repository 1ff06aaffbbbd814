"""LVIS's data: what is read of it, what is checked, and how often its images come."""

import json
import shutil

import pytest

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.resolve import resolve

compat.setup()
SPLITS = ("lvis_v0.5_train", "lvis_v0.5_val", "lvis_v1_train", "lvis_v1_val")


@pytest.mark.parametrize("name", SPLITS)
def test_the_objects_are_coco_s_under_lvis_s_classes(scenes, name):
    """The scenes have the same objects in both layouts."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    datasets.register(scenes)
    split = name.rpartition("_")[2]
    coco = f"coco_2017_{split}"
    names, others = (MetadataCatalog.get(each).thing_classes for each in (name, coco))
    expected = {"person": "baby"} if "v0.5" in name else {}  # v0.5's first word for a person
    expected |= {"car": "car_(automobile)", "bus": "bus_(vehicle)"}
    records, of_coco = DatasetCatalog.get(name), DatasetCatalog.get(coco)
    assert len(records) == len(of_coco) > 0
    for found, known in zip(records, of_coco, strict=True):
        assert {key: found[key] for key in ("file_name", "height", "width", "image_id")} == {
            key: known[key] for key in ("file_name", "height", "width", "image_id")
        }
        for one, other in zip(found["annotations"], known["annotations"], strict=True):
            assert {**one, "category_id": 0} == {**other, "category_id": 0}
            word = others[other["category_id"]]
            assert names[one["category_id"]] == expected.get(word, word)


def changed(scenes, tmp_path, change) -> str:
    """What the check says once ``change`` has been at the annotations of v1's validation."""
    root = tmp_path / "data"
    shutil.copytree(scenes / "coco", root / "coco")
    file = root / "lvis" / "lvis_v1_val.json"
    file.parent.mkdir()
    content = json.loads((scenes / "lvis" / file.name).read_text())
    file.write_text(json.dumps(change(content) or content))
    with pytest.raises(InputError) as caught:
        datasets.check(["lvis_v1_val"], root)
    return str(caught.value)


def test_each_image_is_looked_for_in_the_split_of_its_address(scenes, tmp_path):
    def move(content):
        content["images"][0]["coco_url"] = "http://images/train2017/000000999999.jpg"

    said = changed(scenes, tmp_path, move)
    assert "lists 000000999999.jpg, not in" in said and "coco/train2017 as NAME" in said


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda content: content["categories"].pop(), "has 1202 categories; this version of LVIS"),
        (lambda content: [each.pop("coco_url") for each in content["images"]], "'coco_url'"),
        (
            lambda content: [each.pop("neg_category_ids") for each in content["images"]],
            'has no "neg_category_ids", which LVIS\'s metric needs',
        ),
        (
            lambda content: [each.pop("frequency") for each in content["categories"]],
            'has no "frequency", which',
        ),
    ],
)
def test_what_the_annotations_lack_is_named(scenes, tmp_path, change, says):
    def made(content):
        change(content)

    assert says in changed(scenes, tmp_path, made)


def test_images_of_rare_categories_come_more_often(scenes):
    """The factors are Detectron2's, and a trainer's batches are drawn by them."""
    from densessl.d2_transfer.trainer import Trainer

    datasets.register(scenes)
    sizes = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    words = [*sizes, "DATALOADER.REPEAT_THRESHOLD", "0.9", "SOLVER.IMS_PER_BATCH", "1"]
    words += ["INPUT.MIN_SIZE_TRAIN", "(32,)"]
    cfg = resolve("lvis_mask_fpn_2x", gpus=1, mini=True, cuda=False, overrides=words)
    trainer = object.__new__(Trainer)
    trainer._dicts, trainer._first_batch = None, 0
    loader = iter(trainer.build_train_loader(cfg))
    counts: dict[int, int] = {}
    for _ in range(60):
        (image,) = next(loader)
        counts[image["image_id"]] = counts.get(image["image_id"], 0) + 1
    shares: dict[int, int] = {}
    for each in trainer._dicts:
        for label in {one["category_id"] for one in each["annotations"]}:
            shares[label] = shares.get(label, 0) + 1
    rarest = {
        each["image_id"]: min(shares[one["category_id"]] for one in each["annotations"])
        for each in trainer._dicts
    }
    often = [counts[image] for image, share in rarest.items() if share == min(rarest.values())]
    seldom = [counts[image] for image, share in rarest.items() if share == max(rarest.values())]
    assert min(often) > max(seldom)


def test_a_sampler_that_there_is_not_or_that_needs_objects_is_refused():
    key = "DATALOADER.SAMPLER_TRAIN"
    with pytest.raises(InputError, match="'RandomSampler'.*TrainingSampler"):
        resolve("coco_mask_fpn_1x", overrides=[key, "RandomSampler"])
    with pytest.raises(InputError, match="has label images alone: allowed is TrainingSampler"):
        resolve("ade20k_semseg", overrides=[key, "RepeatFactorTrainingSampler"])
