"""Batches and crops are functions of seed and step, and are torchvision's."""

import itertools
import multiprocessing

import numpy as np
import pytest
import torch
from torchvision import transforms as T

from densessl.core.errors import InputError
from densessl.d2_transfer import classification
from densessl.d2_transfer.classification.data import read
from densessl.d2_transfer.classification.loading import (
    EvaluationCrops,
    Order,
    TrainingCrops,
    evaluation_batches,
    training_batches,
)


def config(*overrides):
    cfg = classification.resolve("knn", overrides=overrides, mini=True, cuda=False)
    return cfg


@pytest.fixture(scope="module")
def objects(scenes):
    return read(config(), scenes)[0]


def test_the_stream_holds_every_image_once_an_epoch():
    order = Order(images=10, batch_size=4, seed=3, first=0, last=10, rank=0, world=1)
    stream = list(itertools.chain.from_iterable(order))
    assert [position for position, _ in stream] == list(range(40)) and len(order) == 10
    epochs = [[index for _, index in stream[at : at + 10]] for at in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = Order(10, 4, 4, 0, 10, 0, 1)
    assert stream != list(itertools.chain.from_iterable(other))


def test_any_step_can_be_entered_and_processes_share_a_batch():
    whole = list(Order(10, 6, 3, 0, 9, 0, 1))
    assert list(Order(10, 6, 3, 5, 9, 0, 1)) == whole[5:]
    shares = [list(Order(10, 6, 3, 0, 9, rank, 2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert first == batch[0::2] and second == batch[1::2]


def test_a_batch_may_be_larger_than_the_set():
    (batch,) = Order(3, 8, 0, 0, 1, 0, 1)
    assert sorted(np.bincount([index for _, index in batch]).tolist()) == [2, 3, 3]


def test_workers_change_no_pixel(objects):
    def batches(workers):
        cfg = config("DATALOADER.NUM_WORKERS", str(workers))
        with training_batches(objects, cfg, Order(len(objects), 8, 0, 2, 5, 0, 1)) as found:
            return list(found)

    alone, shared = batches(0), batches(2)
    assert len(alone) == 3
    for (images, labels), (others, their_labels) in zip(alone, shared, strict=True):
        assert images.dtype == torch.uint8 and images.shape == (8, 3, 32, 32)
        assert torch.equal(images, others) and torch.equal(labels, their_labels)


def test_training_crops_are_torchvisions(objects):
    cfg = config("INPUT.CROP_SCALE", "(0.08, 1.0)")
    ours = TrainingCrops(objects, cfg)
    torch.manual_seed(0)
    recipe = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.PILToTensor()])
    theirs = torch.stack([recipe(objects.open(n % 20)) for n in range(400)]).double()
    mine = torch.stack([ours[n, n % 20][0] for n in range(400)]).double()
    assert not torch.equal(ours[0, 7][0], ours[1, 7][0])
    assert torch.equal(ours[0, 7][0], ours[0, 7][0])
    for moment in (torch.mean, torch.std):  # of a distribution: each of 400 draws is another
        assert moment(mine) == pytest.approx(moment(theirs).item(), rel=0.03)


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_evaluation_crops_are_torchvisions(objects, how):
    cfg = config("INPUT.INTERPOLATION", how)
    mode = T.InterpolationMode(how)
    recipe = T.Compose([T.Resize(36, mode), T.CenterCrop(32), T.PILToTensor()])
    image, label = EvaluationCrops(objects, cfg)[4]
    assert torch.equal(image, recipe(objects.open(4))) and label == objects.labels[4]
    cfg = config("TEST.IMS_PER_BATCH", "2")
    with evaluation_batches(objects, range(1, 11, 2), cfg) as found:
        batches = list(found)
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == objects.labels[1:11:2].tolist()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_unreadable_image_is_named(tmp_path, workers):
    from PIL import Image

    for split, name in itertools.product(("train", "val"), "ab"):
        folder = tmp_path / "classes" / split / name
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(folder / "good.png")
    (tmp_path / "classes/val/b/good.png").write_bytes(b"\x89PNG")
    cfg = classification.resolve(
        *("finetune_cls", "folder"),
        overrides=["DATALOADER.NUM_WORKERS", workers],
        mini=True,
        cuda=False,
    )
    _, val = read(cfg, tmp_path)
    with (
        pytest.raises(InputError, match=r"val: .*val/b/good.png cannot be read: .*$") as caught,
        evaluation_batches(val, range(2), cfg) as batches,
    ):
        list(batches)
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children()
