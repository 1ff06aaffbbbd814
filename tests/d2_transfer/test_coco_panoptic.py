"""COCO's panoptic data: label images of stuff, their check, and what a model is given."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import compat, datasets
from densessl.d2_transfer.datasets import coco_panoptic
from densessl.d2_transfer.datasets.prepare import main as prepare
from densessl.d2_transfer.resolve import resolve

compat.setup()
VAL = "coco_2017_val_panoptic_separated"


@pytest.fixture
def own(scenes, tmp_path):
    """A copy of the scenes' COCO."""
    shutil.copytree(scenes / "coco", tmp_path / "data" / "coco")
    return tmp_path / "data"


def test_the_classes_are_detectron2_s():
    import detectron2.data.datasets  # noqa: F401
    from detectron2.data import MetadataCatalog

    known = MetadataCatalog.get(VAL).stuff_dataset_id_to_contiguous_id
    stuff = {id: n for id, n in coco_panoptic.OF_CATEGORY.items() if n}
    assert stuff == {id: n for id, n in known.items() if n}
    assert len(MetadataCatalog.get(VAL).stuff_classes) == coco_panoptic.CLASSES == 54


def test_prepare_makes_the_label_images_of_stuff(own, capsys):
    expected = {file.name: file.read_bytes() for file in (own / "coco").glob("panoptic_stuff_*/*")}
    for folder in (own / "coco").glob("panoptic_stuff_*"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"not there; fix it with: densessl prepare coco_panoptic"):
        datasets.check([VAL], own)
    words = ["coco_panoptic", "--data", str(own), "--workers", "1"]
    assert prepare.main(words) == 0 and "wrote 18 label images" in capsys.readouterr().out
    for file in (own / "coco").glob("panoptic_stuff_*/*"):
        with Image.open(file) as made:
            labels = np.asarray(made)
        assert set(np.unique(labels)) <= {*range(54), 255}
    datasets.check([VAL], own, stand_in=True)
    assert len(expected) == 18
    file = next((own / "coco" / "panoptic_val2017").iterdir())
    pixels = np.array(Image.open(file))
    pixels[0, 0] = (9, 9, 9)
    Image.fromarray(pixels).save(file)
    with pytest.raises(InputError, match="has pixels of segment 592137, which no annotation has"):
        prepare.main(words)


def test_a_label_image_that_is_lost_or_wrong_is_named(own):
    folder = own / "coco" / "panoptic_stuff_val2017"
    first, second = sorted(folder.iterdir())[:2]
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(second)
    with pytest.raises(InputError, match=f"{second.name}.*90.*0 to 53 and 255"):
        datasets.check([VAL], own)
    first.unlink()
    with pytest.raises(InputError, match=f"lists {first.stem}, not in .*panoptic_stuff_val2017"):
        datasets.check([VAL], own)


def test_a_model_is_given_objects_and_stuff_flipped_alike(scenes):
    from detectron2.data import DatasetCatalog

    from densessl.d2_transfer.trainer import build_mapper

    datasets.register(scenes)
    cfg = resolve("coco_panoptic_fpn_1x", gpus=1, mini=True, cuda=False)
    mapper = build_mapper(cfg, is_train=True)
    record = DatasetCatalog.get("coco_2017_train_panoptic_separated")[0]
    made = []
    for seed in range(8):
        np.random.seed(seed)  # noqa: NPY002
        made.append(mapper(record))
    mirrored = next(each for each in made if not torch.equal(each["image"], made[0]["image"]))
    stuff, other = made[0]["sem_seg"], mirrored["sem_seg"]
    assert stuff.shape == made[0]["image"].shape[1:] and stuff.dtype == torch.int64
    assert torch.equal(stuff.flip(1), other) and not torch.equal(stuff, other)
    right = stuff.shape[1] - made[0]["instances"].gt_boxes.tensor[:, 2]
    torch.testing.assert_close(mirrored["instances"].gt_boxes.tensor[:, 0], right)
    assert "sem_seg" not in build_mapper(cfg, is_train=False)(record)


def test_another_model_on_panoptic_data_is_refused(scenes):
    from densessl.d2_transfer.model_check import check_model

    datasets.register(scenes)
    words = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    cfg = resolve("coco_panoptic_fpn_1x", gpus=1, mini=True, cuda=False, overrides=words)
    check_model(cfg, words[::2])
    words += ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
    cfg = resolve("coco_panoptic_fpn_1x", gpus=1, mini=True, cuda=False, overrides=words)
    with pytest.raises(InputError, match="learns from objects; .* has objects and label images"):
        check_model(cfg, words[::2])
