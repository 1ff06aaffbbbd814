"""A folder of images and one of label images: what people have is taken, what is wrong is named."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from densessl import probes
from densessl.core.errors import InputError

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
        spoil_missing,
        spoil_colour,
        spoil_size,
        spoil_value,
        spoil_mask,
        spoil_image,
        spoil_twice,
        spoil_all,
    ],
)
def test_what_is_wrong_is_named(folders, spoil):
    named = spoil(*folders)
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        probes.read_pairs(*folders)


@pytest.mark.parametrize("of_image, of_mask", [("", "_labelIds"), ("_8bit", ""), ("_x-8", "_ids")])
def test_endings_of_names_are_found_and_told(folders, of_image, of_mask):
    for folder, end in zip(folders, (of_image, of_mask), strict=True):
        for file in [file for file in folder.rglob("*") if file.is_file()]:
            file.rename(file.with_stem(file.stem + end))
    with pytest.raises(InputError) as refused:
        probes.read_pairs(*folders)
    for option, end in (("--image-suffix", of_image), ("--mask-suffix", of_mask)):
        assert (f"{option} {end}" in str(refused.value)) == bool(end)
    pairs = probes.read_pairs(*folders, image_suffix=of_image, mask_suffix=of_mask)
    assert len(pairs) == 8 and pairs.names[0] == "a/1"


def test_both_in_one_folder(folders, tmp_path):
    for file in list(folders[1].rglob("*.png")):
        file.rename(folders[0] / file.relative_to(folders[1]).with_stem(f"{file.stem}_mask"))
    pairs = probes.read_pairs(folders[0], folders[0], mask_suffix="_mask")
    assert len(pairs) == 8 and pairs.ignored == 8


def test_label_images_of_no_image_are_left_out(folders, caplog):
    Image.new("L", (3, 3)).save(folders[1] / "extra.png")
    with caplog.at_level("INFO"):
        assert len(probes.read_pairs(*folders)) == 8
    assert "extra.png" in caplog.text


def test_an_image_is_upright_and_so_are_its_labels(folders):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: 8 × 12
    picture = Image.new("RGB", (12, 8))
    picture.putpixel((0, 7), (255, 0, 0))
    picture.save(folders[0] / "b/c/0.PNG", exif=exif)
    with pytest.raises(InputError, match=r"0\.png.*12×8.*8×12.*EXIF"):
        probes.read_pairs(*folders)
    turned = labels_of(folders, 0).T
    Image.fromarray(np.ascontiguousarray(turned)).save(folders[1] / "b/c/0.png")
    image, labels = probes.read_pairs(*folders)[4]
    assert image.shape[1:] == labels.shape == (12, 8)
    assert image[:, 0, 0].tolist() == [255, 0, 0] and np.array_equal(labels, turned)


def test_names_may_be_any_bytes(folders):
    for folder, end in zip(folders, (b".jpg", b".png"), strict=True):
        file = next(folder.rglob(f"1.{end[1:].decode()}"))
        file.rename(os.fsdecode(os.fsencode(file.parent) + b"/\xff\n1" + end))
    pairs = probes.read_pairs(*folders)
    assert len(pairs) == 8 and pairs[0][1].shape == pairs[0][0].shape[1:]
    pairs.masks[0].unlink()
    with pytest.raises(InputError) as refused:
        probes.read_pairs(*folders)
    assert "\n" not in str(refused.value)


def test_masks_of_0_and_255_are_not_taken_for_one_class_with_holes(folders, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("background\ncell\n")
    for file in folders[1].rglob("*.png"):
        labels = np.array(Image.open(file))
        Image.fromarray(np.where(labels > 1, 255, 0).astype(np.uint8)).save(file)
    for classes in (None, names):
        with pytest.raises(InputError, match="255"):
            probes.read_pairs(*folders, classes)
    for file in folders[1].rglob("*.png"):
        Image.fromarray(np.array(Image.open(file)) > 0).save(file)  # 1 bit
        assert Image.open(file).mode == "1"
    pairs = probes.read_pairs(*folders, names)
    assert pairs.ignored == 0 and min(pairs.pixels) > 0


def test_grey_levels_are_doubted(folders, caplog):
    for file in folders[1].rglob("*.png"):
        Image.fromarray(np.minimum(np.array(Image.open(file)), 3) * 60).save(file)
    pairs = probes.read_pairs(*folders)
    assert len(pairs.classes) == 181 and "grey levels" in caplog.text


def test_splits_agree_on_the_classes(folders):
    train = probes.read_pairs(*folders)
    for file in folders[1].rglob("*.png"):
        labels = np.array(Image.open(file))
        Image.fromarray(np.where(labels == 3, 1, labels).astype(np.uint8)).save(file)
    val = probes.read_pairs(*folders)
    assert len(val.classes) == 3
    train, val = probes.agreed(train, val)
    assert train.classes == val.classes == ("0", "1", "2", "3") and val.absent == ("3",)
