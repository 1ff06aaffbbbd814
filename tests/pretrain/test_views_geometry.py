"""A view's box and flip say exactly which pixels of the source image it shows."""

import math

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from densessl.decoding import decode
from densessl.pretrain.views import RECIPES, ViewDataset, build_source, collate
from densessl.pretrain.views.view import crop, random_box

WIDTH, HEIGHT = 200, 150


@pytest.fixture
def coordinates(tmp_path):
    """A folder of one lossless image whose red is x and whose green is y."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    Image.fromarray(np.dstack((x, y, np.zeros_like(x)))).save(tmp_path / "xy.png")
    return tmp_path


def source(folder, kind="folder", annotations=""):
    from fvcore.common.config import CfgNode

    data = {"SOURCE": kind, "PATH": str(folder), "ANNOTATIONS": str(annotations)}
    return build_source(CfgNode({"DATA": data}))


def test_every_pixel_of_a_view_is_where_its_box_and_flip_say(coordinates):
    dataset = ViewDataset(source(coordinates), RECIPES["moco_v2_coord"], 32, seed=0)
    flips = set()
    for epoch in range(20):
        batch = collate([dataset[(epoch, 0)]])
        assert batch.size.tolist() == [[WIDTH, HEIGHT]]
        for number in range(2):
            image = batch.image[0, number].float()
            x1, y1, x2, y2 = batch.box[0, number]
            assert 0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT
            centre = (torch.arange(32) + 0.5) / 32
            x, y = x1 + centre * (x2 - x1) - 0.5, y1 + centre * (y2 - y1) - 0.5
            if batch.flip[0, number]:
                x = x.flip(0)
            inside = slice(3, -3)  # at the border the filter leans inwards
            expected_x = x[None, inside].expand(26, 26)
            expected_y = y[inside, None].expand(26, 26)
            assert (image[0, inside, inside] - expected_x).abs().max() < 1.5
            assert (image[1, inside, inside] - expected_y).abs().max() < 1.5
            flips.add(bool(batch.flip[0, number]))
    assert flips == {True, False}


def test_crop_is_torchvisions_resized_crop(coordinates):
    image = Image.open(coordinates / "xy.png")
    expected = torchvision.transforms.functional.resized_crop(image, 20, 10, 70, 90, [48, 48])
    ours = crop(image, (10, 20, 100, 90), False, 48)
    assert torch.equal(ours, torchvision.transforms.functional.pil_to_tensor(expected))
    mirrored = crop(image, (10, 20, 100, 90), True, 48)
    assert torch.equal(mirrored, ours.flip(2))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (64, 64)])
def test_boxes_are_distributed_as_torchvisions(width, height):
    rng = np.random.default_rng(0)
    scale, ratio = (0.2, 1.0), (3 / 4, 4 / 3)
    boxes = np.array([random_box(rng, width, height, scale, ratio) for _ in range(6000)], float)
    torch.manual_seed(0)
    canvas = torch.empty(3, height, width)
    params = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([params(canvas, list(scale), list(ratio)) for _ in range(6000)], float)
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    for ours, reference in (
        (w * h / (width * height), theirs[:, 2] * theirs[:, 3] / (width * height)),
        (np.log(w / h), np.log(theirs[:, 3] / theirs[:, 2])),
        (boxes[:, 0] / width, theirs[:, 1] / width),
        (boxes[:, 1] / height, theirs[:, 0] / height),
    ):
        for share in (0.1, 0.5, 0.9):
            assert np.quantile(ours, share) == pytest.approx(
                np.quantile(reference, share), abs=0.02
            )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (1000, 20)])
def test_images_too_narrow_for_any_crop_give_a_centred_one(width, height):
    box = random_box(np.random.default_rng(0), width, height, (0.2, 1.0), (3 / 4, 4 / 3))
    x1, y1, x2, y2 = box
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert math.isclose(x1 + x2, width, abs_tol=1) and math.isclose(y1 + y2, height, abs_tol=1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    gray = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    suffix = "tif" if mode == "CMYK" else "png"
    path = tmp_path / f"image.{suffix}"
    if mode == "I;16":
        Image.fromarray(gray.astype(np.uint16) * 256).save(path)
    else:
        image = Image.fromarray(gray)
        (image if mode == "P" else image.convert("RGB")).convert(mode).save(path)
    decoded = decode(str(path)).image
    assert decoded.mode == "RGB" and decoded.size == (64, 48)
    if mode != "1":
        assert np.abs(np.asarray(decoded)[..., 0].astype(int) - gray).max() < 12
