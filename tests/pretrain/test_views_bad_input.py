"""Files and machines that misbehave: what the views make of them."""

import errno
import json

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from PIL import Image

from densessl.core.errors import InputError
from densessl.pretrain.views import RECIPES, ViewDataset, ViewRecipe, build_source, dataset


def source(path, kind="folder", annotations=""):
    data = {"SOURCE": kind, "PATH": str(path), "ANNOTATIONS": str(annotations)}
    return build_source(CfgNode({"DATA": data}))


def noise(width=50, height=40):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_one_readable_image_of_many_is_found_from_every_index(tmp_path):
    noise().save(tmp_path / "000.png")
    for number in range(1, 150):
        (tmp_path / f"{number:03d}.png").write_bytes(b"")
    views = ViewDataset(source(tmp_path), RECIPES["moco_v2"], 16, 0)
    for index in range(1, 150, 7):
        tried = views[(0, index)].unreadable
        assert tried[0] == index and 0 not in tried and len(set(tried)) == len(tried)


def test_an_error_of_the_machine_is_not_an_unreadable_image(tmp_path, monkeypatch):
    noise().save(tmp_path / "a.png")

    def fail(path, *options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(dataset, "decode", fail)
    with pytest.raises(OSError, match="Too many open files"):
        ViewDataset(source(tmp_path), RECIPES["moco_v2"], 16, 0)[(0, 0)]


def test_a_decompression_bomb_is_unreadable(tmp_path):
    noise().save(tmp_path / "b.png")
    Image.new("1", (30000, 20000)).save(tmp_path / "a.png")
    views = ViewDataset(source(tmp_path), RECIPES["moco_v2"], 16, 0)
    assert views[(0, 0)].unreadable == [0]
    assert "30000 x 20000 pixels" in views.reason(0)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1)])
def test_narrow_images_make_views(width, height, tmp_path):
    Image.new("RGB", (width, height), (10, 20, 30)).save(tmp_path / "a.png")
    sample = ViewDataset(source(tmp_path), RECIPES["byol"], 16, 0)[(0, 0)]
    assert torch.equal(sample.image[0, :, 0, 0], torch.tensor([10, 20, 30], dtype=torch.uint8))
    assert sample.size.tolist() == [width, height]


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # 'rotate by a quarter turn'
    noise(50, 40).save(tmp_path / "a.jpg", exif=exif)
    sample = ViewDataset(source(tmp_path), RECIPES["moco_v2"], 16, 0)[(0, 0)]
    assert sample.size.tolist() == [40, 50]


@pytest.mark.parametrize("most", [0, 9600, 2400])
def test_boxes_of_a_reduced_image_are_in_pixels_of_the_file(most, tmp_path):
    """The view is the mean colour of its box in the file: the image is a ramp in x and in y."""
    x, y = np.meshgrid(np.arange(240), np.arange(160))
    ramp = np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    recipe = (ViewRecipe(scale=(0.3, 0.6), flip=0.0),)
    views = ViewDataset(source(tmp_path), recipe, 8, 0, max_pixels=most)
    sample = views[(0, 0)]
    assert sample.size.tolist() == [240, 160]
    x1, y1, x2, y2 = sample.box[0].tolist()
    colours = sample.image[0].float().mean((1, 2))
    assert abs(colours[0] - ((x1 + x2) / 2 - 0.5)) < 1.5
    assert abs(colours[1] - ((y1 + y2) / 2 - 0.5)) < 1.5


def test_a_list_file_may_begin_with_a_byte_order_mark(tmp_path):
    noise().save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\n")
    assert source(tmp_path / "list.txt", "list").name(0) == "a.png"


def test_a_json_given_as_a_list_file_is_refused(tmp_path):
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"images": [{"file_name": "x" * 200}] * 30}))
    with pytest.raises(InputError, match="the first image of"):
        source(file, "list")


@pytest.mark.parametrize("name", [3, None])
def test_coco_names_must_be_text(name, tmp_path):
    file = tmp_path / "coco.json"
    file.write_text(json.dumps({"images": [{"file_name": name}]}))
    with pytest.raises(InputError, match="is not a COCO JSON"):
        source(tmp_path, "coco", file)


def test_a_blur_longer_than_its_kernel_is_refused():
    with pytest.raises(InputError, match="blur_sigma"):
        ViewRecipe(blur_sigma=(0.1, 5.0))
