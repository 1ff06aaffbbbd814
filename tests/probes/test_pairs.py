"""A folder of images and one of label images: what people have is taken, what is wrong is named."""

import numpy as np
import pytest
import torch
from PIL import Image

import probes
from console.errors import InputError

SIZES = [(12, 8), (9, 9), (16, 5), (7, 11), (12, 8), (10, 6), (8, 8), (5, 5)]


@pytest.fixture
def folders(tmp_path):
    """Eight small pictures, in nested folders, and their label images: classes 0 to 3, and 255."""
    for n, (width, height) in enumerate(SIZES):
        generator = np.random.default_rng(n)
        below = "a" if n % 2 else "b/c"
        for kind in ("images", "masks"):
            (tmp_path / kind / below).mkdir(parents=True, exist_ok=True)
        picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / below / f"{n}.{'jpg' if n else 'PNG'}")
        labels = generator.integers(0, 4, (height, width), dtype=np.uint8)
        labels[0, 0] = 255
        Image.fromarray(labels).save(tmp_path / "masks" / below / f"{n}.png")
    return tmp_path / "images", tmp_path / "masks"


def labels_of(folders, n):
    return np.array(Image.open(folders[1] / ("a" if n % 2 else "b/c") / f"{n}.png"))


def test_pairs_are_what_lies_there(folders):
    pairs = probes.read_pairs(*folders)
    assert len(pairs) == 8 and pairs.classes == ("0", "1", "2", "3")
    assert pairs.names == ("a/1", "a/3", "a/5", "a/7", "b/c/0", "b/c/2", "b/c/4", "b/c/6")
    image, labels = pairs[4]
    assert image.dtype == labels.dtype == torch.uint8
    stored = np.array(Image.open(pairs.images[4]))
    assert np.array_equal(image.permute(1, 2, 0), stored)
    assert np.array_equal(labels, labels_of(folders, 0))
    every = np.concatenate([labels_of(folders, n).ravel() for n in range(8)])
    assert pairs.pixels == tuple(np.bincount(every)[:4]) and pairs.ignored == 8
    assert pairs.absent == ()


def test_palette_16_bit_and_another_ignored_value(folders):
    plain = probes.read_pairs(*folders)
    picture = Image.fromarray(labels_of(folders, 1)).convert("P")
    picture.putpalette(list(range(255, -1, -1)) * 3)
    picture.save(folders[1] / "a/1.png")
    deep = labels_of(folders, 3).astype(np.uint16)
    deep[0, 0] = 65535
    Image.fromarray(deep).save(folders[1] / "a/3.png")
    pairs = probes.read_pairs(*folders)
    assert pairs.pixels == plain.pixels and pairs.ignored == plain.ignored
    for n in (0, 1):
        assert torch.equal(pairs[n][1], plain[n][1])
    counted = probes.read_pairs(*folders, ignore=0)  # from 1: a file's 1 is class 0
    assert counted.pixels == plain.pixels[1:]
    assert counted.ignored == plain.ignored + plain.pixels[0]
    assert torch.equal(counted[1][1] == 255, (plain[1][1] == 255) | (plain[1][1] == 0))


def test_names_of_classes(folders, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("sky\nroad\ntree\ncar\nsheep\n")
    pairs = probes.read_pairs(*folders, names)
    assert pairs.classes == ("sky", "road", "tree", "car", "sheep") and pairs.absent == ("sheep",)
    names.write_text("sky\nroad\n\n")
    with pytest.raises(InputError, match=r"\.png.* 2"):
        probes.read_pairs(*folders, names)
    names.write_text("sky\nsky\n")
    with pytest.raises(InputError, match="sky"):
        probes.read_pairs(*folders, names)


def spoil_missing(images, masks):
    (masks / "a/5.png").unlink()
    return "a/5.jpg"


def spoil_colour(images, masks):
    Image.new("RGB", (9, 9)).save(masks / "a/1.png")
    return "a/1.png"


def spoil_size(images, masks):
    Image.new("L", (8, 9)).save(masks / "a/1.png")
    return "a/1.png"


def spoil_value(images, masks):
    Image.fromarray(np.full((9, 9), 700, np.uint16)).save(masks / "a/1.png")
    return "700"


def spoil_mask(images, masks):
    (masks / "a/1.png").write_bytes(b"\x89PNG, but not really")
    return "a/1.png"


def spoil_image(images, masks):
    (images / "a/1.jpg").write_bytes(b"")
    return "a/1.jpg"


def spoil_twice(images, masks):
    Image.new("RGB", (9, 9)).save(images / "a/1.png")
    return "a/1.png"


def spoil_all(images, masks):
    for file in masks.rglob("*.png"):
        file.rename(file.with_suffix(".gif"))
    return ".gif"


@pytest.mark.parametrize(
    "spoil",
    [
        *(spoil_missing, spoil_colour, spoil_size, spoil_value),
        *(spoil_mask, spoil_image, spoil_twice, spoil_all),
    ],
)
def test_what_is_wrong_is_named(folders, spoil):
    named = spoil(*folders)
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        probes.read_pairs(*folders)


def test_suffixes_are_found_and_told(folders):
    for file in list(folders[1].rglob("*.png")):
        file.rename(file.with_name(f"{file.stem}_labelIds.png"))
    with pytest.raises(InputError, match="--mask-suffix _labelIds"):
        probes.read_pairs(*folders)
    assert len(probes.read_pairs(*folders, mask_suffix="_labelIds")) == 8


def test_splits_agree_on_the_classes(folders):
    train = probes.read_pairs(*folders)
    for file in folders[1].rglob("*.png"):
        labels = np.array(Image.open(file))
        Image.fromarray(np.where(labels == 3, 1, labels).astype(np.uint8)).save(file)
    val = probes.read_pairs(*folders)
    assert len(val.classes) == 3
    train, val = probes.agreed(train, val)
    assert train.classes == val.classes == ("0", "1", "2", "3") and val.absent == ("3",)
